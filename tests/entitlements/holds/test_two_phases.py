"""Two-phase holds as a table: a line a step, with what must come of it."""

from decimal import Decimal

import pytest

from entitlements.events import UsageEvent
from entitlements.holds.model import Hold, OnExcess, Place
from entitlements.holds.service import HoldRequest, accepted
from meterline.db.engine import Database
from meterline.kernel.errors import ConflictError, MeterlineError, NotFoundError, UsageLimitError
from tests.support.holding import NAMESPACE, Holding, holding

# step                                   | what comes of it
STORIES = {
    "confirmed in full": """
        grant 100
        open a 40                        | open
        standing                         | 40 0
        confirm a                        | confirmed 40
        standing                         | 0 40
        usage                            | 0
        settle                           |
        standing                         | 0 0
        usage                            | 40
    """,
    "confirmed in part, the rest is given back": """
        grant 100
        open a 40                        | open
        confirm a 15                     | confirmed 15
        standing                         | 0 15
        open b 85                        | open
        open c 1                         | 402
    """,
    "confirmed with nothing": """
        grant 100
        open a 100                       | open
        confirm a 0                      | confirmed 0
        standing                         | 0 0
        settle                           |
        usage                            | 0
        open b 100                       | open
    """,
    "released": """
        grant 100
        open a 100                       | open
        open b 1                         | 402
        release a                        | released
        standing                         | 0 0
        open c 100                       | open
    """,
    "identical retries answer the same": """
        grant 100
        open a 40                        | open
        open a 40                        | open
        standing                         | 40 0
        confirm a 15                     | confirmed 15
        confirm a 15                     | confirmed 15
        standing                         | 0 15
        settle                           |
        confirm a 15                     | confirmed 15
        standing                         | 0 0
        open b 10                        | open
        release b                        | released
        release b                        | released
        standing                         | 0 0
    """,
    "other content is a conflict that names the field": """
        grant 100
        open a 40                        | open
        open a 41                        | 409 amount
        open a 40 ttl=60                 | 409 ttlSeconds
        open a 40 excess=charge          | 409 onExcess
        open a 40 subject=bob            | 409 subject
        open a 40 model=m                | 409 model
        open a 40 note=x                 | 409 metadata
        confirm a 15                     | confirmed 15
        confirm a 16                     | 409 amount
        confirm a                        | 409 amount
        release a                        | 409 state
        open b 10                        | open
        release b                        | released
        confirm b                        | 409 state
    """,
    "a time to live is exact": """
        grant 100
        open a 40 ttl=1.5                | open
        wait 1.499999
        open b 61                        | 402
        open c 60                        | open
        release c                        | released
        wait 0.000001
        get a                            | expired
        confirm a                        | 409 state
        release a                        | 409 state
        open d 100                       | open
        standing                         | 100 0
        open a 40 ttl=1.5                | expired
    """,
    "an expired hold gives back what it held, whoever asks next": """
        grant 100
        open a 30 ttl=10                 | open
        open b 30 ttl=20                 | open
        open c 30 ttl=0                  | open
        wait 10
        open d 70                        | 402
        open e 40                        | open
        wait 10
        open f 31                        | 402
        open g 30                        | open
        standing                         | 100 0
    """,
    "no time to live is for ever": """
        grant 100
        open a 100 ttl=0                 | open
        wait 8000000
        confirm a                        | confirmed 100
    """,
    "what failed stays failed": """
        grant 100
        open a 101                       | 402
        grant 100
        open a 101                       | 402
        open a 100                       | 409 amount
        confirm a                        | 409 state
        release a                        | 409 state
        open b 101                       | open
    """,
    "more than held is denied": """
        grant 100
        open a 40                        | open
        confirm a 41                     | 409 amount
        standing                         | 40 0
        confirm a 40                     | confirmed 40
    """,
    "more than held is charged": """
        grant 100
        open a 40 excess=charge          | open
        confirm a 130                    | confirmed 130 excess 90
        standing                         | 0 130
        open b 1                         | 402
        settle                           |
        usage                            | 130
        open c 1                         | 402
        grant 31
        open d 1                         | open
        open e 1                         | 402
    """,
    "a soft limit does not refuse": """
        entitle soft
        grant 10 soft
        open a 40 subject=soft           | open
        confirm a subject=soft           | confirmed 40
        open b 1 subject=soft            | open
    """,
    "an allowance is the limit instead of the balance": """
        open a 40 allow=100              | open
        open b 61 allow=100              | 402
        open c 60 allow=100              | open
        confirm c                        | confirmed 60
        settle                           |
        open d 1 allow=100               | 402
        open e 1 allow=101               | open
    """,
    "usage that comes from elsewhere counts": """
        grant 100
        open a 40                        | open
        use 50
        open b 11                        | 402
        open c 10                        | open
        use 30
        standing                         | 50 0
        open d 1                         | 402
        confirm a                        | confirmed 40
        settle                           |
        usage                            | 120
    """,
    "nothing is held where nothing is": """
        open a 1 subject=nobody          | 404
        confirm nothing                  | 404
        release nothing                  | 404
        get nothing                      | 404
        open b 1                         | 402
    """,
    "a whole amount is exact to the last digit": """
        grant 0.3
        open a 0.1                       | open
        open b 0.200000000000000001      | 402
        open c 0.2                       | open
        confirm a                        | confirmed 0.1
        confirm c 0.000000000000000001   | confirmed 0.000000000000000001
        settle                           |
        usage                            | 0.100000000000000001
        open d 0.2                       | 402
        open e 0.199999999999999999      | open
    """,
}


