"""Rates over databases and processes."""

import asyncio
import subprocess
import sys
from random import Random

import pytest

from entitlements.plans.limiter import RateLimiter
from entitlements.plans.options import PlanOptions
from entitlements.plans.rates import RateLimits
from entitlements.plans.stores import rates as store
from meterline.db.engine import Database
from meterline.kernel.errors import UnavailableError
from tests.entitlements.plans.racer import LIMITS
from tests.entitlements.plans.test_windows import Oracle
from tests.support.clock import FixedClock
from tests.support.server import cli_environment

_LIMIT = 500


def race(url: str, subject: str, *options: str) -> int:
    """How many requests two processes with 32 clients each get through together."""
    command = [sys.executable, "-m", "tests.entitlements.plans.racer", url, "32"]
    command += [subject, *options]
    racers = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=cli_environment({}),
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        for racer in racers:
            assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        return sum(int(racer.communicate(timeout=120)[0]) for racer in racers)
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
            for pipe in (racer.stdin, racer.stdout):
                if pipe is not None:
                    pipe.close()


def test_two_processes_admit_exactly_the_limit(any_url: str) -> None:
    assert LIMITS.requests[1] == _LIMIT
    assert race(any_url, "ann") == _LIMIT


def test_without_locks_they_would_admit_more(postgres_url: str) -> None:
    # One may have it all before the other one begins.
    assert any(race(postgres_url, f"subject-{n}", "unlocked") > _LIMIT for n in range(5))


async def test_it_is_the_oracle_whatever_it_keeps(any_database: Database) -> None:
    """Bursts of several subjects, over chunks that are kept, read again and forgotten."""
    seed = 20_261
    choice, clock = Random(seed), FixedClock()
    limits = RateLimits((90, 200, None), None)
    oracles = {f"s{number}": Oracle() for number in range(3)}
    limiter = RateLimiter(any_database, clock, PlanOptions())
    try:
        for _ in range(40):
            clock.advance(choice.choice([0, 0.5, 7, 29, 60, 600, 3_600]))
            if choice.random() < 0.2:
                # Another process, which remembers nothing.
                await limiter.close()
                limiter = RateLimiter(any_database, clock, PlanOptions())
            now = int(clock().timestamp() * 1_000_000)
            asked = [choice.choice(list(oracles)) for _ in range(choice.randint(1, 80))]
            got = await asyncio.gather(
                *(limiter.admit("default", one, limits, 0, "") for one in asked)
            )
            expected = [oracles[one].ask((90, 200, None), now) for one in asked]
            assert [one.admitted for one in got] == expected, seed
            peeked = await limiter.peek("default", "s0", limits, 0)
            assert [one.used for one in peeked.states] == [
                oracles["s0"].used(60_000_000, now),
                oracles["s0"].used(3_600_000_000, now),
            ]
    finally:
        await limiter.close()


async def test_a_look_uses_nothing(any_database: Database) -> None:
    limiter = RateLimiter(any_database, FixedClock(), PlanOptions())
    limits = RateLimits((1, None, None), 100)
    for _ in range(3):
        assert (await limiter.peek("default", "ann", limits, 100)).admitted
    assert (await limiter.admit("default", "ann", limits, 100, "a")).admitted
    assert not (await limiter.peek("default", "ann", limits, 0)).admitted
    await limiter.close()


async def test_an_erased_subject_starts_afresh(any_database: Database) -> None:
    limiter = RateLimiter(any_database, FixedClock(), PlanOptions())
    limits = RateLimits((200, None, None), None)
    for _ in range(2):
        got = await asyncio.gather(
            *(limiter.admit("default", "ann", limits, 0, "") for _ in range(210))
        )
        assert sum(one.admitted for one in got) == 200
        async with any_database.transaction() as conn:
            await limiter.erase(conn, "default", "ann")
    await limiter.close()


@pytest.mark.parametrize("tokens", [0, 60])
async def test_recorded_tokens_count_for_a_minute(any_database: Database, tokens: int) -> None:
    clock = FixedClock()
    limiter = RateLimiter(any_database, clock, PlanOptions())
    limits = RateLimits((None, None, None), 100)
    assert (await limiter.admit("default", "ann", limits, tokens, "a")).admitted
    await limiter.recorded("default", "ann", 90)
    answer = await limiter.admit("default", "ann", limits, 11, "b")
    assert not answer.admitted and answer.states[0].used == 90
    clock.advance(60.3)
    assert (await limiter.admit("default", "ann", limits, 11, "b")).admitted
    await limiter.close()


async def test_limiters_that_take_turns_know_of_each_other(any_database: Database) -> None:
    limiters = [RateLimiter(any_database, FixedClock(), PlanOptions()) for _ in range(2)]
    limits = RateLimits((10, None, None), None)
    got = [
        (await limiters[number % 2].admit("default", "ann", limits, 0, "")).admitted
        for number in range(12)
    ]
    assert got == [True] * 10 + [False] * 2
    for limiter in limiters:
        await limiter.close()


async def test_what_was_not_committed_is_not_remembered(
    any_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = RateLimiter(any_database, FixedClock(), PlanOptions())
    limits = RateLimits((3, None, None), None)
    assert (await limiter.admit("default", "ann", limits, 0, "")).admitted

    def broken(_states: object) -> None:
        raise UnavailableError("the disk is full (injected)")

    with monkeypatch.context() as patched:
        patched.setattr(store, "save", broken)
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await limiter.admit("default", "ann", limits, 0, "")
    got = [(await limiter.admit("default", "ann", limits, 0, "")).admitted for _ in range(3)]
    assert got == [True, True, False]
    await limiter.close()
