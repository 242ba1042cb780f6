"""What usage records need of others. The server fills it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from entitlements.usage_records.model import Listed, RecordFilter


class Transactions(Protocol):
    """Transactions of customers."""

    async def is_of(self, namespace: str, transaction_id: str, subject: str) -> bool | None:
        """Whether a transaction is of a subject, whatever became of it; None when there is none."""
        ...


class RecordReader(Protocol):
    """The stored records."""

    async def list(self, namespace: str, wanted: RecordFilter, limit: int) -> Sequence[Listed]:
        """Up to `limit` records, newest first, from the one after `wanted.before`.

        `UnavailableError` when the store cannot answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class TotalsQuery:
    """Totals of a meter in a range, for each combination of the values of `groups`.

    `filters` are those of a meter query: for a groupBy key a text, texts, or operators.
    """

    groups: tuple[str, ...]
    begin: datetime | None = None
    end: datetime | None = None
    subject: str | None = None
    filters: Mapping[str, Any] = field(default_factory=dict)


class UsageMeters(Protocol):
    """The built-in meters."""

    async def totals(
        self, namespace: str, slug: str, query: TotalsQuery
    ) -> Sequence[tuple[Mapping[str, str], Decimal]]:
        """A total and its group, for each group that has usage. `NotFoundError` without the meter.

        `ValidationError` when there are more groups than an answer may have.
        """
        ...

    async def wait(self, timeout_seconds: float) -> None:
        """Return when every acknowledged record is in what can be read; else `UnavailableError`."""
        ...


class FreshMeters(UsageMeters, Protocol):
    """The same, which say how fresh they are."""

    async def as_of(self) -> datetime:
        """Up to when acknowledged records are in what can be read."""
        ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became durable: one call of a subject. `cost_usd` is None when it has no price."""

    namespace: str
    subject: str
    tokens: Decimal
    cost_usd: Decimal | None
    requests: Decimal
    time: datetime
    """When the call was."""
    check_id: str | None = None
    """The check that allowed it."""


OnRecorded = Callable[[Recorded], Awaitable[None]]
"""Told once of every record, when it is durable; told nothing when the process dies just then."""
