"""Subjects: what is known about those who use, beyond their usage.

Usage does not need a subject record: events name subjects freely. A record adds a display name and
metadata. Deleting it keeps the usage, unless the caller asks to purge that too.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    delete,
    or_,
    select,
)

from meterline.db.engine import Database
from meterline.db.tables import UtcDateTime, metadata, upsert
from meterline.kernel.clock import Clock
from meterline.kernel.errors import FieldError, NotFoundError, ValidationError
from meterline.kernel.ids import is_ulid, new_ulid
from meterline.kernel.text import is_text

subjects = Table(
    "subjects",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("key", Text, nullable=False),
    Column("display_name", Text),
    Column("metadata", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("namespace", "key", name="uq_subjects_namespace_key"),
)

_MAX_INTEGER = 2**63


@dataclass(frozen=True, slots=True)
class SubjectLimits:
    """How large a subject and a request about subjects may be."""

    max_key_length: int = 2_048
    """Characters; as long as the `subject` of an event may be."""
    max_display_name_length: int = 256
    max_metadata_entries: int = 64
    max_metadata_text: int = 8_192
    """Characters of all names and texts in one subject's metadata."""
    max_metadata_depth: int = 8
    max_upsert: int = 1_000
    """Subjects in one upsert."""
    max_page: int = 1_000
    """Subjects in one listing."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is kept of a subject."""

    id: str
    namespace: str
    key: str
    display_name: str | None
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class SubjectChange:
    """What to write: `fields` holds only what the caller gave (`display_name`, `metadata`)."""

    key: str
    fields: Mapping[str, Any]


Purge = Callable[[str, str], Awaitable[None]]
"""Erases the usage of (namespace, subject) for good; returns when no query shows it any more."""


