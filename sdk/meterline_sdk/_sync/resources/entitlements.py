# Written by sdk/unasync.py from _async/resources/entitlements.py: change that file.
"""Features, entitlements, grants, and whether there is access."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from meterline_sdk import _json
from meterline_sdk._json import body
from meterline_sdk._request import segment
from meterline_sdk._sync._resource import Resource
from meterline_sdk.models import Entitlement, Feature, Grant, Value


class Features(Resource):
    """`/api/v1/features`."""

    def create(
        self,
        key: str,
        name: str,
        *,
        meter_slug: str | None = None,
        meter_group_by_filters: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Feature:
        """Make a feature; with a meter its use can be measured."""
        asked = body(
            key=key,
            name=name,
            meter_slug=meter_slug,
            meter_group_by_filters=meter_group_by_filters,
            metadata=metadata,
        )
        return _json.read(Feature, self._send("POST", "/api/v1/features", asked))

    def list(self) -> Sequence[Feature]:
        """All features."""
        return [_json.read(Feature, one) for one in self._get("/api/v1/features")]

    def delete(self, key_or_id: str) -> None:
        """Archive a feature."""
        self._delete(f"/api/v1/features/{segment(key_or_id)}")


class Entitlements(Resource):
    """`/api/v1/subjects/{subject}/entitlements`."""

    def create(self, subject: str, feature_key: str, **terms: Any) -> Entitlement:
        """Entitle a subject: `type="metered"`, `issue_after_reset=100`, `usage_period={…}`, …"""
        asked = {"type": "metered", **body(feature_key=feature_key, **terms)}
        return _json.read(Entitlement, self._send("POST", _path(subject), asked))

    def list(self, subject: str) -> Sequence[Entitlement]:
        """What a subject is entitled to."""
        return [_json.read(Entitlement, one) for one in self._get(_path(subject))]

    def delete(self, subject: str, feature_key: str) -> None:
        """End an entitlement."""
        self._delete(_path(subject, feature_key))

    def value(self, subject: str, feature_key: str, *, time: datetime | None = None) -> Value:
        """Whether the subject has access now (or had at `time`), with its balance."""
        found = self._get(_path(subject, feature_key, "value"), time=time)
        return _json.read(Value, found)

    def access(self, subject: str) -> Mapping[str, Value]:
        """The values of all features of a subject."""
        found = self._get(f"/api/v1/subjects/{segment(subject)}/access")
        return _json.read(dict[str, Value], found["entitlements"])

    def grant(
        self,
        subject: str,
        feature_key: str,
        amount: Decimal | int,
        *,
        effective_at: datetime | None = None,
        priority: int | None = None,
        expiration: Mapping[str, Any] | None = None,
        **terms: Any,
    ) -> Grant:
        """Give a subject more to use. `effective_at` is now if not given."""
        asked = body(
            amount=amount,
            effective_at=effective_at or datetime.now(UTC),
            priority=priority,
            expiration=expiration,
            **terms,
        )
        return _json.read(Grant, self._send("POST", _path(subject, feature_key, "grants"), asked))

    def grants(self, subject: str, feature_key: str) -> Sequence[Grant]:
        """What a subject was given."""
        found = self._get(_path(subject, feature_key, "grants"))
        return [_json.read(Grant, one) for one in found]

    def reset(self, subject: str, feature_key: str, **terms: Any) -> None:
        """Begin a new usage period."""
        self._send("POST", _path(subject, feature_key, "reset"), body(**terms))


def _path(subject: str, *rest: str) -> str:
    return "/".join(["/api/v1/subjects", segment(subject), "entitlements", *map(segment, rest)])
