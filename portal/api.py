"""`/api/v1/portal`: tokens for the seller's back end, queries for the end user's browser."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, Query, Request
from fastapi.security import HTTPBearer
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from aggregator.api.parameters import query_parameters
from aggregator.api.query import ANSWERS, render
from aggregator.service import QueryResult
from meterline.kernel.clock import Clock
from meterline.kernel.errors import ForbiddenError
from meterline.kernel.meters import Meter
from meterline.kernel.text import TEXT_PATTERN
from meterline.web.auth import Principal, requires
from meterline.web.json import ExactJSONResponse
from portal.store import PortalToken
from portal.tokens import PortalService


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class TokenCreate(_Wire):
    """A token to issue."""

    # A misspelt `allowedMeterSlugs` must not open every meter.
    model_config = ConfigDict(extra="forbid")

    subject: str = Field(
        min_length=1,
        description="Whose usage it may read.",
        json_schema_extra={"pattern": TEXT_PATTERN},
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="RFC 3339, to the second. By default in an hour."
    )
    allowed_meter_slugs: list[str] | None = Field(
        default=None, min_length=1, description="The meters it may read; absent means all."
    )


class TokenView(_Wire):
    """A token, without its text."""

    id: str
    subject: str
    created_at: datetime
    expires_at: datetime
    expired: bool
    allowed_meter_slugs: list[str] | None = None


class TokenCreated(TokenView):
    """A new token."""

    token: str = Field(description="The token itself. It is shown this one time.")


class TokenInvalidate(_Wire):
    """Which tokens to revoke; nothing given means every token of the namespace."""

    # A misspelt `id` must not revoke everything.
    model_config = ConfigDict(extra="forbid")

    id: str | None = None
    subject: str | None = None


class Meters(Protocol):
    """What the portal needs of the meters."""

    async def get(self, namespace: str, id_or_slug: str) -> Meter:
        """The meter with that slug, or `NotFoundError`."""
        ...

    async def query_from_params(
        self,
        namespace: str,
        id_or_slug: str,
        params: Iterable[tuple[str, str]],
        *,
        subject: str | None = None,
    ) -> QueryResult:
        """A meter query with the parameters of `GET /api/v1/meters/{slug}/query`, for `subject`
        alone, whatever the parameters say of subjects."""
        ...


Issuer = Annotated[Principal, Depends(requires("portal:issue"))]


def tokens_router(service: PortalService, meters: Meters, clock: Clock) -> APIRouter:
    """`/api/v1/portal/tokens`, for the seller's back end."""
    api = APIRouter(
        prefix="/api/v1/portal/tokens", tags=["Portal"], default_response_class=ExactJSONResponse
    )
    page = service.limits.max_page

    @api.post("", response_model_exclude_none=True)
    async def create_portal_token(principal: Issuer, body: TokenCreate) -> TokenCreated:
        """Issue a token. The answer is the only place where its text is ever shown."""
        for slug in (body.allowed_meter_slugs or ())[: service.limits.max_meter_slugs]:
            await meters.get(principal.namespace, slug)
        token, text = await service.create(
            principal.namespace, body.subject, body.expires_at, body.allowed_meter_slugs
        )
        return TokenCreated(**_view(token, clock()).model_dump(), token=text)

    @api.get("", response_model_exclude_none=True)
    async def list_portal_tokens(
        principal: Issuer, limit: Annotated[int, Query(ge=1, le=page)] = service.limits.default_page
    ) -> list[TokenView]:
        """List the newest tokens that were not revoked."""
        now = clock()
        return [_view(token, now) for token in await service.list(principal.namespace, limit)]

    @api.post("/invalidate", status_code=204, response_class=Response)
    async def invalidate_portal_tokens(
        principal: Issuer, body: TokenInvalidate | None = None
    ) -> None:
        """Revoke the token with an id, the tokens of a subject, or all. Within a second it holds.

        Naming none that exists is no error: afterwards there is no such token in either case.
        """
        which = body or TokenInvalidate()
        await service.invalidate(principal.namespace, which.id, which.subject)

    return api


portal_token = HTTPBearer(scheme_name="PortalToken", description="A portal token", auto_error=False)


def query_router(service: PortalService, meters: Meters) -> APIRouter:
    """`/api/v1/portal/meters/{slug}/query`, for the end user's browser."""
    api = APIRouter(
        prefix="/api/v1/portal/meters",
        tags=["Portal"],
        default_response_class=ExactJSONResponse,
        dependencies=[Depends(portal_token)],
    )

    parameters = [one for one in query_parameters(1) if one["name"] != "subject"]

    @api.get("/{slug}/query", responses=ANSWERS, openapi_extra={"parameters": parameters})
    async def query_portal_meter(slug: str, request: Request) -> Response:
        """Query a meter for the token's subject: as `/api/v1/meters/{slug}/query` does, but a
        `subject` parameter changes nothing."""
        token = await service.authenticate(request.headers.get("authorization"))
        if not token.allows(slug):
            raise ForbiddenError("this portal token may not read that meter")
        others = [
            (name, value)
            for name, value in request.query_params.multi_items()
            if name.removesuffix("[]") != "subject"
        ]
        result = await meters.query_from_params(
            token.namespace, slug, others, subject=token.subject
        )
        # Many rows take a while, and other requests should not wait for them.
        return await asyncio.to_thread(render, result, request)

    return api


def _view(token: PortalToken, now: datetime) -> TokenView:
    slugs = token.allowed_meter_slugs
    return TokenView(
        id=token.id,
        subject=token.subject,
        created_at=token.created_at,
        expires_at=token.expires_at,
        expired=now >= token.expires_at,
        allowed_meter_slugs=None if slugs is None else list(slugs),
    )
