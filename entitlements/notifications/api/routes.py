"""`/api/v1/notification`: channels, rules and events, as OpenMeter v1 has them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response

from entitlements.api.exact import ExactRoute
from entitlements.api.wire import Instant
from entitlements.notifications.api.bodies import ChannelBody, ResendBody, RuleBody
from entitlements.notifications.api.paging import (
    Many,
    Number,
    Order,
    Size,
    page_response,
    sorting,
)
from entitlements.notifications.api.views import (
    ChannelPage,
    ChannelView,
    EventPage,
    EventView,
    RulePage,
    RuleView,
    channel_json,
    event_json,
    rule_json,
)
from entitlements.notifications.service import NotificationService
from entitlements.notifications.stores.events import EventFilter
from meterline.web.auth import Principal, requires
from meterline.web.json import ExactJSONResponse

Reader = Annotated[Principal, Depends(requires("read"))]
Admin = Annotated[Principal, Depends(requires("admin"))]
OrderBy = Annotated[Literal["id", "type", "createdAt", "updatedAt"], Query(alias="orderBy")]
EventOrderBy = Annotated[Literal["id", "createdAt"], Query(alias="orderBy")]
IncludeDeleted = Annotated[bool, Query(alias="includeDeleted")]
IncludeDisabled = Annotated[bool, Query(alias="includeDisabled")]


def routers(service: NotificationService) -> list[APIRouter]:
    """All of `/api/v1/notification` over a service."""
    return [_channels(service), _rules(service), _events(service)]


def _router(name: str) -> APIRouter:
    return APIRouter(
        prefix=f"/api/v1/notification/{name}",
        tags=["Notifications"],
        default_response_class=ExactJSONResponse,
        route_class=ExactRoute,
    )


def _channels(service: NotificationService) -> APIRouter:
    api = _router("channels")

    @api.get("", responses={200: {"model": ChannelPage}})
    async def list_notification_channels(
        principal: Reader,
        include_deleted: IncludeDeleted = False,
        include_disabled: IncludeDisabled = False,
        page: Number = 1,
        page_size: Size = 100,
        order: Order = "DESC",
        order_by: OrderBy = "id",
    ) -> Response:
        """List channels."""
        # All channels are of one type.
        wanted = sorting(page, page_size, order, "id" if order_by == "type" else order_by)
        found = await service.list_channels(
            principal.namespace, wanted, deleted=include_deleted, disabled=include_disabled
        )
        shown = _sees_secrets(principal)
        return page_response(found, wanted, lambda one: channel_json(one, with_secrets=shown))

    @api.post("", status_code=201, responses={201: {"model": ChannelView}})
    async def create_notification_channel(principal: Admin, body: ChannelBody) -> Response:
        """Make a channel."""
        made = await service.create_channel(principal.namespace, body.spec())
        return ExactJSONResponse(channel_json(made, with_secrets=True), status_code=201)

    @api.get("/{channel_id}", responses={200: {"model": ChannelView}})
    async def get_notification_channel(principal: Reader, channel_id: str) -> Response:
        """Get a channel."""
        found = await service.get_channel(principal.namespace, channel_id)
        shown = _sees_secrets(principal)
        return ExactJSONResponse(channel_json(found, with_secrets=shown))

    @api.put("/{channel_id}", responses={200: {"model": ChannelView}})
    async def update_notification_channel(
        principal: Admin, channel_id: str, body: ChannelBody
    ) -> Response:
        """Replace a channel. One that was disabled by itself begins anew when it is enabled."""
        changed = await service.update_channel(principal.namespace, channel_id, body.spec())
        return ExactJSONResponse(channel_json(changed, with_secrets=True))

    @api.delete("/{channel_id}", status_code=204, response_class=Response)
    async def delete_notification_channel(principal: Admin, channel_id: str) -> None:
        """Delete a channel that no rule sends to."""
        await service.delete_channel(principal.namespace, channel_id)

    return api


def _rules(service: NotificationService) -> APIRouter:
    api = _router("rules")

    @api.get("", responses={200: {"model": RulePage}})
    async def list_notification_rules(
        principal: Reader,
        feature: Many,
        channel: Many,
        include_deleted: IncludeDeleted = False,
        include_disabled: IncludeDisabled = False,
        page: Number = 1,
        page_size: Size = 100,
        order: Order = "DESC",
        order_by: OrderBy = "id",
    ) -> Response:
        """List rules. Those for every feature are in each list of a feature."""
        wanted = sorting(page, page_size, order, order_by)
        found = await service.list_rules(
            principal.namespace,
            wanted,
            deleted=include_deleted,
            disabled=include_disabled,
            features=feature,
            channels=channel,
        )
        return page_response(found, wanted, rule_json)

    @api.post("", status_code=201, responses={201: {"model": RuleView}})
    async def create_notification_rule(principal: Admin, body: RuleBody) -> Response:
        """Make a rule. It looks at every entitlement at once, and then at each that changes."""
        spec, features = body.spec(), body.features or ()
        made = await service.create_rule(principal.namespace, spec, features)
        return ExactJSONResponse(rule_json(made), status_code=201)

    @api.get("/{rule_id}", responses={200: {"model": RuleView}})
    async def get_notification_rule(principal: Reader, rule_id: str) -> Response:
        """Get a rule."""
        return ExactJSONResponse(rule_json(await service.get_rule(principal.namespace, rule_id)))

    @api.put("/{rule_id}", responses={200: {"model": RuleView}})
    async def update_notification_rule(principal: Admin, rule_id: str, body: RuleBody) -> Response:
        """Replace a rule; its type stays. What has fired in this usage period has fired."""
        spec, features = body.spec(), body.features or ()
        changed = await service.update_rule(principal.namespace, rule_id, spec, features)
        return ExactJSONResponse(rule_json(changed))

    @api.delete("/{rule_id}", status_code=204, response_class=Response)
    async def delete_notification_rule(principal: Admin, rule_id: str) -> None:
        """Delete a rule. Its events stay."""
        await service.delete_rule(principal.namespace, rule_id)

    @api.post("/{rule_id}/test", status_code=201, responses={201: {"model": EventView}})
    async def test_notification_rule(principal: Admin, rule_id: str) -> Response:
        """Send an example to the rule's channels. The event's state tells how it went."""
        made = await service.test_rule(principal.namespace, rule_id)
        return ExactJSONResponse(event_json(made), status_code=201)

    return api


def _events(service: NotificationService) -> APIRouter:
    api = _router("events")

    @api.get("", responses={200: {"model": EventPage}})
    async def list_notification_events(
        principal: Reader,
        feature: Many,
        subject: Many,
        rule: Many,
        channel: Many,
        begin: Annotated[Instant | None, Query(alias="from")] = None,
        end: Annotated[Instant | None, Query(alias="to")] = None,
        page: Number = 1,
        page_size: Size = 100,
        order: Order = "DESC",
        order_by: EventOrderBy = "createdAt",
    ) -> Response:
        """List events, made in [`from`, `to`]."""
        wanted = sorting(page, page_size, order, order_by)
        which = EventFilter(begin, end, feature, subject, rule, channel)
        found = await service.list_events(principal.namespace, which, wanted)
        return page_response(found, wanted, event_json)

    @api.get("/{event_id}", responses={200: {"model": EventView}})
    async def get_notification_event(principal: Reader, event_id: str) -> Response:
        """Get an event and where its deliveries are."""
        found = await service.get_event(principal.namespace, event_id)
        return ExactJSONResponse(event_json(found))

    @api.post("/{event_id}/resend", status_code=202, response_class=Response)
    async def resend_notification_event(
        principal: Admin, event_id: str, body: ResendBody | None = None
    ) -> None:
        """Send an event again, with the same id: receivers that have it can tell."""
        await service.resend(principal.namespace, event_id, (body and body.channels) or ())

    return api


def _sees_secrets(principal: Principal) -> bool:
    return "admin" in principal.scopes
