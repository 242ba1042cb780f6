"""What may be used: values now and at any instant, history, and access to all features."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import ParamSpec, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.access import Access, boolean_access, metered_access, static_access
from entitlements.balance import (
    Allowance,
    History,
    Metering,
    Plan,
    Reset,
    Run,
    burn,
    history,
    metering_of,
    period_at,
    plan,
    plan_history,
)
from entitlements.balance.exact import ZERO
from entitlements.model import Entitlement, EntitlementType, Feature, IssuedGrant
from entitlements.services.entitlements import require_metered
from entitlements.services.means import Means, find_entitlement
from entitlements.spans import batches
from entitlements.specs import check_future, fault, steps
from entitlements.stores import entitlements as store
from entitlements.stores import features as feature_store
from entitlements.stores import grants as grant_store
from entitlements.stores.held import Held, held_of
from entitlements.usage import UsageQuery
from meterline.kernel.errors import ConflictError, ValidationError
from meterline.kernel.ids import is_ulid
from meterline.kernel.meters import Meter
from meterline.kernel.periods import Period
from meterline.kernel.windows import WindowSize

_MANY = 1_000
_OVERLAPPING_SPANS = 64
_SHORTEST = {
    WindowSize.MINUTE: timedelta(minutes=1),
    WindowSize.HOUR: timedelta(hours=1),
    WindowSize.DAY: timedelta(hours=23),
    WindowSize.MONTH: timedelta(days=27),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is kept of an entitlement; all that a balance needs but usage."""

    entitlement: Entitlement
    feature: Feature
    grants: Sequence[IssuedGrant] = ()
    resets: Sequence[Reset] = ()


@dataclass(frozen=True, slots=True)
class Metered:
    """A metered entitlement with its meter: what to ask of it, and what balances follow from."""

    allowance: Allowance
    query: UsageQuery


Meters = Mapping[str, Meter | None]


@dataclass(frozen=True, slots=True)
class HistorySpec:
    """Which history: from the start of the current usage period until now, unless it says so."""

    start: datetime | None = None
    end: datetime | None = None
    size: WindowSize = WindowSize.DAY
    zone: ZoneInfo = ZoneInfo("UTC")


