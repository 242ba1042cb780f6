"""`/api/v1/portal/entitlements`: what the subject of a portal token may use, for its browser."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel

from entitlements.api.encode import access_json, entitlement_json
from entitlements.api.parameters import Fresh, Time, ok
from entitlements.api.views import PeriodView, RecurrenceView, ValueView
from entitlements.api.views import Time as TimeView
from entitlements.services.entitlements import EntitlementService
from entitlements.services.values import ValueService
from meterline.kernel.clock import Clock
from meterline.kernel.errors import ForbiddenError
from meterline.web.json import ExactJSONResponse
from portal.api import portal_token
from portal.store import PortalToken
from portal.tokens import PortalService


class PortalEntitlementView(BaseModel):
    """An entitlement of the token's subject with its value. The rest is the seller's."""

    id: str
    type: Literal["metered", "static", "boolean"]
    subjectKey: str
    featureKey: str
    createdAt: TimeView
    usagePeriod: RecurrenceView | None = None
    currentUsagePeriod: PeriodView | None = None
    value: ValueView


_SHOWN = PortalEntitlementView.model_fields.keys() - {"value"}


class PortalEntitlements:
    """The entitlements of a token's subject.

    A token that is bound to meters does not tell of features that other meters measure.
    """

    def __init__(
        self, entitlements: EntitlementService, values: ValueService, clock: Clock
    ) -> None:
        self.values = values
        self._entitlements = entitlements
        self._clock = clock

    async def all(self, token: PortalToken) -> Sequence[Mapping[str, Any]]:
        """Every entitlement that the token may read, with its value."""
        found = await self._entitlements.of_subject(token.namespace, token.subject)
        answers = await self.values.access(token.namespace, token.subject)
        told = []
        for state in found:
            access = answers.get(state.entitlement.feature_key)
            if access is None or not await self._allows(token, state.entitlement.id, None):
                continue
            shown = {k: v for k, v in entitlement_json(state).items() if k in _SHOWN}
            told.append({**shown, "value": access_json(access)})
        return told

    async def value(self, token: PortalToken, ref: str, at: datetime | None) -> Mapping[str, Any]:
        """The value of one of the subject's entitlements."""
        if not await self._allows(token, ref, at):
            raise ForbiddenError("this portal token may not read the meter of that feature")
        return access_json(await self.values.value(token.namespace, token.subject, ref, at))

    async def _allows(self, token: PortalToken, ref: str, at: datetime | None) -> bool:
        if token.allowed_meter_slugs is None:
            return True
        loaded = await self.values.load(token.namespace, token.subject, ref, at or self._clock())
        slug = loaded.feature.meter_slug
        return slug is None or token.allows(slug)


def router(service: PortalService, entitlements: PortalEntitlements) -> APIRouter:
    """`/api/v1/portal/entitlements` over a service."""
    api = APIRouter(
        prefix="/api/v1/portal/entitlements",
        tags=["Portal"],
        default_response_class=ExactJSONResponse,
        dependencies=[Depends(portal_token)],
    )

    async def holder(request: Request) -> PortalToken:
        return await service.authenticate(request.headers.get("authorization"))

    @api.get("", responses=ok(list[PortalEntitlementView]))
    async def list_portal_entitlements(
        fresh: Fresh, token: PortalToken = Depends(holder)
    ) -> Response:
        """List what the token's subject may use, and what is left of it."""
        await fresh.reached(entitlements.values)
        return ExactJSONResponse(await entitlements.all(token))

    @api.get("/{featureKey}/value", responses=ok(ValueView))
    async def get_portal_entitlement_value(
        feature_key: Annotated[str, Path(alias="featureKey")],
        fresh: Fresh,
        token: PortalToken = Depends(holder),
        time: Time = None,
    ) -> Response:
        """Whether the token's subject may use a feature, and what is left."""
        await fresh.reached(entitlements.values)
        return ExactJSONResponse(await entitlements.value(token, feature_key, time))

    return api
