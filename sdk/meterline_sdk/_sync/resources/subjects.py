# Written by sdk/unasync.py from _async/resources/subjects.py: change that file.
"""Subjects, and tokens for their browsers."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from meterline_sdk import _json
from meterline_sdk._json import body
from meterline_sdk._request import segment
from meterline_sdk._sync._resource import Resource
from meterline_sdk.models import PortalToken, Subject


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
        (made,) = self._send("POST", "/api/v1/subjects", [one])
        return _json.read(Subject, made)

    def list(self) -> Sequence[Subject]:
        """Subjects."""
        return [_json.read(Subject, one) for one in self._get("/api/v1/subjects")]

    def get(self, key: str) -> Subject:
        """One subject."""
        return _json.read(Subject, self._get(f"/api/v1/subjects/{segment(key)}"))

    def delete(self, key: str, *, purge_usage: bool = False) -> None:
        """Remove a subject; with `purge_usage` its usage is erased for good."""
        self._delete(f"/api/v1/subjects/{segment(key)}", purge_usage=purge_usage or None)


class Portal(Resource):
    """`/api/v1/portal/tokens`."""

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
        return _json.read(PortalToken, self._send("POST", "/api/v1/portal/tokens", asked))

    def list_tokens(self) -> Sequence[PortalToken]:
        """Tokens that are valid; without their secrets."""
        return [_json.read(PortalToken, one) for one in self._get("/api/v1/portal/tokens")]

    def invalidate_tokens(self, *, id: str | None = None, subject: str | None = None) -> None:
        """Make tokens worthless: one, a subject's, or all."""
        self._send("POST", "/api/v1/portal/tokens/invalidate", body(id=id, subject=subject))
