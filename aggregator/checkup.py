"""Whether the tables of the event store agree with one another: for people who must trust a sum."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aggregator.series import Series
from aggregator.stores.engine import Engine


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two tables that should say the same, and what each says."""

    what: str
    found: str


async def check_store(engine: Engine, series: Iterable[Series]) -> Sequence[Disagreement]:
    """Every way in which the store contradicts itself. Reads all of it; the sink must stand still.

    Events are stored once; each has a key; what a series counts is in its points, and the totals
    are those of the points.
    """
    wrong = await _events(engine)
    for one in series:
        wrong += await _points_and_totals(engine, one)
        if one.state == "ready":
            wrong += await _points_and_events(engine, one)
    return wrong


async def _events(engine: Engine) -> list[Disagreement]:
    wrong = []
    ((rows, places),) = await engine.query(
        "SELECT count(), uniqExact((part, off, idx)) FROM events"
    )
    if rows != places:
        wrong.append(Disagreement("events", f"{rows} rows for {places} places in the log"))
    ((counted, keys),) = await engine.query(
        "SELECT countIf(status = 0), uniqExactIf((ns, source, id), status = 0) FROM events"
    )
    if counted != keys:
        wrong.append(Disagreement("events", f"{counted} counted for {keys} different keys"))
    ((missing,),) = await engine.query(
        "SELECT count() FROM events"
        " WHERE reinterpretAsUInt128(sipHash128(ns, source, id)) NOT IN (SELECT h FROM keys)"
    )
    if missing:
        wrong.append(Disagreement("keys", f"missing for {missing} events"))
    return wrong


async def _points_and_totals(engine: Engine, series: Series) -> list[Disagreement]:
    (points,) = await engine.query(
        "SELECT toString(sum(toDecimal256(value, 18))), count() FROM points"
        f" WHERE series = {series.id}"
    )
    (totals,) = await engine.query(
        f"SELECT toString(sum(sum)), sum(count) FROM totals WHERE series = {series.id}"
    )
    if points == totals:
        return []
    text = f"points say {points[0]} of {points[1]} events, totals {totals[0]} of {totals[1]}"
    return [Disagreement(f"series {series.id}", text)]


async def _points_and_events(engine: Engine, series: Series) -> list[Disagreement]:
    ((events,),) = await engine.query(
        "SELECT count() FROM events WHERE status = 0 AND ns = {ns:String} AND type = {type:String}",
        {"ns": series.namespace, "type": series.event_type},
    )
    ((read,),) = await engine.query(
        f"SELECT (SELECT count() FROM points WHERE series = {series.id})"
        f" + (SELECT count() FROM faults WHERE series = {series.id})"
    )
    if events == read:
        return []
    return [Disagreement(f"series {series.id}", f"{read} points and faults for {events} events")]
