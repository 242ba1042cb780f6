"""Notifications: where they go, when they are sent, and which were."""

from collections.abc import Sequence
from typing import Any

from meterline_sdk._async._resource import AsyncResource
from meterline_sdk._json import body
from meterline_sdk._request import segment
from meterline_sdk.models import Channel, Notification, Page, Rule


class AsyncNotifications(AsyncResource):
    """`/api/v1/notification`. Listings take `page`, `page_size`, `order`, `order_by`."""

    async def create_channel(
        self, name: str, url: str, *, type: str = "WEBHOOK", **terms: Any
    ) -> Channel:
        """A channel: `custom_headers`, `signing_secret`, `disabled`, `metadata`."""
        asked = body(type=type, name=name, url=url, **terms)
        return await self._make(Channel, _path("channels"), asked)

    async def list_channels(self, **filters: Any) -> Page[Channel]:
        """Channels."""
        return await self._page(Channel, _path("channels"), **filters)

    async def get_channel(self, id: str) -> Channel:
        """One channel."""
        return await self._get(Channel, _path("channels", id))

    async def replace_channel(
        self, id: str, name: str, url: str, *, type: str = "WEBHOOK", **terms: Any
    ) -> Channel:
        """Set all of a channel."""
        asked = body(type=type, name=name, url=url, **terms)
        return await self._change(Channel, "PUT", _path("channels", id), asked)

    async def delete_channel(self, id: str) -> None:
        """Remove a channel."""
        await self._delete(_path("channels", id))

    async def create_rule(
        self, name: str, type: str, channels: Sequence[str], **terms: Any
    ) -> Rule:
        """A rule for some channels (their ids): `features`, `thresholds`, `lead_time`, …"""
        asked = body(name=name, type=type, channels=channels, **terms)
        return await self._make(Rule, _path("rules"), asked)

    async def list_rules(self, **filters: Any) -> Page[Rule]:
        """Rules: `feature`, `channel`, `include_deleted`, `include_disabled`."""
        return await self._page(Rule, _path("rules"), **filters)

    async def get_rule(self, id: str) -> Rule:
        """One rule."""
        return await self._get(Rule, _path("rules", id))

    async def replace_rule(
        self, id: str, name: str, type: str, channels: Sequence[str], **terms: Any
    ) -> Rule:
        """Set all of a rule."""
        asked = body(name=name, type=type, channels=channels, **terms)
        return await self._change(Rule, "PUT", _path("rules", id), asked)

    async def delete_rule(self, id: str) -> None:
        """Remove a rule."""
        await self._delete(_path("rules", id))

    async def test_rule(self, id: str) -> Notification:
        """Send a notification of a rule with made-up content."""
        return await self._make(Notification, _path("rules", id, "test"))

    async def list_events(self, **filters: Any) -> Page[Notification]:
        """Notifications: `feature`, `subject`, `rule`, `channel`, `from_`, `to`."""
        return await self._page(Notification, _path("events"), **filters)

    async def get_event(self, id: str) -> Notification:
        """One notification, and how its delivery went."""
        return await self._get(Notification, _path("events", id))

    async def resend_event(self, id: str, channels: Sequence[str] | None = None) -> None:
        """Deliver a notification again, to all of its channels or some."""
        await self._make(Any, _path("events", id, "resend"), body(channels=channels))


def _path(*rest: str) -> str:
    return "/".join(["/api/v1/notification", *map(segment, rest)])
