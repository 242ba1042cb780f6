"""`/api/v1/prices`, `/api/v1/models` and `/api/v1/cost`."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Annotated

from fastapi import APIRouter, Query, Response

from entitlements.api.exact import ExactRoute
from entitlements.api.parameters import Admin, Reader, ok
from entitlements.api.wire import Name
from entitlements.usage_records.api.parameters import ModelParameters
from entitlements.usage_records.api.price_wire import PriceBody
from entitlements.usage_records.api.views import (
    CostView,
    ModelPage,
    PricePage,
    PriceView,
    cost_json,
    model_json,
    price_json,
)
from entitlements.usage_records.api.wire import CostBody
from entitlements.usage_records.prices import PriceService
from meterline.kernel.clock import Clock
from meterline.pricing.book import Asked, PriceBook
from meterline.pricing.rates import KnownModel, Price
from meterline.web.idempotency import EffectId
from meterline.web.json import ExactJSONResponse
from meterline.web.paging import encode_cursor


def router(service: PriceService, clock: Clock) -> APIRouter:
    """Prices of one's own, the models that have a price, and estimates."""
    api = APIRouter(
        prefix="/api/v1",
        tags=["Prices"],
        default_response_class=ExactJSONResponse,
        route_class=ExactRoute,
    )
    _add_prices(api, service)
    _add_models(api, service, clock)
    return api


def _add_prices(api: APIRouter, service: PriceService) -> None:
    @api.get("/prices", responses=ok(PricePage))
    async def list_prices(principal: Reader) -> Response:
        """List the namespace's own prices, oldest first."""
        found = await service.list(principal.namespace)
        return ExactJSONResponse({"items": [price_json(one) for one in found]})

    @api.post("/prices", status_code=201, responses=ok(PriceView, 201))
    async def create_price(principal: Admin, body: PriceBody, effect_id: EffectId) -> Response:
        """Keep a price. It wins over the catalogue, and is never completed from it: usage that it
        has no rate for is unpriced."""
        made = await service.create(principal.namespace, body.spec(service.limits), effect_id)
        return ExactJSONResponse(price_json(made), status_code=201)

    @api.get("/prices/{price_id}", responses=ok(PriceView))
    async def get_price(principal: Reader, price_id: Name) -> Response:
        """Get a price."""
        return ExactJSONResponse(price_json(await service.get(principal.namespace, price_id)))

    @api.put("/prices/{price_id}", responses=ok(PriceView))
    async def replace_price(principal: Admin, price_id: Name, body: PriceBody) -> Response:
        """Change a price. What was recorded before keeps the price that it had."""
        spec = body.spec(service.limits)
        return ExactJSONResponse(
            price_json(await service.replace(principal.namespace, price_id, spec))
        )

    @api.delete("/prices/{price_id}", status_code=204)
    async def delete_price(principal: Admin, price_id: Name) -> None:
        """Forget a price."""
        await service.delete(principal.namespace, price_id)


def _add_models(api: APIRouter, service: PriceService, clock: Clock) -> None:
    @api.get("/models", responses=ok(ModelPage))
    async def list_models(
        principal: Reader, given: Annotated[ModelParameters, Query()]
    ) -> Response:
        """List the models that have a price, with the price of now: the catalogue's, then those
        that have own prices alone. A pattern is the price of models, and no model."""
        start, book = given.start(), PriceBook(service.catalogue)
        if given.own == "true":
            book = await service.book(principal.namespace)
        known = chain(
            ((one, _price(book, one, clock)) for one in service.models(given.provider)),
            ((one, one.price) for one in book.own_models(given.provider, clock())),
        )
        page = list(islice(_wanted(known, given.model_id), start, start + given.limit + 1))
        items = [model_json(*one) for one in page[: given.limit]]
        more = len(page) > given.limit
        cursor = encode_cursor([start + given.limit]) if more else None
        version = service.catalogue.version
        return ExactJSONResponse({"catalogue": version, "items": items, "nextCursor": cursor})

    @api.post("/cost", responses=ok(CostView))
    async def estimate_cost(principal: Reader, body: CostBody) -> Response:
        """Say what a call costs, without recording it."""
        asked = body.asked(service.limits, clock())
        return ExactJSONResponse(
            cost_json(await service.quote(principal.namespace, asked, body.usage()))
        )


def _wanted(
    models: Iterable[tuple[KnownModel, Price]], part: str | None
) -> Iterator[tuple[KnownModel, Price]]:
    text = (part or "").lower()
    return ((one, price) for one, price in models if text in one.id.lower())


def _price(book: PriceBook, model: KnownModel, clock: Clock) -> Price:
    found = book.own(Asked(model.id, clock(), model.provider)) if book.overrides else None
    return found or model.price
