"""Named records: one that is sent again is the same event, to the microsecond."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.specs import fault
from entitlements.usage_records.model import RecordSpec, UsageRecord
from entitlements.usage_records.options import UsageLimits
from entitlements.usage_records.shape import fingerprint
from entitlements.usage_records.stores import names as store
from entitlements.usage_records.stores.names import Name
from meterline.db.engine import Database
from meterline.kernel.clock import Clock
from meterline.kernel.errors import ConflictError
from meterline.kernel.grouping import Grouping
from meterline.kernel.instants import from_micros, to_micros
from meterline.kernel.meters import is_storable

_GROUP = 250
_PRUNE_EVERY = timedelta(minutes=10)


class _Kept(msgspec.Struct):
    subject: str
    micros: int
    data: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Named:
    """A record as it is kept under its name; `is_new` unless it was there before."""

    record: UsageRecord
    is_new: bool


class Names:
    """Keeps names in groups, one transaction each, and forgets old ones."""

    def __init__(self, database: Database, clock: Clock, limits: UsageLimits) -> None:
        self._database = database
        self._clock = clock
        self._keep = timedelta(seconds=limits.keep_names_seconds)
        self._prune_at: datetime | None = None
        self._grouping: Grouping[Name, Name] = Grouping(
            self._commit,
            name="usage record names",
            max_items=limits.max_waiting,
            max_group_items=_GROUP,
        )

    async def keep(self, namespace: str, record: UsageRecord, spec: RecordSpec) -> Named:
        """The record of that name: this one, or the one that was sent before with its content.

        `ConflictError` when it was sent before with other content.
        """
        for where, text in (("id", record.id), ("subject", record.subject)):
            # What the database refuses would fail all who are in the same group.
            if not is_storable(text):
                raise fault(where, "must not hold NUL or half a surrogate pair")
        kept = _Kept(record.subject, to_micros(record.time), msgspec.Raw(_encode(record)))
        wanted = Name(
            namespace=namespace,
            record_id=record.id,
            subject=record.subject,
            fingerprint=fingerprint(spec),
            event=msgspec.json.encode(kept),
            created_at=self._clock(),
        )
        found = await self._grouping.submit(wanted, 1)
        if found.fingerprint != wanted.fingerprint:
            raise ConflictError(
                f"the usage record {record.id} was sent before with other content",
                extensions={"field": "id"},
            )
        if found is wanted:
            return Named(record, True)
        known = msgspec.json.decode(found.event, type=_Kept)
        data = msgspec.json.decode(known.data)
        return Named(UsageRecord(record.id, known.subject, from_micros(known.micros), data), False)

    async def close(self) -> None:
        """Keep what waits, and stop."""
        await self._grouping.close()

    async def _commit(self, group: Sequence[Name]) -> Sequence[Name | Exception]:
        async with self._database.transaction() as conn:
            await self._prune(conn)
            found, new = await store.claim(conn, group)
        taken: set[tuple[str, str]] = set()
        outcomes: list[Name | Exception] = []
        for name in group:
            mine = name.key in new and name.key not in taken
            taken.add(name.key)
            outcomes.append(name if mine else found[name.key])
        return outcomes

    async def _prune(self, conn: AsyncConnection) -> None:
        now = self._clock()
        if self._prune_at is None or now >= self._prune_at:
            self._prune_at = now + _PRUNE_EVERY
            await store.prune(conn, now - self._keep)


def _encode(record: UsageRecord) -> bytes:
    return msgspec.json.encode(record.data)