class ValueService:
    """Answers whether a subject may use a feature, and why."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self.limits = means.limits

    def now(self) -> datetime:
        """The instant that answers of now are for."""
        return self._means.reading_time()

    async def wait(self, seconds: float | None = None) -> None:
        """Let acknowledged events become visible; `UnavailableError` when it takes too long."""
        most = self.limits.wait_seconds
        await self._means.usage.wait(most if seconds is None else min(seconds, most))

    async def value(
        self, namespace: str, subject: str, ref: str, at: datetime | None = None
    ) -> Access:
        """The answer for one entitlement, now unless a time is given."""
        now = self._means.reading_time()
        if at is None and not is_ulid(ref):
            live = await self._means.live.get(namespace, subject, ref, now)
            if live is not None:
                return live
        loaded = await self.load(namespace, subject, ref, at or now)
        held = await self._held(namespace, subject, now) if at is None else {}
        return (await self._answers([loaded], at or now, await self._meters([loaded]), held))[0]

    async def access(
        self, namespace: str, subject: str, at: datetime | None = None
    ) -> Mapping[str, Access]:
        """The answers for every feature of a subject, by key."""
        now = self._means.reading_time()
        async with self._means.database.read() as conn:
            found = await store.of_subject(conn, namespace, subject)
        answers: dict[str, Access] = {}
        if at is None:
            answers = await self._live(namespace, subject, found, now)
        rest = [one for one in found if one.feature_key not in answers]
        if rest:
            answers.update(await self._calculated(namespace, subject, rest, at, now))
        return {one.feature_key: answers[one.feature_key] for one in found}

    async def _calculated(
        self,
        namespace: str,
        subject: str,
        found: Sequence[Entitlement],
        at: datetime | None,
        now: datetime,
    ) -> dict[str, Access]:
        """The answers that have to be calculated; those for now are kept where that is possible."""
        answers: dict[str, Access] = {}
        async with self._means.database.read() as conn:
            loaded = await _load(conn, found)
        meters = await self._meters(loaded)
        for one in loaded if at is None else ():
            key = one.entitlement.feature_key
            if _may_be_live(one, meters):
                live = await self._means.live.get(namespace, subject, key, now)
                if live is not None:
                    answers[key] = live
        rest = [one for one in loaded if one.entitlement.feature_key not in answers]
        held = await self._held(namespace, subject, now) if at is None and rest else {}
        calculated = await self._answers(rest, at or now, meters, held)
        keys = [one.entitlement.feature_key for one in rest]
        return answers | dict(zip(keys, calculated, strict=True))

    async def _live(
        self, namespace: str, subject: str, found: Sequence[Entitlement], now: datetime
    ) -> dict[str, Access]:
        """The answers that are one look-up away."""
        as_of = min(now, await self._means.usage.as_of())
        answers = {}
        for one in found:
            answer = await self._means.live.look_up(namespace, subject, one.feature_key, now)
            if answer is not None:
                answers[one.feature_key] = _dated(answer, as_of)
        return answers

    async def history(self, namespace: str, subject: str, ref: str, spec: HistorySpec) -> History:
        """The balance over time, in windows and burnt down."""
        now = self._means.reading_time()
        loaded = await self.load(namespace, subject, ref, now)
        entitlement = require_metered(loaded.entitlement)
        metered = await self.metered(loaded)
        end = spec.end or now
        if entitlement.ended_at is not None:
            end = min(end, entitlement.ended_at)
        check_future("to", metered.allowance, now, end, self.limits)
        start = spec.start or period_at(metered.allowance, min(now, end)).start
        count = (end - start) / _SHORTEST[spec.size]
        if count > self.limits.max_windows:
            reason = f"more than {self.limits.max_windows} windows: ask for a shorter time"
            raise fault("from", f"{reason} or a larger windowSize")
        many = count > _MANY or _many([metered.allowance], end)
        planned = await _aside(
            many, plan_history, metered.allowance, start, end, spec.size, spec.zone
        )
        phases = planned.plan.spans
        # Two reads: the spans of each follow one another, which is quicker to answer.
        values = await asyncio.gather(
            self._read(metered.query, phases),
            self._read(metered.query, planned.spans[len(phases) :]),
        )
        told = [*values[0], *values[1]]
        return await _aside(many, history, planned, told)

    async def load(self, namespace: str, subject: str, ref: str, at: datetime) -> Loaded:
        """All that is kept of the entitlement that `ref` names at an instant."""
        async with self._means.database.read() as conn:
            entitlement = await find_entitlement(conn, namespace, subject, ref, at)
            return (await _load(conn, [entitlement]))[0]

    async def metered(self, loaded: Loaded) -> Metered:
        """A metered entitlement with its meter; `ConflictError` when its meter cannot be used."""
        return _metered(loaded, await self._meters([loaded]))

    async def _meters(self, loaded: Sequence[Loaded]) -> Meters:
        """The meters of features, by slug, each looked up once."""
        slugs = {
            (one.feature.namespace, one.feature.meter_slug)
            for one in loaded
            if one.entitlement.metered and one.feature.meter_slug
        }
        return {slug: await self._means.usage.meter(namespace, slug) for namespace, slug in slugs}

    async def runs(self, metered: Sequence[Metered], at: datetime) -> list[Run]:
        """The balances of entitlements at an instant, with one read for each distinct query."""
        now = self._means.reading_time()
        for one in metered:
            check_future("time", one.allowance, now, at, self.limits)
        allowances = [one.allowance for one in metered]
        plans = await _aside(_many(allowances, at), _plan_all, allowances, at)
        values = await self._read_all([one.query for one in metered], plans)
        return await _aside(sum(map(len, values)) > _MANY, _burn_all, plans, values)

    async def _held(self, namespace: str, subject: str, now: datetime) -> Mapping[str, Held]:
        """What holds set aside now. It is read before usage: then what a confirmed hold becomes
        is missing in none of them."""
        async with self._means.database.read() as conn:
            return await held_of(conn, namespace, subject, now)

    async def _answers(
        self, loaded: Sequence[Loaded], at: datetime, meters: Meters, held: Mapping[str, Held]
    ) -> list[Access]:
        counted = [
            one for one in loaded if one.entitlement.metered and at in one.entitlement.lifetime
        ]
        metered = [_metered(one, meters) for one in counted]
        runs = await self.runs(metered, at) if metered else []
        as_of = min(at, await self._means.usage.as_of()) if metered else at
        answers = {
            one.entitlement.id: _metered_answer(
                one.entitlement, run, as_of, held.get(one.entitlement.feature_key, (ZERO, ZERO))
            )
            for one, run in zip(counted, runs, strict=True)
        }
        return [
            answers.get(one.entitlement.id) or _plain_answer(one.entitlement, at) for one in loaded
        ]

    async def _read_all(
        self, queries: Sequence[UsageQuery], plans: Sequence[Plan]
    ) -> list[Sequence[Decimal | None]]:
        """The values of each plan's spans. Entitlements that ask the same share a read."""
        shared: dict[tuple[object, ...], dict[Period, None]] = {}
        by_key: dict[tuple[object, ...], UsageQuery] = {}
        keys = [_key(query) for query in queries]
        for key, query, one in zip(keys, queries, plans, strict=True):
            by_key[key] = query
            shared.setdefault(key, {}).update(dict.fromkeys(one.spans))
        gate = asyncio.Semaphore(self.limits.concurrent_reads)

        async def read(key: tuple[object, ...]) -> dict[Period, Decimal | None]:
            spans = list(shared[key])
            async with gate:
                return dict(zip(spans, await self._read(by_key[key], spans), strict=True))

        found = dict(zip(shared, await asyncio.gather(*map(read, shared)), strict=True))
        return [
            [found[key][span] for span in one.spans] for key, one in zip(keys, plans, strict=True)
        ]

    async def _read(self, query: UsageQuery, spans: Sequence[Period]) -> Sequence[Decimal | None]:
        values: list[Decimal | None] = [None] * len(spans)
        for places in batches(spans, _OVERLAPPING_SPANS) if spans else ():
            read = await self._means.usage.read(query, [spans[place] for place in places])
            for place, value in zip(places, read, strict=True):
                values[place] = value
        return values