@pytest.mark.parametrize("story", STORIES)
async def test_a_story(story: str, any_database: Database) -> None:
    async with holding(any_database) as on:
        await on.entitle()
        await on.entitle("bob")
        for line in STORIES[story].strip().splitlines():
            step, _, expected = (part.strip() for part in line.partition("|"))
            came = await _step(on, step)
            assert came == expected, f"{story}: {step}"


async def _step(on: Holding, step: str) -> str:
    name, *words = step.split()
    options = dict(word.split("=") for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    match name:
        case "entitle":
            await on.entitle(plain[0], soft=True)
        case "grant":
            await on.grant(plain[0], *plain[1:])
        case "wait":
            micros = int(Decimal(plain[0]) * 1_000_000)
            on.clock.advance(micros / 1_000_000)
        case "use":
            on.clock.advance(0.001)
            await _use(on, plain[0])
        case "settle":
            await on.settle()
        case "standing":
            return " ".join(await on.standing())
        case "usage":
            return f"{await on.usage():f}"
        case _:
            return await _on_hold(on, name, plain, options)
    return ""


async def _use(on: Holding, amount: str) -> None:
    number = len(on.sink.seen)
    event = UsageEvent(f"u{number}", "/app", "llm.usage", "ann", on.clock(), {"tokens": amount})
    await on.sink.write(NAMESPACE, [event])
    await on.sink.catch_up()


async def _on_hold(on: Holding, name: str, plain: list[str], options: dict[str, str]) -> str:
    place = Place(NAMESPACE, options.get("subject", "ann"), "tokens")
    try:
        match name:
            case "open":
                hold = accepted(await on.holds.request(_request(place, plain, options)))
            case "confirm":
                amount = Decimal(plain[1]) if len(plain) > 1 else None
                hold = await on.holds.confirm(NAMESPACE, plain[0], amount, place=place)
            case "release":
                hold = await on.holds.release(NAMESPACE, plain[0], place=place)
            case _:
                hold = await on.holds.get(NAMESPACE, plain[0], place)
    except ConflictError as error:
        return f"409 {error.extensions['field']}"
    except (UsageLimitError, NotFoundError) as error:
        return str(error.status)
    except MeterlineError as error:
        raise AssertionError(error.detail) from error
    return _told(hold)


def _request(place: Place, plain: list[str], options: dict[str, str]) -> HoldRequest:
    return HoldRequest(
        place,
        Decimal(plain[1]),
        plain[0],
        Decimal(options.get("ttl", "0")) if "ttl" in options else None,
        OnExcess(options.get("excess", "deny")),
        {"note": options["note"]} if "note" in options else None,
        Decimal(options["allow"]) if "allow" in options else None,
        model=options.get("model"),
    )


def _told(hold: Hold) -> str:
    told = hold.state.value
    if hold.confirmed is not None:
        told += f" {hold.confirmed:f}"
    return f"{told} excess {hold.excess:f}" if hold.excess else told
