"""Credits of subjects: granted, counted, told."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar

import structlog

from entitlements.balance import Grant, burn, plan
from entitlements.balance.exact import ROOM, ZERO
from entitlements.builtin import CREDITS, BuiltIns
from entitlements.credits import store
from entitlements.credits.history import Movement, missing, movements
from entitlements.holds import store as hold_store
from entitlements.holds.book import Entry, has_balance
from entitlements.holds.model import Place, Standing
from entitlements.holds.service import check_place
from entitlements.model import EntitlementType, IssuedGrant
from entitlements.services.entitlements import EntitlementService
from entitlements.services.means import Means, find_active
from entitlements.services.patience import pauses
from entitlements.services.values import ValueService
from entitlements.specs import EntitlementSpec, GrantSpec, RecurrenceSpec, make_grant
from entitlements.stores import entitlements as entitlement_store
from entitlements.stores import grants as grant_store
from entitlements.stores import live
from entitlements.stores.held import held_of
from meterline.db.steps import on
from meterline.kernel.errors import (
    ConflictError,
    MeterlineError,
    NotFoundError,
    UnavailableError,
    ValidationError,
)
from meterline.kernel.ids import new_ulid
from meterline.kernel.instants import from_micros, to_micros
from meterline.kernel.periods import parse_interval

log = structlog.get_logger(__name__)

T = TypeVar("T")

REASON = "reason"
"""Name in a grant's metadata: why it was given."""

_MILLISECOND = timedelta(milliseconds=1)
_MICROSECOND = timedelta(microseconds=1)
_MOST_ENSURED = 50_000


@dataclass(frozen=True, slots=True)
class CreditGrant:
    """Credits to give."""

    amount: Decimal
    priority: int = 1
    expires_at: datetime | None = None
    reason: str | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class CreditBalance:
    """What a subject has. `balance` is the sum of its history's entries."""

    balance: Decimal
    held: Decimal
    available: Decimal
    entries: int
    as_of: datetime


def credits_entitlement() -> EntitlementSpec:
    """The entitlement that holds credits; plans make the same one."""
    return EntitlementSpec(
        EntitlementType.METERED,
        CREDITS,
        usage_period=RecurrenceSpec(parse_interval("MONTH")),
        preserve_overage_at_reset=True,
    )


