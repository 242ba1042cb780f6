"""`/api/v1/stripe`: the webhook, and what came through it."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response

from entitlements.api.parameters import Admin, ok
from entitlements.api.wire import Name
from entitlements.plans.api.views import ReceivedView, StripeEventView
from entitlements.plans.payments.service import StripeService
from entitlements.plans.stores.payments import Received
from meterline.kernel.errors import ForbiddenError, PayloadTooLargeError
from meterline.kernel.instants import format_instant
from meterline.web.json import ExactJSONResponse

_EVENT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An event of Stripe, as it was signed.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["id", "type", "created", "data"],
                    "properties": {
                        "id": {"type": "string"},
                        "type": {"type": "string"},
                        "created": {"type": "integer"},
                        "data": {"type": "object", "required": ["object"]},
                    },
                }
            }
        },
    }
}


def router(service: StripeService) -> APIRouter:
    """The webhook needs no API key: it is signed."""
    api = APIRouter(
        prefix="/api/v1/stripe", tags=["Stripe"], default_response_class=ExactJSONResponse
    )

    @api.post("/webhook", responses=ok(ReceivedView, 200, 413), openapi_extra=_EVENT)
    async def receive_stripe_event(
        request: Request,
        stripe_signature: Annotated[str | None, Header(alias="Stripe-Signature")] = None,
    ) -> Response:
        """Take an event of Stripe. 200 as soon as it is kept, whether it was of use or not."""
        body = await request.body()
        most = service.options.max_body_bytes
        if len(body) > most:
            raise PayloadTooLargeError(f"the request body has more than {most} bytes")
        done = await service.receive(body, stripe_signature)
        answer = {"received": True, "id": done.id, "outcome": done.outcome}
        if done.reason is not None:
            answer["reason"] = done.reason
        if done.plan is not None:
            answer["plan"] = done.plan
        return ExactJSONResponse(answer)

    @api.get("/events", responses=ok(list[StripeEventView]))
    async def list_stripe_events(
        principal: Admin,
        outcome: Literal["applied", "scheduled", "ignored", "stale"] | None = None,
        subject: Name | None = None,
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    ) -> Response:
        """List Stripe's events and what became of each, newest first."""
        if principal.namespace != service.options.namespace:
            raise ForbiddenError("Stripe's events are of another namespace")
        found = await service.events(outcome=outcome, subject=subject, offset=offset, limit=limit)
        return ExactJSONResponse([_event(one) for one in found])

    return api


def _event(one: Received) -> dict[str, str]:
    shown = {
        "id": one.id,
        "type": one.type,
        "createdAt": format_instant(one.created_at),
        "receivedAt": format_instant(one.received_at),
        "outcome": one.outcome,
        "reason": one.reason,
        "subject": one.subject,
        "subscription": one.subscription,
        "plan": one.plan,
    }
    return {name: value for name, value in shown.items() if value is not None}
