"""What became of each entitlement of a case: its grants over time, as the application tells it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from meterline.kernel.errors import MeterlineError
from meterline.kernel.instants import format_instant, parse_instant
from meterline.kernel.windows import WindowSize
from meterline.server.scenario.cases import Case, Json, Step, events_of, renamed
from meterline.server.scenario.player import Player
from meterline.server.scenario.world import new_world

_MANY_EVENTS = 120
_GRID = 160
_MILLISECOND = timedelta(milliseconds=1)
_LONG_BEFORE = timedelta(days=45)
_SIZES = ((timedelta(days=4), WindowSize.HOUR), (timedelta(days=420), WindowSize.DAY))


@dataclass(frozen=True, slots=True)
class Point:
    """The state at an instant."""

    at: datetime
    balances: Mapping[str, Decimal]
    overage: Decimal


@dataclass(frozen=True, slots=True)
class GrantNote:
    """A grant, in the order in which grants burn."""

    name: str
    amount: Decimal
    priority: int
    effective_at: datetime
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used in a window."""

    start: datetime
    end: datetime
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Story:
    """A metered entitlement over time."""

    subject: str
    feature: str
    start: datetime
    end: datetime
    window: WindowSize
    grants: Sequence[GrantNote]
    points: Sequence[Point]
    usage: Sequence[Usage]
    resets: Sequence[datetime]
    last: Json
    """The value at the end."""


@dataclass(frozen=True, slots=True)
class Told:
    """A case, what came of it, and the stories of its entitlements."""

    case: Case
    result: Json
    stories: Sequence[Story]


async def tell(cases: Sequence[Case]) -> list[Told]:
    """Play the cases, and ask for everything that a picture of them needs."""
    told = []
    async with new_world(cases[0].begin) as world:
        for number, case in enumerate(cases):
            player = Player(world, case, number)
            result = await player.play()
            stories = [
                await _story(player, case, made)
                for made in player.entitlements
                if made["type"] == "metered"
            ]
            told.append(Told(case, result, [one for one in stories if one is not None]))
    return told


async def _story(player: Player, case: Case, made: Mapping[str, Any]) -> Story | None:
    clock = player.world.clock
    path = f"/api/v1/subjects/{quote(made['subjectKey'], safe='')}/entitlements/{made['id']}"
    start, end = _span(case, made)
    clock.now = max(clock.now, end)
    now = await player.world.call("GET", path)
    if "activeTo" in now:
        end = min(end, parse_instant(now["activeTo"]))
    if end <= start:
        return None
    window = next((size for most, size in _SIZES if end - start <= most), WindowSize.MONTH)
    span = [("from", format_instant(start)), ("to", format_instant(end))]
    try:
        history = await player.world.call(
            "GET", f"{path}/history", params=[*span, ("windowSize", window.value)]
        )
        segments = renamed(history["burndownHistory"], player.names)
        points = list(_points_of(segments))
        for at in _instants(player, case, made["subjectKey"], start, end):
            value = await player.world.call(
                "GET", f"{path}/value", params=[("time", format_instant(at))]
            )
            points.append(_point(at, renamed(value, player.names)))
        grants = await player.world.call("GET", f"{path}/grants")
    except MeterlineError:
        return None  # what cannot be asked about has no picture
    return Story(
        subject=made["subjectKey"],
        feature=str(player.names[made["featureKey"]]),
        start=start,
        end=end,
        window=window,
        grants=_in_order(renamed(grants, player.names)),
        # Of points at one instant, what ends there was told first, and what begins there last.
        points=sorted(points, key=lambda point: point.at),
        usage=[_usage(one) for one in history["windowedHistory"]],
        resets=[parse_instant(one["period"]["to"]) for one in segments if "endsInReset" in one],
        last=await _last(player, path, end),
    )


async def _last(player: Player, path: str, end: datetime) -> Json:
    at = end - _MILLISECOND
    told = await player.world.call("GET", f"{path}/value", params=[("time", format_instant(at))])
    value: Json = renamed(told, player.names)
    return value


def _span(case: Case, made: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """From the first to the last thing that happens while usage is measured."""
    measured = parse_instant(made["measureUsageFrom"])
    times = [time for step in case.steps for time in _times(step) if time >= measured]
    first = min(times, default=measured)
    start = measured if first - measured <= _LONG_BEFORE else first
    return start, max(times, default=measured)


def _times(step: Step) -> Iterator[datetime]:
    """When a step is about; the clock only when it names nothing else."""
    given = step.given
    if step.op == "grant":
        given = given["grant"]
    named = [given.get(name) for name in ("time", "at", "from", "to", "effectiveAt")]
    found = [parse_instant(text) for text in named if isinstance(text, str)]
    if found or step.op in ("entitlement", "event"):
        yield from found
    elif step.clock is not None:
        yield step.clock


def _instants(
    player: Player, case: Case, subject: str, start: datetime, end: datetime
) -> Iterator[datetime]:
    """Before and after each event; when there are many, evenly spread."""
    events = [
        parse_instant(event["time"])
        for step in case.steps
        if step.op in ("event", "events") and step.subject == subject
        for event in events_of(step, case, "")
    ]
    inside = sorted({at for at in events if start <= at < end - 2 * _MILLISECOND})
    if len(inside) > _MANY_EVENTS:
        yield from (start + (end - start) * i / _GRID for i in range(1, _GRID))
        return
    for at in inside:
        if at > start:
            yield at
        yield at + _MILLISECOND


def _points_of(segments: Sequence[Mapping[str, Any]]) -> Iterator[Point]:
    for one in segments:
        for side, end in (("from", "Start"), ("to", "End")):
            overage = one["overage"] if side == "to" else one["overageAtStart"]
            balances = _exact(one[f"grantBalancesAt{end}"])
            yield Point(parse_instant(one["period"][side]), balances, Decimal(overage))


def _point(at: datetime, value: Mapping[str, Any]) -> Point:
    return Point(at, _exact(value.get("grantBalances", {})), Decimal(value.get("overage", 0)))


def _exact(amounts: Mapping[str, Any]) -> dict[str, Decimal]:
    return {name: Decimal(amount) for name, amount in amounts.items()}


def _usage(window: Mapping[str, Any]) -> Usage:
    period = window["period"]
    start, end = parse_instant(period["from"]), parse_instant(period["to"])
    return Usage(start, end, Decimal(window["usage"]))


def _in_order(grants: Sequence[Mapping[str, Any]]) -> list[GrantNote]:
    notes = []
    for one in grants:
        ends = [parse_instant(one[name]) for name in ("expiresAt", "voidedAt") if name in one]
        effective_at = parse_instant(one["effectiveAt"])
        notes.append(
            GrantNote(
                one["id"],
                Decimal(one["amount"]),
                one["priority"],
                effective_at,
                min(ends, default=None),
            )
        )

    def key(note: GrantNote) -> tuple[int, bool, datetime]:
        return note.priority, note.ends_at is None, note.ends_at or note.effective_at

    return sorted(notes, key=key)