class CreditService:
    """Gives credits, and keeps the history of what became of them."""

    def __init__(
        self,
        means: Means,
        values: ValueService,
        entitlements: EntitlementService,
        builtins: BuiltIns,
    ) -> None:
        """`values` calculates without live rows."""
        self._means = means
        self._values = values
        self._entitlements = entitlements
        self._builtins = builtins
        self._ensured: set[tuple[str, str]] = set()

    @property
    def max_subject_length(self) -> int:
        """Of a subject that has credits, in characters."""
        return self._means.limits.max_subject_length

    async def ensure(self, namespace: str, subject: str) -> Place:
        """The subject's balance of credits, made when there is none, with its history begun.

        So what a plan has granted comes before what is used of it, though nobody has looked yet.
        """
        place = check_place(Place(namespace, subject, CREDITS))
        if (namespace, subject) in self._ensured:
            return place
        await self._make(place)
        async with self._means.database.read() as conn:
            begun = await store.entered_until(conn, place)
        if not begun:
            try:
                await self.balance(namespace, subject)
            except (NotFoundError, UnavailableError):
                return place  # It begins when there is a balance, and it is known.
        self._remember(namespace, subject)
        return place

    async def still_there(self, place: Place, use: Callable[[], Awaitable[T]]) -> T:
        """Use a balance that was ensured; made anew and once more, if it was deleted since."""
        try:
            return await use()
        except NotFoundError:
            self._ensured.discard((place.namespace, place.subject))
            await self.ensure(place.namespace, place.subject)
            return await use()

    def _remember(self, namespace: str, subject: str) -> None:
        if len(self._ensured) >= _MOST_ENSURED:
            self._ensured.clear()
        self._ensured.add((namespace, subject))

    async def _make(self, place: Place) -> None:
        namespace, subject, _ = place
        await self._builtins.ensure(namespace)
        async with self._means.database.read() as conn:
            there = await entitlement_store.active(conn, *place) is not None
        if not there:
            try:
                await self._entitlements.create(namespace, subject, credits_entitlement())
            except ConflictError:
                async with self._means.database.read() as conn:
                    if await entitlement_store.active(conn, *place) is None:
                        raise

    async def grant(
        self, namespace: str, subject: str, wanted: CreditGrant, grant_id: str | None = None
    ) -> tuple[IssuedGrant, CreditBalance]:
        """Give credits. With an id it is done once, however often it is asked for."""
        place = check_place(Place(namespace, subject, CREDITS))
        if (namespace, subject) not in self._ensured:
            await self._make(place)
        issued = await self.still_there(place, lambda: self._issue(place, wanted, grant_id))
        balance = await self._told(place)
        self._remember(namespace, subject)
        return issued, balance

    async def _told(self, place: Place) -> CreditBalance:
        """The balance after a grant, come what may: an error now would have it granted twice.

        When the history cannot be completed for now, it is calculated; and when even that cannot
        be, it is the one of the last look at the history, whose date says so.
        """
        try:
            return await self.balance(place.namespace, place.subject)
        except MeterlineError as error:
            log.warning("a balance is told without its history", error=error.detail)
        now = self._means.reading_time()
        async with self._means.database.read() as conn:
            # Before usage: what a confirmed hold becomes is missing in none of them.
            found = await held_of(conn, place.namespace, place.subject, now)
            count, ledger, until = await store.end_of(conn, place)
        held, pending = found.get(CREDITS, (ZERO, ZERO))
        try:
            metered = await self._values.metered(await self._values.load(*place, now))
            (run,) = await self._values.runs([metered], now)
        except MeterlineError:
            left = ROOM.subtract(ledger, held)
            return CreditBalance(ledger, held, left, count, from_micros(until))
        of = run.balance
        balance = ROOM.subtract(ROOM.subtract(of.balance, of.overage), pending)
        return CreditBalance(balance, held, ROOM.subtract(balance, held), count, now)

    async def _issue(self, place: Place, wanted: CreditGrant, grant_id: str | None) -> IssuedGrant:
        means = self._means
        async with means.database.transaction() as conn:
            entitlement = await find_active(conn, *place)
            if grant_id is not None:
                known = await grant_store.find(conn, place.namespace, grant_id)
                if known is not None:
                    return _the_same(known, wanted)
            count, last = await grant_store.last_created(conn, entitlement.id)
            if count >= means.limits.max_grants:
                most = means.limits.max_grants
                raise ValidationError(f"an entitlement has at most {most} grants")
            now, clock = means.now(), means.clock()
            spec = GrantSpec(
                wanted.amount,
                priority=wanted.priority,
                expires_at=wanted.expires_at,
                # Credits are kept when a month ends.
                max_rollover=wanted.amount,
                metadata=_metadata(wanted),
            )
            issued = make_grant(
                spec,
                entitlement,
                grant_id=grant_id or new_ulid(now),
                created_at=clock if last is None else max(clock, last + _MICROSECOND),
                now=now,
                limits=means.limits,
            )
            await grant_store.add(conn, issued)
            await means.live.invalidate(conn, entitlement.id)
        return issued

    async def balance(self, namespace: str, subject: str) -> CreditBalance:
        """The balance of now, with its history complete. `NotFoundError` when there is none."""
        place = check_place(Place(namespace, subject, CREDITS))
        for pause in pauses():
            if await self._means.live.get(*place, self._means.reading_time()) is None:
                await self._explain(place)
            found = await self._entered(place, self._means.reading_time())
            if found is not None:
                return found
            await asyncio.sleep(pause)
        raise UnavailableError("the balance changes too quickly to tell")

    async def history(
        self, namespace: str, subject: str, before: int | None, limit: int
    ) -> tuple[CreditBalance, list[Entry]]:
        """The balance, and up to `limit` entries of its history, the newest first."""
        balance = await self.balance(namespace, subject)
        place = Place(namespace, subject, CREDITS)
        async with self._means.database.read() as conn:
            rows = await store.listing(conn, place, before, limit)
        return balance, [
            Entry(place, row[0], Decimal(row[1]), Decimal(row[2]), *row[3:]) for row in rows
        ]

    async def _explain(self, place: Place) -> None:
        """Why there is no live row: there is no entitlement, or nobody can tell now."""
        now = self._means.reading_time()
        loaded = await self._values.load(*place, now)
        if now not in loaded.entitlement.lifetime:
            raise NotFoundError("the subject has no credits")
        raise UnavailableError("the balance is not known yet: its meter is being filled")

    async def _entered(self, place: Place, now: datetime) -> CreditBalance | None:
        """Complete the history up to now; None when something else was quicker."""
        async with self._means.database.read() as conn:
            kept = await live.kept(conn, *place)
            since = await store.entered_until(conn, place)
        if kept is None:
            raise NotFoundError("the subject has no credits")
        possible = await self._movements(place, since, now)
        async with self._means.database.transaction() as conn:
            account = (await on(conn, hold_store.lock([place]))).get(place)
            basis = (await on(conn, hold_store.bases_of([place]))).get(place)
            if account is None:
                await hold_store.create(conn, [place])
                return None
            # Under the lock, and with the same grants as before: nothing was missed.
            if basis is None or not has_balance(basis.row, now):
                return None
            if await live.kept(conn, *place) != kept:
                return None
            # Holds expire to the microsecond, balances are those of a millisecond's end.
            at = to_micros(self._means.clock())
            expired, _ = await on(conn, hold_store.due(place, at))
            held = account.held
            for hold in expired:
                held = ROOM.subtract(held, hold.amount)
            room = basis.room(now, None)
            metered = ROOM.subtract(room.limit, room.used)
            target = ROOM.subtract(metered, account.pending)
            known = await store.known_refs(conn, place, [one.ref for one in possible])
            new = missing(known, possible, account.ledger, target, to_micros(now))
            entered = list(_numbered(place, account.entries, account.ledger, new))
            await store.enter(conn, entered)
            last = entered[-1] if entered else None
            await store.move(conn, place, last, to_micros(now))
        standing = Standing(held, account.pending)
        set_aside = ROOM.add(standing.held, standing.pending)
        return CreditBalance(
            target,
            held,
            ROOM.subtract(metered, set_aside),
            account.entries + len(entered),
            now,
        )

    async def _movements(self, place: Place, since: int, now: datetime) -> list[Movement]:
        """What moved the balance since the last look, and all grants."""
        loaded = await self._values.load(*place, now)
        metered = await self._values.metered(loaded)
        allowance = metered.allowance
        begin = allowance.terms.measure_from
        if since:
            # What happened at the very instant of the last look may have come after it.
            begin = min(max(begin, from_micros(since) - _MILLISECOND), now)
        planned = plan(allowance, now, marks=[begin])
        values = await self._means.usage.read(metered.query, planned.spans)
        run = burn(planned, values, record_from=begin)
        grants: Sequence[Grant] = allowance.grants
        return movements(grants, run.segments, allowance.terms.measure_from, now)


