"""Meters and their queries."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from meterline_sdk import _json
from meterline_sdk._async._resource import AsyncResource
from meterline_sdk._json import body
from meterline_sdk._request import segment
from meterline_sdk.models import Meter, MeterResult, Page

_METERS = "/api/v1/meters"


class AsyncMeters(AsyncResource):
    """`/api/v1/meters`."""

    async def create(
        self,
        slug: str,
        *,
        event_type: str,
        aggregation: str,
        value_property: str | None = None,
        group_by: Mapping[str, str] | None = None,
        name: str | None = None,
        description: str | None = None,
        event_from: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Meter:
        """Make a meter; it counts events that are already there."""
        asked = body(
            slug=slug,
            event_type=event_type,
            aggregation=aggregation,
            value_property=value_property,
            group_by=group_by,
            name=name,
            description=description,
            event_from=event_from,
            metadata=metadata,
        )
        return await self._make(Meter, _METERS, asked)

    async def list(self) -> Page[Meter]:
        """All meters."""
        return await self._page(Meter, _METERS)

    async def get(self, id_or_slug: str) -> Meter:
        """One meter."""
        return await self._get(Meter, f"{_METERS}/{segment(id_or_slug)}")

    async def update(
        self,
        id_or_slug: str,
        *,
        name: str | None = None,
        description: str | None = None,
        group_by: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Meter:
        """Change a meter; new groupBy keys are filled in for events that are already there."""
        asked = body(name=name, description=description, group_by=group_by, metadata=metadata)
        return await self._change(Meter, "PUT", f"{_METERS}/{segment(id_or_slug)}", asked)

    async def delete(self, id_or_slug: str) -> None:
        """Remove a meter; the events stay."""
        await self._delete(f"{_METERS}/{segment(id_or_slug)}")

    async def subjects(
        self, id_or_slug: str, *, from_: datetime | None = None, to: datetime | None = None
    ) -> Sequence[str]:
        """Who has events in a meter."""
        path = f"{_METERS}/{segment(id_or_slug)}/subjects"
        return await self._page(str, path, from_=from_, to=to)

    async def group_values(
        self,
        id_or_slug: str,
        key: str,
        *,
        from_: datetime | None = None,
        to: datetime | None = None,
    ) -> Sequence[str]:
        """The values that a groupBy key has."""
        path = f"{_METERS}/{segment(id_or_slug)}/group-by/{segment(key)}/values"
        return await self._page(str, path, from_=from_, to=to)

    async def query(
        self,
        id_or_slug: str,
        *,
        from_: datetime | None = None,
        to: datetime | None = None,
        window_size: str | None = None,
        window_time_zone: str | None = None,
        subject: str | Sequence[str] | None = None,
        group_by: Sequence[str] | None = None,
        filter_group_by: Mapping[str, Any] | None = None,
    ) -> MeterResult:
        """The meter's values: `from_` is included, `to` is not.

        `window_size` is MINUTE, HOUR, DAY or MONTH; without it there is one row per group.
        `filter_group_by` has texts, or operators such as `{"model": {"$in": ["a", "b"]}}`.
        """
        asked: dict[str, Any] = body(
            from_=from_,
            to=to,
            window_size=window_size,
            window_time_zone=window_time_zone,
            subject=[subject] if isinstance(subject, str) else subject,
            group_by=group_by,
            filter_group_by=filter_group_by,
        )
        path = f"{_METERS}/{segment(id_or_slug)}/query"
        return _json.read(MeterResult, await self._send("POST", path, asked))
