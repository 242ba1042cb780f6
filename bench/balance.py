"""The balance engine alone: a year of daily resets, 50 grants, 10,000 minutes with usage.

python -m bench.balance
"""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from random import Random
from statistics import median
from time import perf_counter

from entitlements.balance import Allowance, Grant, Terms, balance_at, history, plan_history
from meterline.kernel.periods import Period, Recurrence, parse_interval
from meterline.kernel.windows import WindowSize, load_zone

START = datetime(2025, 1, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
GRANTS, MINUTES, ROUNDS = 50, 10_000, 20


class MinuteUsage:
    """Usage by minute, with running totals: a span costs two look-ups."""

    def __init__(self, minutes: dict[datetime, Decimal]) -> None:
        self._times = sorted(minutes)
        self._totals = list(accumulate((minutes[t] for t in self._times), initial=Decimal(0)))

    def read(self, spans: Sequence[Period]) -> list[Decimal]:
        times, totals = self._times, self._totals
        return [
            totals[bisect_left(times, s.end)] - totals[bisect_left(times, s.start)] for s in spans
        ]


def allowance(random: Random) -> Allowance:
    """50 grants of all kinds over a year of daily periods."""
    grants = tuple(
        Grant(
            id=f"grant-{n}",
            amount=Decimal(random.randint(1, 10**6)) / 1000,
            effective_at=START + timedelta(minutes=random.randint(0, 200_000)) * (n % 2),
            created_at=START,
            priority=random.randint(1, 5),
            expires_at=START + timedelta(days=random.randint(200, 500)) if n % 3 else None,
            max_rollover=Decimal(1000),
            recurrence=Recurrence(START, parse_interval("P1M")) if n % 5 == 0 else None,
        )
        for n in range(GRANTS)
    )
    return Allowance(Terms(START, Recurrence(START, parse_interval("P1D"))), grants)


def usage(random: Random) -> dict[datetime, Decimal]:
    minutes = random.sample(range(365 * 24 * 60), MINUTES)
    return {START + timedelta(minutes=m): Decimal(random.randint(1, 10**5)) for m in minutes}


def main() -> None:
    """Print the median milliseconds of each question."""
    random = Random(1)
    given, minutes = allowance(random), usage(random)
    end = START + YEAR

    def value() -> None:
        balance_at(given, end, MinuteUsage(minutes).read)

    def days() -> None:
        planned = plan_history(given, START, end, WindowSize.DAY, load_zone("UTC"))
        history(planned, MinuteUsage(minutes).read(planned.spans))

    for name, question in (("value", value), ("daily history", days)):
        taken = []
        for _ in range(ROUNDS):
            before = perf_counter()
            question()
            taken.append((perf_counter() - before) * 1000)
        print(f"{name}: median {median(taken):.1f} ms, best {min(taken):.1f} ms")


if __name__ == "__main__":
    main()
