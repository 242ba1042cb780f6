"""The one decision: may this subject do this now?

Refusals come in a fixed order: ban, feature, the month's tokens and cost, credits, holds, rates.
Everything before the rates only reads; the rates are asked last, and take a request only when all
of them admit it. So what one limit refuses has used nothing of any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple, Protocol

from entitlements.access import Access
from entitlements.balance.exact import ROOM, ZERO, total
from entitlements.builtin import COST, CREDITS, TOKENS
from entitlements.plans import decide
from entitlements.plans.limiter import RateLimiter
from entitlements.plans.model import (
    Ban,
    Decision,
    Estimate,
    Limits,
    LimitState,
    OpenedHold,
    Outcome,
    Refusal,
)
from entitlements.plans.options import PlanOptions
from entitlements.plans.rates import RateAnswer
from entitlements.plans.stores import members as store
from entitlements.plans.stores.members import LiveUsage, Looked, Set
from entitlements.plans.stores.plans import Terms, overrides_of, terms_of
from entitlements.services.means import Means
from entitlements.services.values import ValueService
from entitlements.stores.live import Stored, decode
from entitlements.usage import UsageQuery
from meterline.db.hot import HotReads
from meterline.kernel.errors import NotFoundError, ValidationError
from meterline.kernel.ids import new_ulid
from meterline.kernel.instants import to_micros
from meterline.kernel.periods import Period

_REMEMBERED = 50_000
_NO_TERMS = Terms(Limits(), False)


class Refused(NamedTuple):
    """A hold that could not be opened: what there is in all, and what is used of it."""

    limit: Decimal
    current: Decimal


class Holds(Protocol):
    """What a check asks of holds. The server fills it."""

    async def open(
        self,
        namespace: str,
        subject: str,
        feature_key: str,
        amount: Decimal,
        *,
        hold_id: str,
        ttl_seconds: int,
        allowance: Decimal | None,
    ) -> Refused | None:
        """Set an amount aside; None when it is.

        With an allowance, from what is left of it in the usage period; else from the balance.
        """
        ...

    async def release(self, namespace: str, subject: str, feature_key: str, hold_id: str) -> None:
        """Give it back. Nothing happens when it is closed already."""
        ...

    async def held(self, namespace: str, subject: str, feature_key: str) -> Decimal:
        """What open holds and confirmed amounts that are not usage yet set aside, exactly now."""
        ...


class Tracking(Protocol):
    """The sink's side of live rows."""

    def is_tracked(self, series: int) -> bool:
        """Whether a series is still the sink's."""
        ...


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What is asked."""

    subject: str
    feature: str | None = None
    estimate: Estimate = Estimate()
    consume: bool = True
    """Take a request of the rates when all admit it."""
    hold_seconds: int | None = None
    """Set the estimates aside for so long."""


class _Reading(NamedTuple):
    """What a live row says of the month: usage in [period_start, now), for start <= now < until."""

    period_start: datetime
    start: datetime
    until: datetime
    used: Decimal


@dataclass(frozen=True, slots=True)
class _Known:
    """What a check knows of its subject."""

    plan: str | None
    limits: Limits
    has_credits: bool
    ban: Ban | None
    states: Sequence[LimitState]


class CheckService:
    """Answers checks."""

    def __init__(
        self,
        hot: HotReads,
        means: Means,
        values: ValueService,
        tracking: Tracking,
        limiter: RateLimiter,
        holds: Holds,
        options: PlanOptions,
    ) -> None:
        self._hot = hot
        self._means = means
        self._values = values
        self._tracking = tracking
        self._limiter = limiter
        self._holds = holds
        self.options = options
        self._reading = lru_cache(_REMEMBERED)(_reading)
        self._terms = lru_cache(1_000)(terms_of)

    async def check(
        self, namespace: str, asked: CheckRequest, check_id: str | None = None
    ) -> Decision:
        """Decide. `check_id` names the decision and its holds."""
        now = self._means.reading_time()
        tokens = int(asked.estimate.tokens or 0)
        check_id = check_id or new_ulid(now)
        looked = await store.look_up(self._hot, namespace, asked.subject)
        known = await self._known(namespace, asked.subject, looked, now)

        def decided(
            refusal: Refusal | None,
            rates: RateAnswer | None = None,
            holds: Sequence[OpenedHold] = (),
        ) -> Decision:
            states = known.states
            if rates is not None:
                states = [*states, *decide.rate_states(rates.states)]
                refusal = refusal or _over(rates, tokens)
            return Decision(asked.subject, check_id, known.plan, refusal, states, holds)

        refusal = await self._refusal(namespace, asked, known)
        rates = decide.rate_limits(known.limits)
        if refusal is not None or (asked.hold_seconds is None and not rates.any):
            return decided(refusal)
        whose = (namespace, asked.subject, rates, tokens)
        if not asked.consume or asked.hold_seconds is not None:
            looked_at = await self._limiter.peek(*whose)
            if not asked.consume or not looked_at.admitted:
                return decided(None, looked_at)
        holds, refusal = await self._hold(namespace, asked, known, check_id)
        if refusal is not None or not rates.any:
            return decided(refusal, None, holds)
        answer = await self._limiter.admit(*whose, check_id)
        if answer.admitted:
            return decided(None, answer, holds)
        await self._give_back(namespace, asked.subject, holds)
        return decided(None, answer)

    async def recorded(
        self, namespace: str, subject: str, tokens: int, check_id: str | None = None
    ) -> None:
        """A call was recorded: its tokens count in the last minute, if a limit asks for that."""
        looked = await store.look_up(self._hot, namespace, subject)
        if looked is not None and self._limits(looked)[0].tokens_per_minute is not None:
            await self._limiter.recorded(namespace, subject, tokens, check_id)

    async def _known(
        self, namespace: str, subject: str, looked: Looked | None, now: datetime
    ) -> _Known:
        if looked is None:
            return _Known(None, Limits(), False, None, ())
        limits, has_credits = self._limits(looked)
        ban = Ban(now, looked.ban_reason or "") if looked.is_banned else None
        states: Sequence[LimitState] = ()
        if not ban and (limits.monthly_tokens is not None or limits.monthly_cost_usd is not None):
            tokens = cost = ZERO
            whose = (namespace, subject)
            if limits.monthly_tokens is not None:
                tokens = await self._used(whose, TOKENS, looked.tokens, looked.tokens_set, now)
            if limits.monthly_cost_usd is not None:
                cost = await self._used(whose, COST, looked.cost, looked.cost_set, now)
            states = decide.monthly_states(limits, tokens, cost, now)
        return _Known(looked.plan, limits, has_credits, ban, states)

    def _limits(self, looked: Looked) -> tuple[Limits, bool]:
        terms = self._terms(looked.limits) if looked.limits else _NO_TERMS
        if looked.overrides == "{}":
            return terms.limits, terms.has_credits
        return terms.limits.overridden(overrides_of(looked.overrides)), terms.has_credits

    async def _refusal(self, namespace: str, asked: CheckRequest, known: _Known) -> Refusal | None:
        if known.ban is not None:
            return decide.banned(known.ban)
        estimate = asked.estimate
        if asked.feature is not None and asked.feature != CREDITS:
            access = await self._access(namespace, asked.subject, asked.feature)
            refusal = decide.without_access(asked.feature, access)
            if refusal is not None:
                return refusal
        refusal = decide.over_usage(known.states, estimate)
        if refusal is not None:
            return refusal
        if known.has_credits or estimate.credits or asked.feature == CREDITS:
            access = await self._access(namespace, asked.subject, CREDITS)
            return decide.without_credits(access, estimate.credits)
        return None

    async def _access(self, namespace: str, subject: str, feature: str) -> Access | None:
        try:
            return await self._values.value(namespace, subject, feature)
        except NotFoundError:
            return None

    async def _used(
        self,
        whose: tuple[str, str],
        feature: str,
        live: LiveUsage,
        aside: Set,
        now: datetime,
    ) -> Decimal:
        """What was used this month, and what is set aside of it."""
        used = self._from_row(live, now)
        if used is None:
            used = await self._calculated(whose, feature, now)
        held = aside.total
        if aside.next_expiry is not None and aside.next_expiry <= to_micros(now):
            held = await self._holds.held(*whose, feature)
        return ROOM.add(used, held) if held else used

    def _from_row(self, live: LiveUsage, now: datetime) -> Decimal | None:
        """The month's usage as a live row has it; None when none has."""
        if live.state is None or live.usage is None:
            return None
        if live.series is not None and not self._tracking.is_tracked(live.series):
            return None
        read = self._reading(live.usage, live.state)
        month = decide.month_of(now)
        if read is None or read.period_start != month.start or not read.start <= now < read.until:
            return None
        if not live.due:
            return read.used
        row = decode(Stored("", live.series, "0", live.due, live.state))
        return total([read.used, row.usage_at(now)])

    async def _calculated(self, whose: tuple[str, str], feature: str, now: datetime) -> Decimal:
        """The same without a row; has one made for the next time, where that is possible."""
        if await self._means.live.get(*whose, feature, now) is not None:
            looked = await store.look_up(self._hot, *whose)
            if looked is not None:
                live = looked.tokens if feature == TOKENS else looked.cost
                used = self._from_row(live, now)
                if used is not None:
                    return used
        query = UsageQuery(whose[0], feature, whose[1], {})
        try:
            values = await self._means.usage.read(query, [Period(decide.month_of(now).start, now)])
        except NotFoundError:
            return ZERO
        return values[0] or ZERO

    async def _hold(
        self, namespace: str, asked: CheckRequest, known: _Known, check_id: str
    ) -> tuple[Sequence[OpenedHold], Refusal | None]:
        """Set the estimates aside, all or none of them."""
        if asked.hold_seconds is None:
            return (), None
        opened: list[OpenedHold] = []
        for feature, amount, allowance in _amounts(asked.estimate, known.limits):
            hold = OpenedHold(f"{check_id}.{feature}", feature, amount)
            refused = await self._holds.open(
                namespace,
                asked.subject,
                feature,
                amount,
                hold_id=hold.id,
                ttl_seconds=asked.hold_seconds,
                allowance=allowance,
            )
            if refused is not None:
                await self._give_back(namespace, asked.subject, opened)
                return (), self._not_held(feature, refused, amount)
            opened.append(hold)
        return opened, None

    def _not_held(self, feature: str, refused: Refused, amount: Decimal) -> Refusal:
        now = self._means.now()
        if feature == CREDITS:
            detail = f"credits: {amount} cannot be set aside"
            return Refusal(Outcome.USAGE, CREDITS, detail, refused.limit, refused.current)
        name = decide.MONTHLY_TOKENS if feature == TOKENS else decide.MONTHLY_COST
        left = decide.seconds_up(decide.month_of(now).end - now)
        return decide.usage_refusal(LimitState(name, refused.limit, refused.current, left), amount)

    async def _give_back(self, namespace: str, subject: str, holds: Sequence[OpenedHold]) -> None:
        for hold in holds:
            await self._holds.release(namespace, subject, hold.feature, hold.id)


