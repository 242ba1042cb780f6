# Written by sdk/unasync.py from _async/resources/notifications.py: change that file.
"""Notifications: where they go, when they are sent, and which were."""

from collections.abc import Sequence
from typing import Any

from meterline_sdk._json import body
from meterline_sdk._request import segment
from meterline_sdk._sync._resource import Resource
from meterline_sdk.models import Channel, Notification, Page, Rule


class Notifications(Resource):
    """`/api/v1/notification`. Listings take `page`, `page_size`, `order`, `order_by`."""

    def create_channel(
        self, name: str, url: str, *, type: str = "WEBHOOK", **terms: Any
    ) -> Channel:
        """A channel: `custom_headers`, `signing_secret`, `disabled`, `metadata`."""
        asked = body(type=type, name=name, url=url, **terms)
        return self._make(Channel, _path("channels"), asked)

    def list_channels(self, **filters: Any) -> Page[Channel]:
        """Channels."""
        return self._page(Channel, _path("channels"), **filters)

    def get_channel(self, id: str) -> Channel:
        """One channel."""
        return self._get(Channel, _path("channels", id))

    def replace_channel(
        self, id: str, name: str, url: str, *, type: str = "WEBHOOK", **terms: Any
    ) -> Channel:
        """Set all of a channel."""
        asked = body(type=type, name=name, url=url, **terms)
        return self._change(Channel, "PUT", _path("channels", id), asked)

    def delete_channel(self, id: str) -> None:
        """Remove a channel."""
        self._delete(_path("channels", id))

    def create_rule(self, name: str, type: str, channels: Sequence[str], **terms: Any) -> Rule:
        """A rule for some channels (their ids): `features`, `thresholds`, `lead_time`, …"""
        asked = body(name=name, type=type, channels=channels, **terms)
        return self._make(Rule, _path("rules"), asked)

    def list_rules(self, **filters: Any) -> Page[Rule]:
        """Rules: `feature`, `channel`, `include_deleted`, `include_disabled`."""
        return self._page(Rule, _path("rules"), **filters)

    def get_rule(self, id: str) -> Rule:
        """One rule."""
        return self._get(Rule, _path("rules", id))

    def replace_rule(
        self, id: str, name: str, type: str, channels: Sequence[str], **terms: Any
    ) -> Rule:
        """Set all of a rule."""
        asked = body(name=name, type=type, channels=channels, **terms)
        return self._change(Rule, "PUT", _path("rules", id), asked)

    def delete_rule(self, id: str) -> None:
        """Remove a rule."""
        self._delete(_path("rules", id))

    def test_rule(self, id: str) -> Notification:
        """Send a notification of a rule with made-up content."""
        return self._make(Notification, _path("rules", id, "test"))

    def list_events(self, **filters: Any) -> Page[Notification]:
        """Notifications: `feature`, `subject`, `rule`, `channel`, `from_`, `to`."""
        return self._page(Notification, _path("events"), **filters)

    def get_event(self, id: str) -> Notification:
        """One notification, and how its delivery went."""
        return self._get(Notification, _path("events", id))

    def resend_event(self, id: str, channels: Sequence[str] | None = None) -> None:
        """Deliver a notification again, to all of its channels or some."""
        self._make(Any, _path("events", id, "resend"), body(channels=channels))


def _path(*rest: str) -> str:
    return "/".join(["/api/v1/notification", *map(segment, rest)])