async def _load(conn: AsyncConnection, found: Sequence[Entitlement]) -> list[Loaded]:
    metered = [one.id for one in found if one.metered]
    features = await feature_store.by_ids(conn, list({one.feature_id for one in found}))
    grants = await grant_store.of_entitlements(conn, metered)
    resets = await grant_store.resets_of(conn, metered)
    return [
        Loaded(one, features[one.feature_id], grants.get(one.id, ()), resets.get(one.id, ()))
        for one in found
    ]


def _metered(loaded: Loaded, meters: Meters) -> Metered:
    entitlement, feature = loaded.entitlement, loaded.feature
    slug = feature.meter_slug or ""
    meter = meters.get(slug)
    if meter is None:
        raise ConflictError(f"the meter {slug} of the feature {feature.key} is gone")
    try:
        terms = entitlement.terms(metering_of(meter.aggregation))
    except ValidationError as error:
        raise ConflictError(f"the feature {feature.key}: {error.detail}") from None
    grants = tuple(issued.grant for issued in loaded.grants)
    return Metered(
        Allowance(terms, grants, tuple(loaded.resets)),
        UsageQuery(entitlement.namespace, slug, entitlement.subject, feature.filters),
    )


def _may_be_live(loaded: Loaded, meters: Meters) -> bool:
    """Whether it is worth asking for a live value: only usage that adds up is kept live."""
    if loaded.entitlement.metered is None:
        return True
    return _metered(loaded, meters).allowance.terms.metering is Metering.ADDITIVE


def _key(query: UsageQuery) -> tuple[object, ...]:
    return (query.namespace, query.meter_slug, query.subject, tuple(sorted(query.filters.items())))


P = ParamSpec("P")
T = TypeVar("T")


async def _aside(many: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do work of any size: in a thread when it is much, so that other requests do not wait."""
    return await asyncio.to_thread(work, *args, **kwargs) if many else work(*args, **kwargs)


def _many(allowances: Sequence[Allowance], at: datetime) -> bool:
    return sum(steps(one, one.terms.measure_from, at) for one in allowances) > _MANY


def _plan_all(allowances: Sequence[Allowance], at: datetime) -> list[Plan]:
    plans = [plan(one, at) for one in allowances]
    for one in plans:
        # Worked out when first asked for; here, because this may be a thread.
        _ = one.spans
    return plans


def _burn_all(plans: Sequence[Plan], values: Sequence[Sequence[Decimal | None]]) -> list[Run]:
    return [burn(one, of_it) for one, of_it in zip(plans, values, strict=True)]


def _metered_answer(entitlement: Entitlement, run: Run, as_of: datetime, held: Held) -> Access:
    rules = entitlement.metered
    answer = metered_access(
        run.balance,
        entitlement.lifetime,
        is_soft_limit=rules is not None and rules.is_soft_limit,
        held=held[0],
        pending=held[1],
    )
    return _dated(answer, as_of)


def _dated(answer: Access, as_of: datetime) -> Access:
    if answer.metered is None:
        return answer
    return replace(answer, metered=replace(answer.metered, as_of=as_of))


def _plain_answer(entitlement: Entitlement, at: datetime) -> Access:
    match entitlement.type:
        case EntitlementType.STATIC:
            return static_access(at, entitlement.lifetime, entitlement.config or "")
        case EntitlementType.BOOLEAN:
            return boolean_access(at, entitlement.lifetime)
    return Access(False)
