# Written by sdk/unasync.py from _async/resources/entitlements.py: change that file.
"""Features, entitlements, grants, and whether there is access."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from meterline_sdk import _json
from meterline_sdk._json import body
from meterline_sdk._request import segment
from meterline_sdk._sync._resource import Resource
from meterline_sdk.models import Entitlement, Feature, Grant, History, Page, Value

_FEATURES = "/api/v1/features"


class Features(Resource):
    """`/api/v1/features`."""

    def create(
        self,
        key: str,
        name: str | None = None,
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
        return self._make(Feature, _FEATURES, asked)

    def list(self, **filters: Any) -> Page[Feature]:
        """Features: `meter_slug`, `include_archived`, `order_by`, `limit`, `offset`, …"""
        return self._page(Feature, _FEATURES, **filters)

    def get(self, key_or_id: str) -> Feature:
        """One feature."""
        return self._get(Feature, f"{_FEATURES}/{segment(key_or_id)}")

    def delete(self, key_or_id: str) -> None:
        """Archive a feature."""
        self._delete(f"{_FEATURES}/{segment(key_or_id)}")


class Entitlements(Resource):
    """`/api/v1/subjects/{subject}/entitlements`, and those of all subjects.

    Where it says `feature_key`, ids of the feature or of the entitlement do, too.
    """

    def create(self, subject: str, feature_key: str, **terms: Any) -> Entitlement:
        """Entitle a subject: `type="metered"`, `issue_after_reset=100`, `usage_period={…}`, …"""
        asked = {"type": "metered", **body(feature_key=feature_key, **terms)}
        return self._make(Entitlement, _path(subject), asked)

    def list(self, subject: str | None = None, **filters: Any) -> Page[Entitlement]:
        """What a subject is entitled to, or all: `feature`, `include_deleted`, `limit`, …"""
        path = "/api/v1/entitlements" if subject is None else _path(subject)
        return self._page(Entitlement, path, **filters)

    def get(self, subject: str, feature_key: str) -> Entitlement:
        """One entitlement."""
        return self._get(Entitlement, _path(subject, feature_key))

    def get_by_id(self, id: str) -> Entitlement:
        """One entitlement, whoever has it."""
        return self._get(Entitlement, f"/api/v1/entitlements/{segment(id)}")

    def override(self, subject: str, feature_key: str, **terms: Any) -> Entitlement:
        """End an entitlement and begin another one at the same instant."""
        asked = {"type": "metered", "featureKey": feature_key, **body(**terms)}
        return self._change(Entitlement, "PUT", _path(subject, feature_key, "override"), asked)

    def delete(self, subject: str, feature_key: str) -> None:
        """End an entitlement."""
        self._delete(_path(subject, feature_key))

    def value(
        self,
        subject: str,
        feature_key: str,
        *,
        time: datetime | None = None,
        wait: bool | None = None,
    ) -> Value:
        """Whether the subject has access now (or had at `time`), with its balance.

        With `wait`, everything that was acknowledged before is counted.
        """
        return self._get(Value, _path(subject, feature_key, "value"), time=time, wait=wait)

    def access(
        self, subject: str, *, time: datetime | None = None, wait: bool | None = None
    ) -> Mapping[str, Value]:
        """The values of all features of a subject."""
        path = f"/api/v1/subjects/{segment(subject)}/access"
        found = self._get(dict[str, Any], path, time=time, wait=wait)
        return _json.read(dict[str, Value], found["entitlements"])

    def history(
        self,
        subject: str,
        feature_key: str,
        *,
        from_: datetime | None = None,
        to: datetime | None = None,
        window_size: str | None = None,
        window_time_zone: str | None = None,
        wait: bool | None = None,
    ) -> History:
        """Usage and balances over time, by MINUTE, HOUR, DAY or MONTH."""
        return self._get(
            History,
            _path(subject, feature_key, "history"),
            from_=from_,
            to=to,
            window_size=window_size,
            window_time_zone=window_time_zone,
            wait=wait,
        )

    def grant(
        self,
        subject: str,
        feature_key: str,
        amount: Decimal | int,
        *,
        effective_at: datetime | None = None,
        priority: int | None = None,
        expiration: Mapping[str, Any] | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
        **terms: Any,
    ) -> Grant:
        """Give a subject more to use. `effective_at` is now if not given."""
        asked = body(
            amount=amount,
            effective_at=effective_at or datetime.now(UTC),
            priority=priority,
            expiration=expiration,
            expires_at=expires_at,
            **terms,
        )
        path = _path(subject, feature_key, "grants")
        return self._make(Grant, path, asked, key=idempotency_key)

    def grants(
        self, subject: str | None = None, feature_key: str | None = None, **filters: Any
    ) -> Page[Grant]:
        """What a subject was given for a feature; without both, all grants there are."""
        if subject is not None and feature_key is not None:
            return self._page(Grant, _path(subject, feature_key, "grants"), **filters)
        asked = {"subject": subject, "feature": feature_key, **filters}
        return self._page(Grant, "/api/v1/grants", **asked)

    def void_grant(self, id: str, *, at: datetime | None = None) -> None:
        """End a grant now, or at an instant; what it paid stays paid."""
        self._delete(f"/api/v1/grants/{segment(id)}", at=at)

    def reset(
        self,
        subject: str,
        feature_key: str,
        *,
        effective_at: datetime | None = None,
        retain_anchor: bool | None = None,
        preserve_overage: bool | None = None,
    ) -> None:
        """Begin a new usage period."""
        asked = body(
            effective_at=effective_at,
            retain_anchor=retain_anchor,
            preserve_overage=preserve_overage,
        )
        self._make(dict[str, Any], _path(subject, feature_key, "reset"), asked)


def _path(subject: str, *rest: str) -> str:
    return "/".join(["/api/v1/subjects", segment(subject), "entitlements", *map(segment, rest)])
