"""Recording usage: priced, durable, once; and what was recorded."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
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
    OnRecorded,
    Recorded,
    RecordReader,
    Transactions,
    UsageMeters,
)
from entitlements.usage_records.prices import PriceService
from entitlements.usage_records.shape import event_data
from meterline.kernel.clock import Clock
from meterline.kernel.errors import MeterlineError
from meterline.kernel.ids import new_ulid
from meterline.kernel.instants import from_micros, to_micros
from meterline.pricing.book import Asked

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
    meters: UsageMeters
    names: Names
    clock: Clock


class UsageService:
    """Records calls. `on_recorded` is told of each, once it is durable: append to it."""

    def __init__(self, means: UsageMeans) -> None:
        self.limits = means.prices.limits
        self.on_recorded: list[OnRecorded] = []
        self._means = means

    async def report(self, namespace: str, spec: RecordSpec) -> UsageRecord:
        """The same as `record`, for callers who must name the transaction of a customer's call."""
        if spec.context is UsageContext.CUSTOMER:
            if spec.transaction_id is None:
                raise fault("transactionId", "is needed when the context is customer")
            if not await self._means.transactions.exists(namespace, spec.transaction_id):
                raise fault("transactionId", "there is no such transaction")
        return await self.record(namespace, spec)

    async def record(self, namespace: str, spec: RecordSpec) -> UsageRecord:
        """Make a call's usage durable, priced as it was at its time.

        Sent again with its id it is the same record, and counts once. `ConflictError` when the
        id was used for other content.
        """
        means = self._means
        time = means.clock() if spec.time is None else spec.time
        asked = Asked(spec.model, time, spec.provider, spec.terms)
        quote = await means.prices.quote(namespace, asked, spec.usage)
        await means.builtins.ensure(namespace)
        record_id = spec.id or new_ulid(means.clock())
        # What is kept has no finer time.
        time = from_micros(to_micros(time))
        record = UsageRecord(record_id, spec.subject, time, event_data(spec, quote))
        named = Named(record, True)
        if spec.id is not None:
            named = await means.names.keep(namespace, record, spec)
        await means.writer.write(namespace, [_event(named.record)])
        if named.is_new:
            await self._tell(namespace, named.record, spec)
        return named.record

    async def list(self, namespace: str, wanted: RecordFilter, limit: int) -> Sequence[Listed]:
        """Up to `limit` records, newest first, from the one after `wanted.before`."""
        return await self._means.records.list(namespace, wanted, limit)

    async def wait(self) -> None:
        """Return when all records that were acknowledged before are in what is read."""
        await self._means.meters.wait(self.limits.wait_seconds)

    async def _tell(self, namespace: str, record: UsageRecord, spec: RecordSpec) -> None:
        told = Recorded(
            namespace=namespace,
            subject=record.subject,
            tokens=spec.usage.total_tokens,
            cost_usd=record.amount("costUsd"),
            requests=_ONE if spec.usage.requests is None else spec.usage.requests,
            time=record.time,
        )
        for listener in self.on_recorded:
            try:
                await listener(told)
            except (MeterlineError, OSError):
                # The record is durable; refusing it now would make its caller send it twice.
                logger.exception("a listener failed to take a usage record")


def _event(record: UsageRecord) -> UsageEvent:
    return UsageEvent(record.id, USAGE_SOURCE, USAGE_TYPE, record.subject, record.time, record.data)
