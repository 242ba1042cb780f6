"""A population of events that holds every odd thing that a meter query has to get right."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from aggregator.reference import PlainEvent
from meterline.eventlog.port import EventLog
from meterline.kernel.instants import format_instant
from meterline.kernel.windows import offset_changes
from tests.support.usage import canonical, send

VALUES = [
    "0", "1", "2", "10", "-3", "1.5", "1.50", "-0.25", "0.1", "0.2", "99999999999999999999",
    "-99999999999999999999.999999999999999999", "0.000000000000000001", "9007199254740993", "1e3",
    "1E-3", "-0", "12345678.12345", '"7"', '"+4"', '".5"', '"1."', '"1e2"', '"007"', '" 5"', '""',
    '"NaN"', '"abc"', '"1,5"', '"0x10"', "null", "true", "false", "{}", '{"a":1}', "[1]", "1e400",
    "123456789012345678901", "0.1234567890123456789", '"\\u0031"', '"caf\\u00e9"', '"café"',
    '"0.12345678901234567891"', '"123456789012345678901"', "1.0", '"1.0"', '"true"', '"{x"',
]  # fmt: skip
DIMS = [
    '"gpt"', '"gpt-4"', '"GPT"', '"g_t"', '"g%t"', '"100%"', '""', '"é"', '"\\u00e9"', "1.50",
    "1.5", "1e1", "10", "true", "false", "null", "{}", '{"x":1}', "[1,2]", '"[1,2]"', '"{x"',
    '"it\'s"', '"a\\"b"', '"a\\\\b"', '"a\\nb"', '"; DROP TABLE events --"', '"😀"', "-0", "0",
]  # fmt: skip
SUBJECTS = ["alice", "bob", "carol", "o'hara", "ünï", "{p0:String}", "=cmd()", "%"]
ZONES = [
    "UTC", "Europe/Budapest", "America/Los_Angeles", "Asia/Kolkata", "Asia/Kathmandu",
    "Australia/Lord_Howe", "Pacific/Apia", "America/Sao_Paulo", "America/St_Johns",
    "America/Toronto", "Africa/Monrovia", "Europe/Amsterdam",
]  # fmt: skip
_YEARS = [1919, 1937, 1987, 2011, 2018, 2025, 2026]


@dataclass(frozen=True)
class Population:
    """Events as they go into the log, and as the reference sees them but for their place."""

    canonical: list[dict[str, Any]]
    plain: list[PlainEvent]

    async def send_to(self, log: EventLog, batches: int) -> list[PlainEvent]:
        """Append everything in about so many batches; answers the events with their places."""
        size = -(-len(self.canonical) // batches)
        placed = []
        for start in range(0, len(self.canonical), size):
            offset = await send(log, self.canonical[start : start + size])
            placed += [
                PlainEvent(event.subject, event.time, (0, offset, index + 1), event.data)
                for index, event in enumerate(self.plain[start : start + size])
            ]
        return placed


def times(seed: Random) -> list[datetime]:
    """Instants near changes of clocks, months, days and minutes, and at the ends of time."""
    found = [
        datetime(1900, 1, 1, tzinfo=UTC),
        datetime(2199, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
    ]
    for year in _YEARS:
        begin = datetime(year, 1, 1, tzinfo=UTC)
        for zone in ZONES:
            for change, _ in offset_changes(begin, begin + timedelta(days=366), ZoneInfo(zone)):
                found += [change + timedelta(microseconds=seed.choice(_NEAR)) for _ in range(4)]
    found += [
        datetime(2026, 3, seed.randint(1, 9), seed.randint(0, 23), seed.randint(0, 59),
                 seed.randint(0, 59), tzinfo=UTC)
        for _ in range(600)
    ]  # fmt: skip
    return found


_NEAR = [-86_400_000_000, -3_600_000_000, -60_000_000, -1_000_000, -1, 0, 1, 1_800_000_000] + [
    3_600_000_000, 30_000_000, 86_399_999_999,
]  # fmt: skip


def population(seed: int, prefix: str = "") -> Population:
    """About 1,000 events; the same seed gives the same."""
    draw = Random(seed)
    events, plain = [], []
    for number, time in enumerate(times(draw)):
        subject, data = draw.choice(SUBJECTS), _data(draw)
        event = canonical(f"{prefix}{number}", data, subject=subject, time=format_instant(time))
        events.append(event)
        plain.append(PlainEvent(subject, time, (0, 0, 0), data))
    return Population(events, plain)


def _data(draw: Random) -> str:
    if draw.random() < 0.02:
        return draw.choice(["null", '"text"', "[1,2]", "12", "{}"])
    value = draw.choice(VALUES if draw.random() < 0.5 else VALUES[:12])
    members = {
        "model": draw.choice(DIMS),
        "tokens": value,
        "user-tier": draw.choice(['{"name":"free"}', '{"name":"pro"}', '"pro"', "{}", "[]"]),
        "list": draw.choice(['["x",2]', "[]", '{"first":"wrong"}', '"x"', "[[1]]", "[1e2]"]),
    }
    if draw.random() < 0.1:
        members.pop(draw.choice(sorted(members)))
    names = draw.sample(sorted(members), len(members))
    space = draw.choice(["", " "])
    texts = [f"{json.dumps(name)}:{space}{members[name]}" for name in names]
    if draw.random() < 0.03:
        texts.append('"tokens":5')
    return "{" + f",{space}".join(texts) + "}"