def _metadata(wanted: CreditGrant) -> dict[str, str]:
    said = dict(wanted.metadata or {})
    return said if wanted.reason is None else {**said, REASON: wanted.reason}


def _the_same(known: IssuedGrant, wanted: CreditGrant) -> IssuedGrant:
    """The grant that has the id, when it is what is asked for; else the conflict."""
    grant, before, now = known.grant, dict(known.metadata), _metadata(wanted)
    pairs = (
        ("amount", grant.amount, wanted.amount),
        ("priority", grant.priority, wanted.priority),
        ("expiresAt", grant.expires_at, wanted.expires_at),
        ("reason", before.pop(REASON, None), now.pop(REASON, None)),
        ("metadata", before, now),
    )
    for field, first, again in pairs:
        if first != again:
            raise ConflictError(
                f"this Idempotency-Key was used for a grant with another {field}: use a new key",
                extensions={"field": field, "grantId": grant.id},
            )
    return known


def _numbered(
    place: Place, count: int, ledger: Decimal, new: Sequence[Movement]
) -> Sequence[Entry]:
    made: list[Entry] = []
    for number, one in enumerate(new, count + 1):
        ledger = ROOM.add(ledger, one.amount)
        ref = one.ref or f"look:{number}"
        made.append(Entry(place, number, one.amount, ledger, one.kind, one.at, ref, one.reason))
    return made
