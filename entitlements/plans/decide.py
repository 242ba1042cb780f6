"""The order and the words of refusals. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from entitlements.access import Access
from entitlements.balance.exact import ROOM, ZERO
from entitlements.plans.model import Ban, Estimate, Limits, LimitState, Outcome, Refusal
from entitlements.plans.rates import SECONDS, RateLimits, RateState
from meterline.kernel.periods import Interval, Period, shift
from meterline.kernel.quantity import format_number

MONTHLY_TOKENS = "monthlyTokenLimit"
MONTHLY_COST = "monthlyCostLimitUsd"
CREDITS = "credits"
_MONTH = Interval(months=1)
_MICROS = 1_000_000


def month_of(now: datetime) -> Period:
    """The calendar month that holds an instant of UTC."""
    return _month(now.year, now.month)


@lru_cache(24)
def _month(year: int, month: int) -> Period:
    start = datetime(year, month, 1, tzinfo=UTC)
    return Period(start, shift(start, _MONTH, 1))


def rate_limits(limits: Limits) -> RateLimits:
    """The rates among the limits."""
    requests = (limits.requests_per_minute, limits.requests_per_hour, limits.requests_per_day)
    return RateLimits(requests, limits.tokens_per_minute)


def banned(ban: Ban) -> Refusal:
    """The refusal of a banned subject."""
    detail = f"the subject is banned: {ban.reason}" if ban.reason else "the subject is banned"
    return Refusal(Outcome.BANNED, "banned", detail)


def monthly_states(
    limits: Limits, tokens: Decimal, cost_usd: Decimal, now: datetime
) -> list[LimitState]:
    """The limits of the month, with what was used of them."""
    left = seconds_up(month_of(now).end - now)
    states = []
    if limits.monthly_tokens is not None:
        states.append(LimitState(MONTHLY_TOKENS, limits.monthly_tokens, tokens, left))
    if limits.monthly_cost_usd is not None:
        states.append(LimitState(MONTHLY_COST, limits.monthly_cost_usd, cost_usd, left))
    return states


def over_usage(states: Sequence[LimitState], estimate: Estimate) -> Refusal | None:
    """The first monthly limit that a request would pass."""
    wanted = {MONTHLY_TOKENS: estimate.tokens, MONTHLY_COST: estimate.cost_usd}
    for state in states:
        if not fits(state.limit, state.current, wanted[state.name]):
            return usage_refusal(state, wanted[state.name])
    return None


def fits(limit: Decimal, current: Decimal, wanted: Decimal | None) -> bool:
    """Whether an amount fits under a limit; when none is known, or 0, anything must be left."""
    if not wanted:
        return current < limit
    return ROOM.add(current, wanted) <= limit


def usage_refusal(state: LimitState, wanted: Decimal | None) -> Refusal:
    """A monthly limit that a request would pass."""
    used = f"{format_number(state.current)} of {format_number(state.limit)} are used this month"
    more = f", {format_number(wanted)} more do not fit" if wanted else ""
    return Refusal(
        Outcome.USAGE,
        state.name,
        f"{state.name}: {used}{more}",
        state.limit,
        state.current,
        state.resets_in_seconds,
    )


def without_access(feature: str, access: Access | None) -> Refusal | None:
    """Why a feature cannot be used; None when it can."""
    if access is None:
        detail = f"the subject is not entitled to the feature {feature}"
        return Refusal(Outcome.FEATURE, feature, detail)
    figures = access.metered
    if figures is None:
        if access.has_access:
            return None
        return Refusal(Outcome.FEATURE, feature, f"there is no access to the feature {feature}")
    is_soft = access.has_access and figures.balance <= 0
    if access.has_access and (is_soft or figures.available > 0):
        return None
    current = ROOM.add(figures.usage, figures.held)
    detail = f"the feature {feature} is used up"
    return Refusal(Outcome.USAGE, feature, detail, figures.total_available_grant_amount, current)


def without_credits(access: Access | None, wanted: Decimal | None) -> Refusal | None:
    """Whether credits are missing: for `wanted`, or any when that is not known, or 0."""
    figures = access.metered if access else None
    available = figures.available if figures else ZERO
    if (access and access.has_access and figures is None) or (
        available >= wanted if wanted else available > 0
    ):
        return None
    limit = figures.total_available_grant_amount if figures else ZERO
    current = ROOM.add(figures.usage, figures.held) if figures else ZERO
    more = f", and {format_number(wanted)} are needed" if wanted else ""
    detail = f"{CREDITS}: {format_number(available)} are available{more}"
    return Refusal(Outcome.USAGE, CREDITS, detail, limit, current)


def over_rate(state: RateState, tokens: int) -> Refusal:
    """The refusal of a rate to a request that is estimated to use so many tokens."""
    unit = "tokens" if state.name.startswith("tokens") else "requests"
    window = SECONDS[state.name]
    detail = f"{state.name}: {state.used} of {state.limit} {unit} in the last {window} s"
    wanted = max(tokens, 1) if unit == "tokens" else 1
    if wanted > state.limit:
        # Waiting does not help; what would is another limit, or a smaller request.
        detail += f"; {wanted} never fit"
    return Refusal(
        Outcome.RATE,
        state.name,
        detail,
        Decimal(state.limit),
        Decimal(state.used),
        max(-(-state.free_in // _MICROS), 1),
        window,
    )


def rate_states(states: Sequence[RateState]) -> list[LimitState]:
    """Rates as callers see them."""
    return [
        LimitState(
            one.name,
            Decimal(one.limit),
            Decimal(one.used),
            -(-one.reset_in // _MICROS),
            SECONDS[one.name],
        )
        for one in states
    ]


def seconds_up(delta: timedelta) -> int:
    """Whole seconds, never too few."""
    return -(-delta // timedelta(seconds=1))
