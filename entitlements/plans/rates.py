"""All rates of a subject at once: admitted by every one of them, or by none. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from entitlements.plans.tokens import TokenLog
from entitlements.plans.windows import RequestLog, WindowState, look

REQUESTS = ("requestsPerMinute", "requestsPerHour", "requestsPerDay")
TOKENS = "tokensPerMinute"
SECONDS = {"requestsPerMinute": 60, "requestsPerHour": 3_600, "requestsPerDay": 86_400, TOKENS: 60}


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Limits of requests in a minute, an hour and a day, and of tokens in a minute."""

    requests: tuple[int | None, int | None, int | None]
    tokens: int | None

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self.tokens is not None or any(one is not None for one in self.requests)

    @property
    def windows(self) -> Sequence[int]:
        """The windows of requests that have a limit."""
        return [window for window, limit in enumerate(self.requests) if limit is not None]


@dataclass(frozen=True, slots=True)
class RateState:
    """A rate as it is at an instant. `free_in` is in microseconds, 0 when the request fits."""

    name: str
    limit: int
    used: int
    free_in: int
    reset_in: int
    """Microseconds until the first of what is counted leaves the window; 0 when nothing is."""


@dataclass(slots=True)
class RateLog:
    """What rates need to know of one subject."""

    requests: RequestLog
    tokens: TokenLog


@dataclass(frozen=True, slots=True)
class RateAnswer:
    """Whether a request was admitted, and how full the windows are with it."""

    admitted: bool
    states: Sequence[RateState]

    @property
    def tightest(self) -> RateState | None:
        """Of those that refuse, the one that does so for the longest."""
        refusing = [one for one in self.states if one.free_in]
        return max(refusing, key=lambda one: one.free_in) if refusing else None


def decide(
    log: RateLog,
    limits: RateLimits,
    now: int,
    *,
    tokens: int = 0,
    check_id: str = "",
    consume: bool = True,
) -> RateAnswer:
    """Admit a request if every rate does; only then, and if it shall consume, the log changes.

    Without an estimate of tokens, the minute must have room for one.
    """
    windows = look(log.requests, limits.requests, now)
    states = [_request_state(log.requests, one, now) for one in windows]
    if limits.tokens is not None:
        log.tokens.forget(now)
        states.append(_token_state(log.tokens, limits.tokens, tokens, now))
    if any(one.free_in for one in states):
        return RateAnswer(False, states)
    if consume:
        if windows:
            log.requests.add(now)
        if limits.tokens is not None:
            log.tokens.estimate(check_id, tokens, now)
        states = [_with(one, tokens if one.name == TOKENS else 1) for one in states]
    return RateAnswer(True, states)


def _request_state(log: RequestLog, one: WindowState, now: int) -> RateState:
    name = REQUESTS[one.window]
    window = SECONDS[name] * 1_000_000
    reset = log.oldest(one.window) + window - now if one.used else 0
    return RateState(name, one.limit, one.used, one.free_in, reset)


def _token_state(log: TokenLog, limit: int, tokens: int, now: int) -> RateState:
    used = log.used
    starts = [one[0] for one in log.recorded[:1]] + [one[1] for one in log.in_flight[:1]]
    reset = max(min(starts) + 60_000_000 - now, 0) if starts else 0
    return RateState(TOKENS, limit, used, log.free_in(max(tokens, 1), limit, now), reset)


def _with(state: RateState, more: int) -> RateState:
    window = SECONDS[state.name] * 1_000_000
    reset = state.reset_in or (window if more else 0)
    return RateState(state.name, state.limit, state.used + more, 0, reset)
