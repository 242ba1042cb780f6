"""Names of records that their callers gave: which content each had, and its event."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Column, LargeBinary, String, Table, Text, delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from meterline.db.tables import UtcDateTime, metadata, upsert

record_names = Table(
    "usage_record_names",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("record_id", Text, primary_key=True),
    Column("subject", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("event", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

Key = tuple[str, str]
"""Namespace and id of a record."""


@dataclass(frozen=True, slots=True)
class Name:
    """A record's name, the fingerprint of what its caller said, and its event as JSON."""

    namespace: str
    record_id: str
    subject: str
    fingerprint: bytes
    event: bytes
    created_at: datetime

    @property
    def key(self) -> Key:
        return self.namespace, self.record_id


async def claim(conn: AsyncConnection, names: Sequence[Name]) -> tuple[dict[Key, Name], set[Key]]:
    """Keep these names as far as they are new: all as they are kept now, and which were new.

    Of several with one key the first is kept.
    """
    first: dict[Key, Name] = {}
    for name in names:
        first.setdefault(name.key, name)
    # Always in the same order, so that two processes never wait for each other.
    rows = [_row(first[key]) for key in sorted(first)]
    added = upsert(conn, record_names, ["namespace", "record_id"], []).values(rows)
    returning = added.returning(record_names.c.namespace, record_names.c.record_id)
    new = {(row.namespace, row.record_id) for row in await conn.execute(returning)}
    found = {key: first[key] for key in new}
    known = [key for key in first if key not in new]
    if known:
        place = tuple_(record_names.c.namespace, record_names.c.record_id)
        for row in await conn.execute(select(record_names).where(place.in_(known))):
            found[row.namespace, row.record_id] = Name(
                namespace=row.namespace,
                record_id=row.record_id,
                subject=row.subject,
                fingerprint=bytes(row.fingerprint),
                event=bytes(row.event),
                created_at=row.created_at,
            )
    return found, new


async def prune(conn: AsyncConnection, before: datetime) -> None:
    """Forget the names that were made before an instant."""
    await conn.execute(delete(record_names).where(record_names.c.created_at < before))


async def erase(conn: AsyncConnection, namespace: str, subject: str) -> None:
    """Forget the names of a subject's records: it is deleted with its data."""
    await conn.execute(
        delete(record_names).where(
            record_names.c.namespace == namespace, record_names.c.subject == subject
        )
    )


def _row(name: Name) -> dict[str, object]:
    return {
        "namespace": name.namespace,
        "record_id": name.record_id,
        "subject": name.subject,
        "fingerprint": name.fingerprint,
        "event": name.event,
        "created_at": name.created_at,
    }