class SubjectService:
    """Subjects of a namespace. All writes are one transaction each."""

    def __init__(
        self, database: Database, clock: Clock, purge: Purge, limits: SubjectLimits | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._purge = purge
        self.limits = limits or SubjectLimits()

    async def upsert(self, namespace: str, changes: Sequence[SubjectChange]) -> list[Subject]:
        """Make or change subjects, all or none; what a change does not give stays as it was.

        Answers the subjects in the order of `changes`. Of two changes of one subject both count,
        the later one winning.
        """
        errors = _faults(changes, self.limits)
        if errors:
            raise ValidationError(f"{errors[0].where}: {errors[0].reason}", errors=errors)
        merged: dict[str, dict[str, Any]] = {}
        for change in changes:
            merged.setdefault(change.key, {}).update(change.fields)
        now = self._clock()
        # Rows that change the same columns are one statement.
        batches: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        # In the order of keys, so that two who write the same do not wait in a circle.
        for key, fields in sorted(merged.items()):
            row = {
                "id": new_ulid(now),
                "namespace": namespace,
                "key": key,
                "display_name": fields.get("display_name"),
                "metadata": fields.get("metadata") or {},
                "created_at": now,
                "updated_at": now,
            }
            batches.setdefault(tuple(sorted(fields)), []).append(row)
        async with self._database.transaction() as conn:
            for changed, rows in sorted(batches.items()):
                statement = upsert(conn, subjects, ["namespace", "key"], [*changed, "updated_at"])
                await conn.execute(statement, rows)
            found: dict[str, Subject] = {}
            keys = list(merged)
            for start in range(0, len(keys), 500):
                result = await conn.execute(
                    select(subjects).where(
                        subjects.c.namespace == namespace,
                        subjects.c.key.in_(keys[start : start + 500]),
                    )
                )
                found.update((row.key, _subject(row)) for row in result)
        return [found[change.key] for change in changes]

    async def list(self, namespace: str, after: str | None, limit: int) -> Sequence[Subject]:
        """Up to `limit` subjects in the order of their keys, from the one after key `after`."""
        query = select(subjects).where(subjects.c.namespace == namespace)
        if after is not None:
            query = query.where(subjects.c.key > after)
        query = query.order_by(subjects.c.key).limit(min(limit, self.limits.max_page))
        async with self._database.read() as conn:
            return [_subject(row) for row in await conn.execute(query)]

    async def get(self, namespace: str, id_or_key: str) -> Subject:
        """The subject with that key, else the one with that id."""
        if not _key_fault(id_or_key, self.limits):
            async with self._database.read() as conn:
                rows = await conn.execute(select(subjects).where(_named(namespace, id_or_key)))
                found = [_subject(row) for row in rows]
            if found:
                return next((one for one in found if one.key == id_or_key), found[0])
        raise NotFoundError("there is no such subject")

    async def delete(self, namespace: str, id_or_key: str, *, purge_usage: bool) -> None:
        """Delete a subject's record, and with `purge_usage` every event it ever had.

        Purging needs no record, since usage needs none. It comes first, so that a purge that fails
        half-way leaves the record, and the caller can try again.
        """
        key = id_or_key
        try:
            key = (await self.get(namespace, id_or_key)).key
        except NotFoundError:
            if not purge_usage or _key_fault(id_or_key, self.limits):
                raise
        if purge_usage:
            await self._purge(namespace, key)
        async with self._database.transaction() as conn:
            await conn.execute(
                delete(subjects).where(subjects.c.namespace == namespace, subjects.c.key == key)
            )


def _named(namespace: str, id_or_key: str) -> ColumnElement[bool]:
    name = subjects.c.key == id_or_key
    if is_ulid(id_or_key):
        name = or_(name, subjects.c.id == id_or_key.upper())
    return and_(subjects.c.namespace == namespace, name)


def _faults(changes: Sequence[SubjectChange], limits: SubjectLimits) -> list[FieldError]:
    if len(changes) > limits.max_upsert:
        return [FieldError("body", f"more than {limits.max_upsert} subjects")]
    errors = []
    for index, change in enumerate(changes):
        name = change.fields.get("display_name")
        reasons = {
            "key": _key_fault(change.key, limits),
            "displayName": _name_fault(name, limits) if name is not None else "",
            "metadata": _metadata_fault(change.fields.get("metadata") or {}, limits),
        }
        errors += [FieldError(f"[{index}].{where}", why) for where, why in reasons.items() if why]
    return errors


def _key_fault(key: str, limits: SubjectLimits) -> str:
    if not 1 <= len(key) <= limits.max_key_length:
        return f"a key has 1 to {limits.max_key_length} characters"
    return "" if is_text(key) else "a key has no control characters"


def _name_fault(name: str, limits: SubjectLimits) -> str:
    if len(name) > limits.max_display_name_length:
        return f"a display name has at most {limits.max_display_name_length} characters"
    return "" if is_text(name) else "a display name has no control characters"


def _metadata_fault(value: Mapping[str, Any], limits: SubjectLimits) -> str:
    """Why `value` cannot be kept, '' when it can. Walks with a stack: depth is the caller's."""
    entries = length = 0
    pending: list[tuple[Any, int]] = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, dict | list):
            if depth > limits.max_metadata_depth:
                return f"more than {limits.max_metadata_depth} levels"
            entries += len(item)
            if entries > limits.max_metadata_entries:
                return f"more than {limits.max_metadata_entries} entries"
            parts = [*item, *item.values()] if isinstance(item, dict) else item
            pending += [(part, depth + 1) for part in parts]
        elif isinstance(item, str):
            length += len(item)
            if "\x00" in item or any("\ud800" <= char <= "\udfff" for char in item):
                return "a text holds NUL or half a surrogate pair"
            if length > limits.max_metadata_text:
                return f"more than {limits.max_metadata_text} characters"
        elif isinstance(item, float) and not math.isfinite(item):
            return "a number is not finite"
        elif isinstance(item, int) and abs(item) >= _MAX_INTEGER:
            return "an integer has more than 63 bits: send it as a string"
    return ""


def _subject(row: Row[Any]) -> Subject:
    return Subject(
        id=row.id,
        namespace=row.namespace,
        key=row.key,
        display_name=row.display_name,
        metadata=row.metadata,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
