# Written by sdk/unasync.py from _async/resources/subjects.py: change that file.
"""Subjects, what their browsers may see, and API keys."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from meterline_sdk._json import body
from meterline_sdk._request import segment
from meterline_sdk._sync._resource import Resource
from meterline_sdk.models import Entitlement, Key, MeterResult, Page, PortalToken, Subject, Value

_SUBJECTS = "/api/v1/subjects"
_TOKENS = "/api/v1/portal/tokens"


class Subjects(Resource):
    """`/api/v1/subjects`."""

    def upsert(
        self,
        key: str,
        *,
        display_name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Subject:
        """Make a subject, or change it."""
        one = body(key=key, display_name=display_name, metadata=metadata)
        (made,) = self._make(list[Subject], _SUBJECTS, [one])
        return made

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> Page[Subject]:
        """Subjects."""
        return self._page(Subject, _SUBJECTS, limit=limit, cursor=cursor)

    def get(self, key: str) -> Subject:
        """One subject."""
        return self._get(Subject, f"{_SUBJECTS}/{segment(key)}")

    def delete(self, key: str, *, purge_usage: bool = False) -> None:
        """Remove a subject; with `purge_usage` its usage is erased for good."""
        self._delete(f"{_SUBJECTS}/{segment(key)}", purge_usage=purge_usage or None)


class Portal(Resource):
    """`/api/v1/portal`: tokens, and what a client whose `api_key` is one may see."""

    def create_token(
        self,
        subject: str,
        *,
        expires_at: datetime | None = None,
        allowed_meter_slugs: Sequence[str] | None = None,
    ) -> PortalToken:
        """A token with which a subject's browser sees its own usage, and nothing else."""
        asked = body(
            subject=subject, expires_at=expires_at, allowed_meter_slugs=allowed_meter_slugs
        )
        return self._make(PortalToken, _TOKENS, asked)

    def list_tokens(self, *, limit: int | None = None) -> Page[PortalToken]:
        """Tokens, without their secrets."""
        return self._page(PortalToken, _TOKENS, limit=limit)

    def invalidate_tokens(self, *, id: str | None = None, subject: str | None = None) -> None:
        """Make tokens worthless: one, a subject's, or all."""
        self._send("POST", f"{_TOKENS}/invalidate", body(id=id, subject=subject))

    def query(
        self,
        slug: str,
        *,
        from_: datetime | None = None,
        to: datetime | None = None,
        window_size: str | None = None,
        window_time_zone: str | None = None,
        group_by: Sequence[str] | None = None,
    ) -> MeterResult:
        """A meter's values of the token's subject."""
        return self._get(
            MeterResult,
            f"/api/v1/portal/meters/{segment(slug)}/query",
            from_=from_,
            to=to,
            window_size=window_size,
            window_time_zone=window_time_zone,
            group_by=group_by,
        )

    def entitlements(self, *, wait: bool | None = None) -> Page[Entitlement]:
        """What the token's subject is entitled to, with the values of now."""
        return self._page(Entitlement, "/api/v1/portal/entitlements", wait=wait)

    def value(
        self, feature_key: str, *, time: datetime | None = None, wait: bool | None = None
    ) -> Value:
        """Whether the token's subject may use a feature."""
        path = f"/api/v1/portal/entitlements/{segment(feature_key)}/value"
        return self._get(Value, path, time=time, wait=wait)


class Keys(Resource):
    """`/api/v1/keys`."""

    def create(self, scopes: Sequence[str], *, name: str | None = None) -> Key:
        """A key with scopes of `ingest`, `read`, `admin`; its secret is told this once."""
        return self._make(Key, "/api/v1/keys", body(scopes=scopes, name=name))

    def list(self) -> Page[Key]:
        """All keys, without their secrets."""
        return self._page(Key, "/api/v1/keys")

    def delete(self, id: str) -> None:
        """Revoke a key."""
        self._delete(f"/api/v1/keys/{segment(id)}")
