"""Looks at entitlements that may have changed, and writes the events that their rules give.

A value is read outside of any transaction, since reading may take its time. What it gives rise to,
what was seen, the checks to come and the end of this check are then one transaction: it happened,
or it will happen again from the start, and what fired already does not fire twice.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.notifications.firing import Seen, fired, next_look
from entitlements.notifications.model import (
    EntitlementValue,
    EventType,
    NewEvent,
    Rule,
    ValueReader,
)
from entitlements.notifications.options import NotificationOptions, Step, no_step
from entitlements.notifications.stores import checks, outbox, rejected, rules
from entitlements.notifications.stores.checks import GRANTS, LOOK, PERIOD, SWEEP, Check
from meterline.db.engine import Database
from meterline.kernel.clock import Clock
from meterline.kernel.instants import format_instant
from meterline.kernel.periods import NEVER

log = structlog.get_logger(__name__)

STEPS = ("claimed", "read", "written", "committed")

_AT_ONCE = 200
_SWEPT_AT_ONCE = 500
_CALENDAR = {PERIOD, GRANTS, SWEEP}
_MOST_PERIODS = 1_000
_MOMENT = timedelta(milliseconds=1)
_REMEMBER = timedelta(days=1)
"""The least time for which it is known what fired, also of a period that is long over."""
_GRACE = timedelta(minutes=1)
"""Usage of a period that is told so much later still counts for its thresholds."""


class Evaluator:
    """Makes the checks that are due. Several processes may do so side by side."""

    def __init__(
        self,
        database: Database,
        reader: ValueReader,
        clock: Clock,
        options: NotificationOptions,
        on_step: Step = no_step,
    ) -> None:
        self._database = database
        self._reader = reader
        self._clock = clock
        self._options = options
        self._on_step = on_step

    async def run_once(self) -> bool:
        """Make some of the checks that are due; answers whether there were any."""
        await self._tell_rejected()
        now = self._clock()
        async with self._database.read() as conn:
            if not await checks.any_due(conn, now):
                return False
        async with self._database.transaction() as conn:
            claimed = await checks.claim(conn, now, _AT_ONCE, self._options.lease)
        await self._on_step("claimed")
        left = await self._make_together(claimed)
        for entitlement_id, found in left.items():
            try:
                await self._make(entitlement_id, found)
            except Exception:
                # The claim lapses, and the check is made again.
                log.exception("a check failed and will be made again", entitlement=entitlement_id)
        return bool(claimed)

    async def _make_together(
        self, claimed: Mapping[str, Sequence[Check]]
    ) -> Mapping[str, Sequence[Check]]:
        """Make what is nothing but a look at now, in one transaction; answers the rest."""
        async with self._database.read() as conn:
            known = await checks.load_seen(conn, list(claimed))
            namespaces = {namespace for namespace, _ in known.values()}
            watched = {one for one in namespaces if await rules.active(conn, one)}
        now = self._clock()
        left = dict(claimed)
        values: list[EntitlementValue] = []
        for entitlement_id, found in claimed.items():
            if {one.reason for one in found} & _CALENDAR:
                continue
            if known.get(entitlement_id, ("",))[0] not in watched:
                continue
            try:
                value = await self._reader.value(entitlement_id, now)
            except Exception:
                # The claim lapses, and the check is made again.
                log.exception("a value could not be read", entitlement=entitlement_id)
                left.pop(entitlement_id)
                continue
            await self._on_step("read")
            if value is not None and now - value.period.start >= _GRACE:
                values.append(value)
                left.pop(entitlement_id)
        if values:
            async with self._database.transaction() as conn:
                answered = [one for value in values for one in claimed[value.entitlement_id]]
                await self._settle(conn, values, answered)
                await self._on_step("written")
            await self._on_step("committed")
        return left

    async def _make(self, entitlement_id: str, found: Sequence[Check]) -> None:
        by_reason = {check.reason: check for check in found}
        if SWEEP in by_reason:
            await self._sweep(by_reason[SWEEP])
        elif not await self._is_watched(entitlement_id):
            await self._leave(entitlement_id, found)
        else:
            # What is due by the calendar comes first, and at its own instant: a server that was
            # down tells of each period that began meanwhile.
            if (period := by_reason.get(PERIOD)) is not None:
                await self._catch_up(entitlement_id, period.due_at, period)
            if (grants := by_reason.get(GRANTS)) is not None:
                await self._look(entitlement_id, grants.due_at, grants)
            rest = [check for check in found if check.reason not in (PERIOD, GRANTS)]
            if rest:
                await self._change(entitlement_id, rest)

    async def _is_watched(self, entitlement_id: str) -> bool:
        """Whether a rule may fire. An entitlement that is not known yet may be anywhere."""
        async with self._database.read() as conn:
            known = (await checks.load_seen(conn, [entitlement_id])).get(entitlement_id)
            return known is None or bool(await rules.active(conn, known[0]))

    async def _leave(self, entitlement_id: str, found: Sequence[Check]) -> None:
        async with self._database.transaction() as conn:
            await checks.done(conn, found)

    async def _sweep(self, check: Check) -> None:
        namespace, after = check.entitlement_id, ""
        while ids := await self._reader.metered(namespace, after, _SWEPT_AT_ONCE):
            async with self._database.transaction() as conn:
                await checks.ask(conn, ids, check.due_at)
            after = ids[-1]
        async with self._database.transaction() as conn:
            await checks.done(conn, [check])

    async def _catch_up(self, entitlement_id: str, boundary: datetime, *answered: Check) -> None:
        """Look at the end of the period and at the start of the next, and so on until now."""
        for _ in range(_MOST_PERIODS):
            await self._look_back(entitlement_id, boundary)
            value = await self._look(entitlement_id, boundary, *answered)
            if value is None or not boundary < value.period.end <= self._clock():
                break
            boundary = value.period.end

    async def _change(self, entitlement_id: str, found: Sequence[Check]) -> None:
        now = self._clock()
        since = min(check.due_at for check in found)
        async with self._database.read() as conn:
            is_new = not await checks.load_seen(conn, [entitlement_id])
        if is_new and since < now:
            first = await self._look(entitlement_id, since)
            if first is not None and first.period.end <= now:
                await self._catch_up(entitlement_id, first.period.end)
        value = await self._look(entitlement_id, self._clock(), *found)
        if value is not None and value.at - value.period.start < _GRACE:
            await self._look_back(entitlement_id, value.period.start)

    async def _look_back(self, entitlement_id: str, boundary: datetime) -> None:
        """Let the thresholds of the period before `boundary` have the last of its usage."""
        value = await self._reader.value(entitlement_id, boundary - _MOMENT)
        if value is None:
            return
        async with self._database.transaction() as conn:
            known = (await checks.load_seen(conn, [entitlement_id], lock=True)).get(entitlement_id)
            if known is not None:
                await self._fire(conn, value, known[1], await rules.active(conn, value.namespace))

    async def _look(
        self, entitlement_id: str, at: datetime, *answered: Check
    ) -> EntitlementValue | None:
        """Have the rules look at an instant, which answers some checks."""
        value = await self._reader.value(entitlement_id, at)
        await self._on_step("read")
        async with self._database.transaction() as conn:
            if value is None:
                await checks.done(conn, answered)
                await checks.forget(conn, entitlement_id)
            else:
                await self._settle(conn, [value], answered)
            await self._on_step("written")
        await self._on_step("committed")
        return value

    async def _settle(
        self,
        conn: AsyncConnection,
        values: Sequence[EntitlementValue],
        answered: Sequence[Check],
    ) -> None:
        """Write all that follows from values, and that checks are answered by them."""
        # First, so that what is scheduled below stays.
        await checks.done(conn, answered)
        now = self._clock()
        known = await checks.load_seen(conn, [value.entitlement_id for value in values], lock=True)
        watching = {one: await rules.active(conn, one) for one in {v.namespace for v in values}}
        newest: list[EntitlementValue] = []
        due: list[tuple[str, str, datetime]] = []
        for value in values:
            before = known.get(value.entitlement_id, (None, None))[1]
            await self._fire(conn, value, before, watching[value.namespace])
            is_newest = before is None or value.period.start >= before.period_start
            if is_newest:
                newest.append(value)
            if watching[value.namespace]:
                due += self._due(value, watching[value.namespace], now, is_newest=is_newest)
        await checks.save_seen(conn, newest)
        await checks.drop(conn, [value.entitlement_id for value in values], GRANTS)
        await checks.schedule(conn, due, now)

    def _due(
        self, value: EntitlementValue, watching: Sequence[Rule], now: datetime, *, is_newest: bool
    ) -> list[tuple[str, str, datetime]]:
        """The checks that the calendar will bring."""
        entitlement_id = value.entitlement_id
        seconds = self._options.look_seconds if value.is_told else self._options.untold_seconds
        due = [(entitlement_id, LOOK, now + timedelta(seconds=seconds))]
        if is_newest and value.period.end < NEVER:
            due.append((entitlement_id, PERIOD, value.period.end))
        look = next_look(watching, value)
        if look is not None and look < NEVER:
            due.append((entitlement_id, GRANTS, look))
        return due

    async def _fire(
        self,
        conn: AsyncConnection,
        value: EntitlementValue,
        before: Seen | None,
        watching: Sequence[Rule],
    ) -> None:
        by_id = {rule.id: rule for rule in watching}
        now = self._clock()
        for event in fired(watching, value, before):
            assert event.key is not None
            until = max(event.remember_until or NEVER, now + _REMEMBER)
            if await checks.fire_once(conn, event.key, until):
                await outbox.add(conn, by_id[event.rule_id], event, now)

    async def _tell_rejected(self) -> None:
        now = self._clock()
        until = now - timedelta(seconds=self._options.rejected_seconds)
        async with self._database.read() as conn:
            namespaces = await rejected.waiting(conn, until)
        for namespace in namespaces:
            async with self._database.transaction() as conn:
                found = await rejected.take(conn, namespace)
                if found is None:
                    continue
                for rule in await rules.active(conn, namespace, [EventType.EVENTS_REJECTED]):
                    event = NewEvent(rule.spec.type, rule.id, now, rejected_data(found))
                    await outbox.add(conn, rule, event, now)


def rejected_data(found: rejected.Rejected) -> dict[str, object]:
    """What a payload says of rejected events."""
    return {
        "from": format_instant(found.begin),
        "to": format_instant(found.end),
        "count": sum(count for _, count in found.reasons),
        "reasons": [{"reason": reason, "count": count} for reason, count in found.reasons],
    }
