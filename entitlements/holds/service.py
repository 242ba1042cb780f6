"""Holds: opened, confirmed, released, read."""

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa

from entitlements.events import EventWriter
from entitlements.holds import machine, store
from entitlements.holds.book import Confirm, Expire, Item, NoRowError, Open, Release, Sent
from entitlements.holds.groups import Groups, Outcome
from entitlements.holds.limits import HoldLimits
from entitlements.holds.model import ID_PATTERN, Face, Hold, OnExcess, Opening, Place, State
from entitlements.holds.sending import Sender
from entitlements.holds.shapes import Shapes
from entitlements.holds.tables import accounts, holds
from entitlements.services.means import Means, find_entitlement
from entitlements.services.patience import pauses
from entitlements.specs import fault
from meterline.db.steps import on
from meterline.kernel.errors import NotFoundError, UnavailableError, ValidationError
from meterline.kernel.grouping import Grouping
from meterline.kernel.ids import is_ulid, new_ulid
from meterline.kernel.instants import to_micros
from meterline.kernel.meters import is_storable
from meterline.kernel.quantity import format_number

_MOST_NOTED = 500
_ID = re.compile(ID_PATTERN)


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """A hold to open. Without an id it gets one; without a time to live the default."""

    place: Place
    amount: Decimal
    id: str | None = None
    ttl_seconds: Decimal | None = None
    on_excess: OnExcess = OnExcess.DENY
    metadata: Mapping[str, str] | None = None
    allowance: Decimal | None = None
    """The limit of the usage period, instead of the entitlement's balance."""
    face: Face = Face.HOLD
    model: str | None = None
    details: str = "{}"


@dataclass(frozen=True, slots=True)
class HoldFilter:
    """Which holds of a listing, the newest first; `before` is the last one already seen."""

    subject: str | None = None
    feature_key: str | None = None
    face: Face | None = None
    state: State | None = None
    states: Sequence[State] = ()
    """One of these."""
    success: bool | None = None
    """Of transactions that were completed: how."""
    model: str | None = None
    since: int | None = None
    until: int | None = None
    before: tuple[int, str] | None = None


