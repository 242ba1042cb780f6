"""Processes that race for one balance never spend more than there is."""

import asyncio
import subprocess
import sys
from decimal import Decimal

from sqlalchemy import text

from entitlements.holds.limits import HoldLimits
from entitlements.holds.model import Place, State
from entitlements.holds.service import HoldRequest, accepted
from meterline.db.engine import Database
from tests.entitlements.holds.racer import PLACE
from tests.support.database import opened
from tests.support.holding import NAMESPACE, holding

BALANCE = 1000
PROCESSES, CLIENTS = 2, 32


def _race(url: str, *options: str) -> int:
    command = [sys.executable, "-m", "tests.entitlements.holds.racer", url, str(CLIENTS), *options]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    got = 0
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for racer in racers:
            out, _ = racer.communicate(timeout=120)
            assert racer.returncode == 0
            got += int(out)
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    return got


async def _ready(database: Database) -> None:
    async with holding(database) as on:
        await on.entitle()
        await on.grant(BALANCE + 1)
        # The row that everybody decides on; and a hold, so that there is an account.
        accepted(await on.holds.request(HoldRequest(PLACE, Decimal(1), ttl_seconds=Decimal(0))))


async def _held(database: Database) -> tuple[int, str]:
    async with database.read() as conn:
        count = await conn.scalar(text("SELECT count(*) FROM holds WHERE state = 'open'"))
        held = await conn.scalar(text("SELECT held FROM hold_accounts"))
    return int(count), str(held)


async def test_sixty_four_clients_of_two_processes_get_exactly_the_balance(any_url: str) -> None:
    async with opened(any_url) as database:
        await _ready(database)
        assert _race(any_url) == BALANCE
        assert await _held(database) == (BALANCE + 1, str(BALANCE + 1))


async def test_groups_in_a_row_decide_on_what_those_before_have_left(any_url: str) -> None:
    """Groups of three, so that most follow one another in one go; some have to begin anew."""
    subjects, balance = [f"subject-{number}" for number in range(5)], 7
    async with opened(any_url) as database, holding(database, limits=HoldLimits(max_group=3)) as on:
        for subject in subjects:
            await on.entitle(subject)
            await on.grant(balance, subject)

        async def use(subject: str, number: int) -> str:
            place = Place(NAMESPACE, subject, "tokens")
            # Each id is asked for twice.
            name = f"{subject}-{number // 2}"
            hold = await on.holds.request(HoldRequest(place, Decimal(1), name))
            if hold.state is State.OPEN:
                hold = await on.holds.confirm(NAMESPACE, name, place=place)
            return hold.state.value

        found = await asyncio.gather(
            *(use(subject, number) for number in range(20) for subject in subjects)
        )
        for subject in subjects:
            assert await on.standing(subject) == ("0", str(balance))
        await on.settle()
        for subject in subjects:
            assert await on.standing(subject) == ("0", "0")
            assert await on.usage(subject) == balance
    assert set(found) == {"confirmed", "failed"}


async def test_without_the_locks_they_get_more(any_url: str) -> None:
    async with opened(any_url) as database:
        await _ready(database)
        # One may have it all before the other one begins.
        for _ in range(5):
            if _race(any_url, "unlocked") > BALANCE:
                return
            async with holding(database) as on:
                await on.grant(BALANCE)
    raise AssertionError("they never met")
