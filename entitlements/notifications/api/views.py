"""Answers: what they look like, for the OpenAPI document, and pure functions that make them."""

from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from entitlements.notifications.firing import shown
from entitlements.notifications.model import Attempt, Channel, Delivery, Event, EventType, Rule
from entitlements.notifications.model import DeliveryState as State
from entitlements.notifications.payload import exact
from meterline.kernel.instants import format_instant
from meterline.kernel.periods import format_interval

Json = dict[str, Any]
Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class _View(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class _Kept(_View):
    id: str
    created_at: Instant
    updated_at: Instant
    deleted_at: Instant | None = None
    name: str
    disabled: bool
    metadata: dict[str, str]
    annotations: dict[str, Any] | None = None


class ChannelView(_Kept):
    """A channel. Secrets and custom headers are shown to administrators."""

    type: str
    url: str
    custom_headers: dict[str, str] | None = None
    signing_secret: str | None = None


class ChannelPage(_View):
    """A page of channels."""

    total_count: int
    page: int
    page_size: int
    items: list[ChannelView]


class ChannelMeta(_View):
    """Which channel."""

    id: str
    type: str


class FeatureMeta(_View):
    """Which feature."""

    id: str
    key: str


class ThresholdView(_View):
    """A threshold."""

    type: str
    value: float


class RuleView(_Kept):
    """A rule."""

    type: EventType
    channels: list[ChannelMeta]
    features: list[FeatureMeta] | None = None
    thresholds: list[ThresholdView] | None = None
    lead_time: str | None = None


class RulePage(_View):
    """A page of rules."""

    total_count: int
    page: int
    page_size: int
    items: list[RuleView]


class ResponseView(_View):
    """What the receiver answered; without a status code it did not, and the body says why."""

    status_code: int | None = None
    body: str
    duration_ms: int
    url: str


class AttemptView(_View):
    """One try."""

    state: State
    response: ResponseView
    timestamp: Instant


class DeliveryView(_View):
    """Where the event is on its way to one channel."""

    state: State
    reason: str
    updated_at: Instant
    channel: ChannelMeta
    next_attempt: Instant | None = None
    attempts: list[AttemptView]


class EventView(_View):
    """An event. `payload` is the body of its webhooks."""

    id: str
    type: EventType
    created_at: Instant
    rule: RuleView
    delivery_status: list[DeliveryView]
    payload: dict[str, Any]
    annotations: dict[str, Any] | None = None


class EventPage(_View):
    """A page of events."""

    total_count: int
    page: int
    page_size: int
    items: list[EventView]


def channel_json(channel: Channel, *, with_secrets: bool) -> Json:
    """A channel."""
    answer: Json = {
        "id": channel.id,
        "type": "WEBHOOK",
        "name": channel.name,
        "disabled": channel.disabled,
        "url": channel.url,
        "metadata": channel.metadata,
        "createdAt": format_instant(channel.created_at),
        "updatedAt": format_instant(channel.updated_at),
    }
    if with_secrets and channel.deleted_at is None:
        answer["customHeaders"] = channel.headers
        answer["signingSecret"] = channel.secret
    if channel.disabled_reason is not None:
        answer["annotations"] = {"notification.channel.disabled.reason": channel.disabled_reason}
    if channel.deleted_at is not None:
        answer["deletedAt"] = format_instant(channel.deleted_at)
    return answer


def rule_json(rule: Rule) -> Json:
    """A rule."""
    spec = rule.spec
    answer: Json = {
        "id": rule.id,
        "type": spec.type.value,
        "name": spec.name,
        "disabled": spec.disabled,
        "channels": [_meta(one) for one in spec.channels],
        "metadata": spec.metadata,
        "createdAt": format_instant(rule.created_at),
        "updatedAt": format_instant(rule.updated_at),
    }
    if spec.features:
        answer["features"] = [{"id": one.id, "key": one.key} for one in spec.features]
    if spec.thresholds:
        answer["thresholds"] = exact([shown(one) for one in spec.thresholds])
    if spec.lead_time is not None:
        answer["leadTime"] = format_interval(spec.lead_time)
    if rule.deleted_at is not None:
        answer["deletedAt"] = format_instant(rule.deleted_at)
    return answer


def event_json(event: Event) -> Json:
    """An event."""
    answer: Json = {
        "id": event.id,
        "type": event.type.value,
        "createdAt": format_instant(event.created_at),
        "rule": rule_json(event.rule),
        "deliveryStatus": [_delivery(one) for one in event.deliveries],
        "payload": msgspec.Raw(event.payload.encode()),
    }
    if event.annotations:
        answer["annotations"] = event.annotations
    return answer


def _meta(channel_id: str) -> Json:
    return {"id": channel_id, "type": "WEBHOOK"}


def _delivery(delivery: Delivery) -> Json:
    answer: Json = {
        "state": delivery.state.value,
        "reason": delivery.reason,
        "updatedAt": format_instant(delivery.updated_at),
        "channel": _meta(delivery.channel_id),
        "attempts": [_attempt(one) for one in delivery.attempts],
    }
    if delivery.next_attempt_at is not None:
        answer["nextAttempt"] = format_instant(delivery.next_attempt_at)
    return answer


def _attempt(attempt: Attempt) -> Json:
    response: Json = {
        "body": attempt.body,
        "durationMs": attempt.duration_ms,
        "url": attempt.url,
    }
    if attempt.status is not None:
        response["statusCode"] = attempt.status
    return {
        "state": attempt.state.value,
        "response": response,
        "timestamp": format_instant(attempt.at),
    }
