"""Whether the deployment has what the folder has."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from aggregator.checkup import check_store
from aggregator.moved import Events, Figures, Side
from aggregator.registry import SeriesRegistry
from aggregator.series import series_key
from aggregator.stores.meters import SqlMeterStore
from meterline.kernel.clock import Clock
from meterline.kernel.meters import Meter
from meterline.kernel.quantity import format_number
from meterline.server.moving.tables import differing_tables
from meterline.server.moving.telling import Tell
from meterline.server.stores import Stores

_NOTHING = Events(0, 0, 0)


@dataclass(frozen=True, slots=True)
class ComparedMeter:
    """A meter's figures on both sides; `moved` is None where it was changed or deleted since."""

    meter: Meter
    folder: Figures
    moved: Figures | None

    @property
    def agrees(self) -> bool:
        """Whether they are the same, and of the same events."""
        return self.moved is None or self.folder == self.moved


@dataclass(frozen=True, slots=True)
class ComparedNamespace:
    """A namespace's events on both sides."""

    namespace: str
    folder: Events
    moved: Events

    @property
    def agrees(self) -> bool:
        """Whether they are the same events."""
        return self.folder == self.moved


@dataclass(frozen=True, slots=True)
class Report:
    """What the comparison of both sides found."""

    meters: Sequence[ComparedMeter]
    namespaces: Sequence[ComparedNamespace]
    others: Sequence[str]
    """Other differences, for people."""

    @property
    def agrees(self) -> bool:
        """Whether all is the same."""
        meters = all(one.agrees for one in self.meters)
        return meters and all(one.agrees for one in self.namespaces) and not self.others


async def compare(
    source: Stores, target: Stores, tell: Tell, clock: Clock, *, finished: bool
) -> Report:
    """Compare both sides, which must be at rest.

    Once the move has `finished` only what was moved is compared, as the deployment goes its own
    way: nobody can say then what else should be the same.
    """
    here = Side(source.store.sink, moved=False)
    there = Side(target.store.sink, moved=True)
    meters = await _meters(source, target, here, there, tell, clock)
    folder, moved = await here.events(), await there.events()
    namespaces = [
        ComparedNamespace(ns, folder.get(ns, _NOTHING), moved.get(ns, _NOTHING))
        for ns in sorted({*folder, *moved})
    ]
    others = []
    if (one := await here.keys()) != (other := await there.keys()):
        others.append(f"keys of events: {one.count} in the folder, {other.count} moved")
    if not finished:
        others += await _tables(source, target)
        others += await _store(target, clock)
        others += [
            f"the meter {compared.meter.slug} is missing"
            for compared in meters
            if compared.moved is None
        ]
    return Report(meters, namespaces, others)


async def _meters(
    source: Stores, target: Stores, here: Side, there: Side, tell: Tell, clock: Clock
) -> list[ComparedMeter]:
    wanted = await SqlMeterStore(source.database).all()
    known = {meter.id: meter for meter in await SqlMeterStore(target.database).all()}
    old = SeriesRegistry(source.database, source.store.sink, clock)
    new = SeriesRegistry(target.database, target.store.sink, clock)
    tell.begin("meters compared", len(wanted))
    compared = []
    for meter in sorted(wanted, key=lambda one: (one.namespace, one.slug)):
        folder = await here.figures(meter, await old.get(meter))
        moved = None
        if (other := known.get(meter.id)) is not None and _asks(other) == _asks(meter):
            moved = await there.figures(meter, await new.get(meter))
        compared.append(ComparedMeter(meter, folder, moved))
        tell.advance(1)
    return compared


def _asks(meter: Meter) -> tuple[object, ...]:
    """What a meter's figures follow from."""
    return series_key(meter), meter.aggregation, meter.event_from


async def _tables(source: Stores, target: Stores) -> list[str]:
    async with source.database.read() as one, target.database.read() as other:
        return [f"table {name}" for name in await differing_tables(one, other)]


async def _store(target: Stores, clock: Clock) -> list[str]:
    """Whether the new store agrees with itself: totals with points, points with events."""
    registry = SeriesRegistry(target.database, target.store.sink, clock)
    await registry.refresh()
    wrong = await check_store(target.store.sink, registry.live())
    return [f"event store, {one.what}: {one.found}" for one in wrong]


def shown(value: Decimal | None) -> str:
    """A meter's value for people, with all of its digits."""
    return "–" if value is None else format_number(value)
