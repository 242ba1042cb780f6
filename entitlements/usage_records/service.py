"""Recording usage: priced, durable, once; and what was recorded."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from entitlements.builtin import USAGE_SOURCE, USAGE_TYPE, BuiltIns
from entitlements.events import EventWriter, UsageEvent
from entitlements.specs import fault
from entitlements.usage_records.model import (
    Listed,
    RecordFilter,
    RecordSpec,
    UsageContext,
    UsageRecord,
)
from entitlements.usage_records.naming import Named, Names
from entitlements.usage_records.ports import (
    FreshMeters,
    OnRecorded,
    Recorded,
    RecordReader,
    Transactions,
)
from entitlements.usage_records.prices import PriceService
from entitlements.usage_records.shape import event_data
from meterline.kernel.clock import Clock
from meterline.kernel.errors import MeterlineError
from meterline.kernel.ids import new_ulid
from meterline.kernel.instants import from_micros, to_micros
from meterline.pricing.book import Asked, PriceBook

logger = logging.getLogger(__name__)

_ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class UsageMeans:
    """What records are made with."""

    prices: PriceService
    builtins: BuiltIns
    writer: EventWriter
    transactions: Transactions
    records: RecordReader
    meters: FreshMeters
    names: Names
    clock: Clock


class UsageService:
    """Records calls. `on_recorded` is told of each, once it is durable: append to it."""

    def __init__(self, means: UsageMeans) -> None:
        self.limits = means.prices.limits
        self.on_recorded: list[OnRecorded] = []
        self._means = means

    async def report(
        self, namespace: str, specs: Sequence[RecordSpec], where: str = "{}"
    ) -> Sequence[UsageRecord]:
        """The same as `record_all`, for callers who must name the transactions of customers' calls.

        `where` is the place of a spec's field in what the caller sent.
        """
        known: dict[tuple[str, str], bool | None] = {}
        for index, spec in enumerate(specs):
            if spec.context is not UsageContext.CUSTOMER:
                continue
            field, name = where.format("transactionId", index=index), spec.transaction_id
            if name is None:
                raise fault(field, "is needed when the context is customer")
            whose = name, spec.subject
            if whose not in known:
                known[whose] = await self._means.transactions.is_of(namespace, *whose)
            if known[whose] is None:
                raise fault(field, "there is no such transaction")
            if not known[whose]:
                raise fault(field, "is a transaction of another account")
        return await self.record_all(namespace, specs)

    async def record(self, namespace: str, spec: RecordSpec) -> UsageRecord:
        """Make a call's usage durable, priced as it was at its time.

        Sent again with its id it is the same record, and counts once. `ConflictError` when the
        id was used for other content.
        """
        return (await self.record_all(namespace, [spec]))[0]

    async def record_all(
        self, namespace: str, specs: Sequence[RecordSpec]
    ) -> Sequence[UsageRecord]:
        """The same for many calls, which become durable together.

        When one of them is refused, none of the new ones is written.
        """
        means = self._means
        await means.builtins.ensure(namespace)
        book = await means.prices.book(namespace)
        made = [self._made(book, spec) for spec in specs]
        # What cannot be refused any more has its name before the first is written.
        named = await asyncio.gather(
            *(
                self._named(namespace, record, spec)
                for record, spec in zip(made, specs, strict=True)
            )
        )
        await means.writer.write(namespace, [_event(one.record) for one in named])
        for one, spec in zip(named, specs, strict=True):
            if one.is_new:
                await self._tell(namespace, one.record, spec)
        return [one.record for one in named]

    def _made(self, book: PriceBook, spec: RecordSpec) -> UsageRecord:
        now = self._means.clock()
        time = now if spec.time is None else spec.time
        quote = book.quote(Asked(spec.model, time, spec.provider, spec.terms), spec.usage)
        # What is kept has no finer time.
        return UsageRecord(
            spec.id or new_ulid(now),
            spec.subject,
            from_micros(to_micros(time)),
            event_data(spec, quote),
        )

    async def _named(self, namespace: str, record: UsageRecord, spec: RecordSpec) -> Named:
        if spec.id is None:
            return Named(record, True)
        return await self._means.names.keep(namespace, record, spec)

    async def list(self, namespace: str, wanted: RecordFilter, limit: int) -> Sequence[Listed]:
        """Up to `limit` records, newest first, from the one after `wanted.before`."""
        return await self._means.records.list(namespace, wanted, limit)

    async def wait(self) -> None:
        """Return when all records that were acknowledged before are in what is read."""
        await self._means.meters.wait(self.limits.wait_seconds)

    async def as_of(self) -> datetime:
        """Up to when acknowledged records are in what is read from now on."""
        return await self._means.meters.as_of()

    async def _tell(self, namespace: str, record: UsageRecord, spec: RecordSpec) -> None:
        told = Recorded(
            namespace=namespace,
            subject=record.subject,
            tokens=spec.usage.total_tokens,
            cost_usd=record.amount("costUsd"),
            requests=_ONE if spec.usage.requests is None else spec.usage.requests,
            time=record.time,
            check_id=spec.check_id,
        )
        for listener in self.on_recorded:
            try:
                await listener(told)
            except (MeterlineError, OSError):
                # The record is durable; refusing it now would make its caller send it twice.
                logger.exception("a listener failed to take a usage record")


def _event(record: UsageRecord) -> UsageEvent:
    return UsageEvent(record.id, USAGE_SOURCE, USAGE_TYPE, record.subject, record.time, record.data)