class HoldService:
    """Holds on metered entitlements. Every change is one of a group that commits together."""

    def __init__(
        self,
        means: Means,
        is_tracked: Callable[[int], bool],
        events: EventWriter,
        limits: HoldLimits | None = None,
    ) -> None:
        """`means.live` makes live rows; `is_tracked` says whether the sink follows a series."""
        self._means = means
        self.limits = limits or HoldLimits()
        self._default_ttl = Decimal(str(self.limits.default_ttl_seconds))
        self._max_ttl = Decimal(str(self.limits.max_ttl_seconds))
        self._resend_micros = int(self.limits.resend_seconds * 1_000_000)
        self._aged_at = 0
        self.shapes = Shapes(means.database, means.usage)
        self.sender = Sender(events)
        groups = Groups(
            means.database, means.clock, means.reading_time, is_tracked, self.sender.send
        )
        self._grouping: Grouping[Item, Outcome] = Grouping(
            lambda items: groups.commit(items, self._grouping.more),
            name="holds",
            max_items=self.limits.max_waiting,
            max_group_items=self.limits.max_group,
        )

    @property
    def now(self) -> int:
        """The current instant, in microseconds since 1970."""
        return to_micros(self._means.clock())

    async def place(self, namespace: str, subject: str, ref: str) -> Place:
        """The balance that a feature's key, or an id of it or of the entitlement, names."""
        if not is_ulid(ref):
            return check_place(Place(namespace, subject, ref))
        async with self._means.database.read() as conn:
            one = await find_entitlement(conn, namespace, subject, ref, self._means.now())
        return Place(namespace, subject, one.feature_key)

    async def request(self, asked: HoldRequest) -> Hold:
        """Open a hold, or find it refused: then its state is `failed`.

        `ConflictError` when its id has another content, `ValidationError` when its meter cannot
        count it, `NotFoundError` without such an entitlement, `UnavailableError` while nobody can
        tell what the balance is.
        """
        check_place(asked.place)
        if asked.id is not None and not self._may_be_id(asked.id):
            await self._check_old_id(asked, asked.id)
        opening = self._opening(asked)
        await self.shapes.check(opening, opening.amount, self.now)
        item = Open(opening, asked.allowance, keep_failure=asked.id is not None)
        for pause in pauses():
            try:
                return _hold(await self._grouping.submit(item))
            except NoRowError:
                await self._make_row(opening.place)
            await asyncio.sleep(pause)
        raise UnavailableError("the balance changes too quickly, or is not known yet")

    async def open(
        self,
        namespace: str,
        subject: str,
        feature_key: str,
        amount: Decimal,
        *,
        hold_id: str | None = None,
        ttl_seconds: Decimal | None = None,
        on_excess: OnExcess = OnExcess.DENY,
        allowance: Decimal | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Hold:
        """The same; one that is refused is a `UsageLimitError`."""
        hold = await self.request(
            HoldRequest(
                Place(namespace, subject, feature_key), amount, hold_id, ttl_seconds, on_excess,
                metadata, allowance,
            )
        )  # fmt: skip
        return accepted(hold)

    async def confirm(
        self,
        namespace: str,
        hold_id: str,
        amount: Decimal | None = None,
        *,
        place: Place | None = None,
        closing: str | None = None,
    ) -> Hold:
        """Use an amount of a hold, all of it when None; the rest is given back.

        `ConflictError` when it is closed otherwise, or the amount is more than its policy allows;
        `NotFoundError` when there is no such hold (at `place`, when that is known).
        """
        where = place if place is not None and is_storable(hold_id) else None
        where = where or (await self.get(namespace, hold_id)).opening.place
        shape = await self.shapes.get(where)
        return _hold(await self._grouping.submit(Confirm(where, hold_id, amount, shape, closing)))

    async def release(
        self,
        namespace: str,
        hold_id: str,
        *,
        place: Place | None = None,
        closing: str | None = None,
    ) -> Hold:
        """Give a hold back; errors as of `confirm`."""
        where = place if place is not None and is_storable(hold_id) else None
        where = where or (await self.get(namespace, hold_id)).opening.place
        return _hold(await self._grouping.submit(Release(where, hold_id, closing)))

    async def get(self, namespace: str, hold_id: str, place: Place | None = None) -> Hold:
        """A hold, as it is now; `NotFoundError` when there is none (at `place`)."""
        hold = await self.find(namespace, hold_id)
        if hold is None or place not in (None, hold.opening.place):
            raise NotFoundError("there is no such hold")
        return hold

    async def find(self, namespace: str, hold_id: str) -> Hold | None:
        """A hold, as it is now, if there is one."""
        if not is_storable(hold_id):
            return None
        async with self._means.database.read() as conn:
            known = await on(conn, store.by_ids([(namespace, hold_id)]))
        hold = known.get((namespace, hold_id))
        return None if hold is None else machine.as_of(hold, self.now)

    async def list(self, namespace: str, wanted: HoldFilter, limit: int) -> Sequence[Hold]:
        """Up to `limit` holds, the newest first, as they are now."""
        now, of = self.now, holds.c
        query = sa.select(*store.HOLD_COLUMNS).where(of.namespace == namespace)
        equal = (
            (of.subject, wanted.subject),
            (of.feature_key, wanted.feature_key),
            (of.face, wanted.face),
            (of.model, wanted.model),
        )
        for column, value in equal:
            if value is not None:
                query = query.where(column == value)
        if wanted.face is not None and wanted.face is not Face.HOLD:
            # As the partial index says it.
            query = query.where(sa.text("face <> 'hold'"))
        states = [wanted.state] if wanted.state is not None else wanted.states
        if states:
            query = query.where(sa.or_(*(_in_state(one, now) for one in states)))
        if wanted.success is not None:
            query = query.where(_with_success(success=wanted.success))
        if wanted.since is not None:
            query = query.where(of.created_at >= wanted.since)
        if wanted.until is not None:
            query = query.where(of.created_at < wanted.until)
        if wanted.before is not None:
            query = query.where(sa.tuple_(of.created_at, of.id) < sa.tuple_(*wanted.before))
        query = query.order_by(of.created_at.desc(), of.id.desc()).limit(limit)
        async with self._means.database.read() as conn:
            found = (await conn.execute(query)).all()
        return [machine.as_of(store.hold_of(row), now) for row in found]

    async def expire(self, limit: int = 500) -> int:
        """Give back what has expired, for some balances; answers for how many."""
        query = sa.select(accounts.c.namespace, accounts.c.subject, accounts.c.feature_key)
        query = query.where(accounts.c.next_expiry <= self.now).limit(limit)
        async with self._means.database.read() as conn:
            places = [Place(*row) for row in (await conn.execute(query)).all()]
        for future in [self._grouping.submit(Expire(place)) for place in places]:
            await future
        return len(places)

    async def resend(self, limit: int = 500) -> int:
        """Write events again that may not be in the log; answers how many."""
        found = await self._waiting(self._resend_micros, limit)
        return await self.sender.resend(found)

    async def note_sent(self, limit: int = 5_000) -> None:
        """Write down which events are durable, of those that nobody has settled for a while.

        Nearly all are settled within a second, and then nothing needs to be written. It is done
        before another process would write them again.
        """
        found = await self._waiting(self._resend_micros // 2, limit)
        ids = tuple((one[0], one[1]) for one in found if self.sender.is_durable((one[0], one[1])))
        for start in range(0, len(ids), _MOST_NOTED):
            await self._grouping.submit(Sent(ids[start : start + _MOST_NOTED]))
        if not self._aged_at <= self.now < self._aged_at + 2 * self._resend_micros:
            self._aged_at = self.now
            self.sender.age()

    async def _waiting(self, micros: int, limit: int) -> Sequence[tuple[str, str, str]]:
        """Namespace, id and event of holds that wait for so long, the oldest first."""
        query = sa.select(holds.c.namespace, holds.c.id, holds.c.outbox)
        query = query.where(holds.c.outbox.is_not(None), holds.c.closed_at <= self.now - micros)
        query = query.order_by(holds.c.closed_at).limit(limit)
        async with self._means.database.read() as conn:
            found = (await conn.execute(query)).all()
        return [(row[0], row[1], row[2]) for row in found]

    async def close(self) -> None:
        """Commit what waits, and write its events."""
        await self._grouping.close()
        await self.sender.close()

    def _may_be_id(self, hold_id: str) -> bool:
        return len(hold_id) <= self.limits.max_id_length and _ID.fullmatch(hold_id) is not None

    async def _check_old_id(self, asked: HoldRequest, hold_id: str) -> None:
        """Refuse an id that none may have, unless a hold got it when it might."""
        if await self.find(asked.place.namespace, hold_id) is None:
            where = "transactionId" if asked.face is Face.TRANSACTION else "id"
            most = self.limits.max_id_length
            raise fault(where, f"must have 1 to {most} visible ASCII characters, and no slash")

    def _opening(self, asked: HoldRequest) -> Opening:
        hold_id = new_ulid(self._means.clock()) if asked.id is None else asked.id
        ttl = self._default_ttl if asked.ttl_seconds is None else asked.ttl_seconds
        if ttl > self._max_ttl:
            most_seconds = format_number(self._max_ttl)
            raise fault("ttlSeconds", f"must be at most {most_seconds}; 0 never expires")
        return Opening(
            hold_id,
            asked.place,
            asked.amount,
            ttl,
            asked.on_excess,
            asked.face,
            asked.model,
            asked.details,
            _metadata(asked.metadata),
        )

    async def _make_row(self, place: Place) -> None:
        """Have the live row made; an error when that cannot be, or not now."""
        now = self._means.reading_time()
        if await self._means.live.get(*place, now) is not None:
            return
        async with self._means.database.read() as conn:
            one = await find_entitlement(conn, *place, now)
        if now not in one.lifetime:
            raise NotFoundError("the entitlement is not in force")
        if one.metered is None:
            raise ValidationError("holds are for metered entitlements: this one has no balance")
        raise UnavailableError("the balance is not known yet: its meter is being filled")


def _metadata(texts: Mapping[str, str] | None) -> str:
    return json.dumps(dict(texts), sort_keys=True, separators=(",", ":")) if texts else "{}"


def check_place(place: Place) -> Place:
    """The place, or `NotFoundError` when no database could keep it."""
    if not is_storable(place.subject) or not is_storable(place.feature_key):
        raise NotFoundError("the subject has no such entitlement")
    return place


def accepted(hold: Hold) -> Hold:
    """The hold, unless it was refused: then the error."""
    if hold.state is State.FAILED:
        raise machine.refusal(hold)
    return hold


def _hold(outcome: Outcome) -> Hold:
    assert outcome is not None
    return outcome


def _with_success(*, success: bool) -> sa.ColumnElement[bool]:
    """Whether a closing says so; without one it was a success, unless all was given back."""
    of, said = holds.c, '%"success":true%'
    # One that was confirmed as a hold says nothing of it.
    succeeded = sa.or_(of.closing.is_(None), of.closing.like(said))
    good = sa.and_(of.state == State.CONFIRMED.value, succeeded)
    return good if success else sa.not_(good)


def _in_state(state: State, now: int) -> sa.ColumnElement[bool]:
    """An open hold whose time has come is expired, whether that was written or not."""
    of = holds.c
    late = sa.and_(of.state == State.OPEN.value, of.expires_at <= now)
    match state:
        case State.OPEN:
            return sa.and_(of.state == state.value, sa.not_(sa.func.coalesce(late, sa.false())))
        case State.EXPIRED:
            return sa.or_(of.state == state.value, late)
    return of.state == state.value
