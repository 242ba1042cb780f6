"""Rates of requests, against an oracle that remembers everything."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitlements.plans.rates import RateLimits, RateLog, decide
from entitlements.plans.stores.rates import log_of, state_of
from entitlements.plans.tokens import TokenLog
from entitlements.plans.windows import CHUNK, WINDOWS, MissingChunk, RequestLog, look

MINUTE, HOUR, DAY = WINDOWS


class Oracle:
    """Every instant at which a request was admitted."""

    def __init__(self) -> None:
        self.admitted: list[int] = []

    def ask(self, limits: Sequence[int | None], now: int) -> bool:
        if any(
            limit is not None and self.used(window, now) >= limit
            for window, limit in zip(WINDOWS, limits, strict=True)
        ):
            return False
        self.admitted.append(now)
        return True

    def used(self, window: int, now: int) -> int:
        return sum(1 for at in self.admitted if at > now - window)


class Kept:
    """A log that is written and read again at each step, and keeps chunks aside as a store does."""

    def __init__(self) -> None:
        self.state = state_of(1, RateLog(RequestLog(), TokenLog()))
        self.chunks: dict[int, Sequence[int]] = {}

    def ask(self, limits: tuple[int | None, int | None, int | None], now: int) -> bool:
        born, log = log_of(self.state)
        while True:
            try:
                answer = decide(log, RateLimits(limits, None), now)
                break
            except MissingChunk as missing:
                log.requests.chunks[missing.number] = self.chunks[missing.number]
        for number in log.requests.spilled:
            self.chunks[number] = log.requests.chunks[number]
        windows = RateLimits(limits, None).windows
        below = log.requests.needless(windows)
        self.chunks = {n: one for n, one in self.chunks.items() if n >= below}
        log.requests.base = max(log.requests.base, below)
        if answer.admitted:
            self.state = state_of(born, log)
            assert all(one.used <= one.limit for one in answer.states)
        else:
            assert answer.tightest is not None
        return answer.admitted


LIMITS = st.tuples(
    st.none() | st.integers(0, 150),
    st.none() | st.integers(0, 300),
    st.none() | st.integers(0, 400),
)
STEPS = st.lists(
    st.tuples(
        st.integers(1, 90),
        st.sampled_from(
            [
                0,
                1,
                1_000_000,
                MINUTE // 7,
                MINUTE - 1,
                MINUTE,
                MINUTE + 1,
                HOUR // 3,
                HOUR,
                DAY // 2,
            ]
        ),
    ),
    max_size=25,
)


@given(LIMITS, STEPS)
def test_it_admits_exactly_what_the_oracle_admits(
    limits: tuple[int | None, int | None, int | None], steps: list[tuple[int, int]]
) -> None:
    oracle, kept, now = Oracle(), Kept(), 1_700_000_000_000_000
    for burst, pause in steps:
        now += pause
        for _ in range(burst):
            assert kept.ask(limits, now) == oracle.ask(limits, now)
            now += 1


@given(st.lists(st.tuples(LIMITS, st.integers(1, 60), st.integers(0, HOUR)), max_size=12))
def test_changed_limits_never_admit_more_than_they_say(
    steps: list[tuple[tuple[int | None, int | None, int | None], int, int]],
) -> None:
    """A window that had no limit before may have forgotten; one that is watched has not."""
    kept, now = Kept(), 1_700_000_000_000_000
    watched = Oracle()
    for (minute, _, _), burst, pause in steps:
        now += pause
        for _ in range(burst):
            limits = (10 if minute is None else minute, None, None)
            assert kept.ask(limits, now) == watched.ask(limits, now)
            now += 1


def test_a_slot_is_free_exactly_a_window_after_it_was_taken() -> None:
    log = RateLog(RequestLog(), TokenLog())
    limits = RateLimits((2, None, None), None)
    assert decide(log, limits, 1_000_000).admitted
    assert decide(log, limits, 31_000_000).admitted
    refused = decide(log, limits, 1_000_000 + MINUTE - 1)
    assert not refused.admitted
    assert refused.tightest is not None and refused.tightest.free_in == 1
    assert decide(log, limits, 1_000_000 + MINUTE).admitted
    assert not decide(log, limits, 1_000_000 + MINUTE + 1).admitted


def test_what_one_limit_refuses_uses_nothing_of_another() -> None:
    log = RateLog(RequestLog(), TokenLog())
    limits = RateLimits((5, 1, None), 100)
    assert decide(log, limits, 1, tokens=10).admitted
    before = state_of(1, log)
    for second in range(1, 30):
        assert not decide(log, limits, 1 + second * 1_000_000, tokens=10).admitted
    born, was = log_of(before)
    assert log.requests.count == was.requests.count == 1
    assert log.tokens.used == 10


@pytest.mark.parametrize("limit", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_limit_of_any_size_is_exact(limit: int) -> None:
    log = RequestLog()
    for number in range(limit):
        assert look(log, (limit, None, None), number)[0].free_in == 0
        log.add(number)
    assert look(log, (limit, None, None), limit)[0].free_in == MINUTE - limit
    assert look(log, (limit, None, None), MINUTE - 1)[0].free_in == 1
    assert look(log, (limit, None, None), MINUTE)[0].free_in == 0


@given(
    st.integers(1, 1_000),
    st.lists(
        st.tuples(
            st.sampled_from(["ask", "record", "settle"]),
            st.integers(0, 400),
            st.integers(0, 40_000_000),
        ),
        max_size=40,
    ),
)
def test_a_minute_of_tokens_never_passes_its_limit_by_what_was_estimated(
    limit: int, steps: list[tuple[str, int, int]]
) -> None:
    """Admitted estimates and recorded tokens of any last minute: asked only while they fit."""
    log, now = TokenLog(), 1_700_000_000_000_000
    taken: list[tuple[int, int]] = []
    for kind, tokens, pause in steps:
        now += pause
        log.forget(now)
        exact = sum(n for at, n in taken if at > now - MINUTE)
        assert log.used >= exact
        if kind == "ask":
            wait = log.free_in(max(tokens, 1), limit, now)
            if wait == 0:
                assert exact + tokens <= limit
                log.estimate("x", tokens, now)
                taken.append((now, tokens))
        else:
            log.record(tokens, now)
            taken.append((now, tokens))


def test_a_recorded_call_takes_the_place_of_its_estimate() -> None:
    log = TokenLog()
    log.estimate("a", 100, 1_000_000)
    log.estimate("b", 50, 2_000_000)
    log.settle(7, 3_000_000, "b")
    assert log.used == 107
    log.settle(1, 3_000_000)
    assert log.used == 8
    log.forget(3_250_000 + MINUTE)
    assert log.used == 0