def _over(rates: RateAnswer, tokens: int) -> Refusal | None:
    tightest = rates.tightest
    return None if tightest is None else decide.over_rate(tightest, tokens)


def _amounts(estimate: Estimate, limits: Limits) -> list[tuple[str, Decimal, Decimal | None]]:
    """What a hold sets aside: feature, amount, and the limit that it comes from."""
    amounts: list[tuple[str, Decimal, Decimal | None]] = []
    if estimate.tokens and limits.monthly_tokens is not None:
        amounts.append((TOKENS, estimate.tokens, limits.monthly_tokens))
    if estimate.cost_usd and limits.monthly_cost_usd is not None:
        amounts.append((COST, estimate.cost_usd, limits.monthly_cost_usd))
    if estimate.credits:
        amounts.append((CREDITS, estimate.credits, None))
    return amounts


def _reading(usage: str, state: bytes) -> _Reading | None:
    row = decode(Stored("", None, usage, "", state))
    standing = row.state.standing
    if standing is None:
        return None
    opening = standing.opening
    start = max(opening.at, row.state.start)
    until = min(standing.until, row.state.end or standing.until)
    return _Reading(opening.period_start, start, until, ROOM.add(opening.usage, row.usage))


def check_hold(estimate: Estimate, options: PlanOptions, seconds: int | None) -> int:
    """How long a hold lives; refuses a hold of nothing."""
    if estimate.tokens is None and estimate.cost_usd is None and estimate.credits is None:
        raise ValidationError("hold: an estimate is needed to set something aside")
    return options.hold_ttl_seconds if seconds is None else seconds
