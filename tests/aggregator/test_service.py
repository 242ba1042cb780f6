"""Meters from their making to their end, over a running sink."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aggregator.query import QueryInput, QueryLimits
from aggregator.service import MeterChange, MeterLimits, MeterService
from aggregator.stores.meters import SqlMeterStore
from meterline.kernel.errors import ConflictError, NotFoundError, ValidationError
from meterline.kernel.meters import Meter, MeterSpec, validate_meter
from tests.support.clock import FixedClock
from tests.support.usage import Rig, canonical, running_sink, send

NS = "default"


def spec(slug: str, aggregation: str = "SUM", **fields: Any) -> MeterSpec:
    fields.setdefault("value_property", None if aggregation == "COUNT" else "$.tokens")
    return validate_meter(slug=slug, aggregation=aggregation, event_type="llm.usage", **fields)


@dataclass
class Server:
    rig: Rig
    meters: MeterService
    batches: int = 0

    async def values(self, slug: str, **given: Any) -> list[tuple[dict[str, str], Decimal]]:
        result = await self.meters.query(NS, slug, QueryInput(**given))
        return [(dict(row.group_by), row.value) for row in result.rows]

    async def send(self, *data: str, **attributes: Any) -> None:
        self.batches += 1
        names = (f"{self.batches}-{number}" for number in range(len(data)))
        events = [
            canonical(name, text, **attributes) for name, text in zip(names, data, strict=True)
        ]
        await send(self.rig.log, events)
        await self.rig.settle()


@asynccontextmanager
async def server(path: Path, limits: QueryLimits | None = None) -> AsyncIterator[Server]:
    async with running_sink(path) as rig:
        meters = MeterService(
            SqlMeterStore(rig.database),
            rig.sink.registry,
            rig.engine,
            FixedClock(),
            limits,
            MeterLimits(max_meters=5),
        )
        yield Server(rig, meters)


async def test_a_new_meter_counts_what_is_stored(tmp_path: Path) -> None:
    async with server(tmp_path) as one:
        await one.send('{"tokens": 1.5}', '{"tokens": "2"}', '{"tokens": 1e-18}')
        made = await one.meters.create(NS, spec("tokens"))
        total = Decimal("3.500000000000000001")
        assert await one.values("tokens") == [({}, total)]
        await one.rig.filled()
        assert one.meters.status(made).state == "ready"
        assert one.meters.status(made).progress == 1.0
        assert await one.values("tokens") == [({}, total)]
        assert await one.values(made.id) == [({}, total)]


async def test_another_group_by_is_right_at_once_and_after_its_back_fill(tmp_path: Path) -> None:
    async with server(tmp_path) as one:
        await one.meters.create(NS, spec("tokens"))
        await one.send('{"tokens": 1, "model": "a"}', '{"tokens": 2, "model": "b"}')
        with pytest.raises(ValidationError, match="invalid group by: model"):
            await one.values("tokens", group_by=["model"])
        change = MeterChange(group_by={"model": "$.model"})
        await one.meters.update(NS, "tokens", change)
        expected = [({"model": "a"}, Decimal(1)), ({"model": "b"}, Decimal(2))]
        assert await one.values("tokens", group_by=["model"]) == expected
        await one.rig.filled()
        assert await one.values("tokens", group_by=["model"]) == expected
        # A new name for the same path is the same series.
        await one.meters.update(NS, "tokens", MeterChange(group_by={"kind": "$.model"}))
        assert [one.state for one in one.rig.sink.registry.live()] == ["ready"]
        assert await one.values("tokens", group_by=["kind"]) == [
            ({"kind": "a"}, Decimal(1)),
            ({"kind": "b"}, Decimal(2)),
        ]


async def test_meters_share_series_until_the_last_one_goes(tmp_path: Path) -> None:
    async with server(tmp_path) as one:
        await one.meters.create(NS, spec("total"))
        await one.meters.create(NS, spec("mean", "AVG"))
        await one.send('{"tokens": 1}', '{"tokens": 2}')
        assert len(one.rig.sink.registry.live()) == 1
        await one.meters.delete(NS, "total")
        assert await one.values("mean") == [({}, Decimal("1.5"))]
        await one.meters.delete(NS, "mean")
        assert one.rig.sink.registry.live() == []
        with pytest.raises(NotFoundError):
            await one.values("mean")
        await one.meters.create(NS, spec("mean", "AVG"))
        assert await one.values("mean") == [({}, Decimal("1.5"))]


async def test_a_slug_is_taken_once_in_a_namespace(tmp_path: Path) -> None:
    async with server(tmp_path) as one:
        await one.meters.create(NS, spec("tokens"))
        with pytest.raises(ConflictError):
            await one.meters.create(NS, spec("tokens", "MAX"))
        await one.send('{"tokens": 4}')
        assert await one.values("tokens") == [({}, Decimal(4))]
        await one.meters.create("other", spec("tokens"))
        assert [len(await one.meters.list(ns)) for ns in (NS, "other", "third")] == [1, 1, 0]
        assert (await one.meters.query("other", "tokens", QueryInput())).rows == []


async def test_meters_of_a_namespace_are_limited(tmp_path: Path) -> None:
    async with server(tmp_path) as one:
        for number in range(5):
            await one.meters.create(NS, spec(f"m{number}"))
        with pytest.raises(ValidationError, match="at most 5 meters"):
            await one.meters.create(NS, spec("m5", "COUNT"))
        assert {series.kind for series in one.rig.sink.registry.live()} == {"number"}


async def test_events_before_the_start_do_not_count(tmp_path: Path) -> None:
    async with server(tmp_path) as one:
        from_noon = "2026-02-01T12:00:00Z"
        await one.meters.create(
            NS, spec("late", event_from=FixedClock().now.replace(month=2, hour=12))
        )
        await one.send('{"tokens": 1}', time="2026-02-01T11:59:59.999999Z", subject="early")
        await one.send('{"tokens": 2}', time=from_noon, subject="noon")
        assert await one.values("late") == [({}, Decimal(2))]
        assert await one.values("late", begin="2026-01-01T00:00:00Z") == [({}, Decimal(2))]
        assert await one.values("late", end="2026-02-01T00:00:00Z") == []
        assert await one.meters.subjects(NS, "late", None, None) == ["noon"]


async def test_declared_meters_are_made_so(tmp_path: Path) -> None:
    async with server(tmp_path) as one:
        await one.meters.create(NS, spec("other"))
        await one.send('{"tokens": 3}', '{"tokens": 5}')
        diff = await one.meters.reconcile(NS, [spec("tokens"), spec("calls", "COUNT")])
        assert diff.created == ["tokens", "calls"]
        declared = [spec("tokens", "MAX", name="Most"), spec("calls", "COUNT")]
        diff = await one.meters.reconcile(NS, declared)
        assert (diff.created, diff.unchanged) == ([], ["calls"])
        assert diff.changed == {"tokens": ["name", "aggregation"]}
        assert await one.values("tokens") == [({}, Decimal(5))]
        assert len(await one.meters.list(NS)) == 3


async def test_long_answers_are_an_error_not_cut(tmp_path: Path) -> None:
    async with server(tmp_path, QueryLimits(max_rows=3, max_listed=3)) as one:
        await one.meters.create(NS, spec("calls", "COUNT", group_by={"n": "$.n"}))
        await one.send(*(f'{{"n": {number}}}' for number in range(3)))
        assert len(await one.values("calls", group_by=["n"])) == 3
        assert await one.meters.group_values(NS, "calls", "n", None, None) == ["0", "1", "2"]
        await one.send('{"n": 3}')
        with pytest.raises(ValidationError, match="more than 3 rows"):
            await one.values("calls", group_by=["n"])
        with pytest.raises(ValidationError, match="more than 3 values"):
            await one.meters.group_values(NS, "calls", "n", None, None)


async def test_a_portal_query_is_about_its_subject_alone(tmp_path: Path) -> None:
    async with server(tmp_path) as one:
        await one.meters.create(NS, spec("calls", "COUNT"))
        await one.send("{}", "{}", subject="me")
        await one.send("{}", subject="you")
        given = [("subject", "you"), ("subject[]", "you")]
        result = await one.meters.query_from_params(NS, "calls", given, subject="me")
        assert [(row.subject, row.value) for row in result.rows] == [("me", Decimal(2))]


async def test_a_meter_that_others_need_stays_as_it_is(tmp_path: Path) -> None:
    seen: list[tuple[str, Meter | None]] = []

    async def in_use(before: Meter, after: Meter | None) -> str | None:
        seen.append((before.slug, after))
        return "somebody needs it" if after is None or not after.group_by else None

    async with running_sink(tmp_path) as rig:
        store = SqlMeterStore(rig.database)
        meters = MeterService(store, rig.sink.registry, rig.engine, FixedClock(), in_use=in_use)
        made = await meters.create(NS, spec("tokens", group_by={"model": "$.model"}))
        with pytest.raises(ConflictError, match="the meter tokens is needed: somebody needs it"):
            await meters.delete(NS, "tokens")
        with pytest.raises(ConflictError, match="needed"):
            await meters.update(NS, "tokens", MeterChange(group_by={}))
        with pytest.raises(ConflictError, match="needed"):
            await meters.reconcile(NS, [spec("tokens")])
        assert await meters.get(NS, "tokens") == made
        changed = await meters.update(NS, "tokens", MeterChange(name="Tokens"))
        assert changed.name == "Tokens"
        assert seen[-1] == ("tokens", changed)
