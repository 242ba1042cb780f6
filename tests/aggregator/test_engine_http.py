"""What only an engine behind a network can do: be away, be slow, and lose an answer."""

from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from aggregator.stores import clickhouse
from aggregator.stores.clickhouse import ClickHouseEngine, ClickHouseOptions, _Remote
from aggregator.stores.engine import EngineError
from aggregator.stores.layout import SHARDING_KEYS, Layout
from aggregator.stores.migrations import migrate, migrations
from meterline.kernel.errors import UnavailableError, ValidationError
from tests.support.clickhouse import ClickHouseBridge

ROW = bytes([1, *[0] * 7])


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseBridge]:
    with ClickHouseBridge(tmp_path_factory.mktemp("bridge") / "store") as running:
        yield running


@pytest.fixture
async def engine(bridge: ClickHouseBridge) -> AsyncIterator[ClickHouseEngine]:
    bridge.inject()
    one = ClickHouseEngine(bridge.options(f"t{uuid4().hex}"))
    await one.prepare()
    await one.execute("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    try:
        yield one
    finally:
        await one.close()


async def _count(engine: ClickHouseEngine) -> int:
    return int((await engine.query("SELECT count() FROM t"))[0][0])


def _sent(bridge: ClickHouseBridge, beginning: str) -> int:
    return sum(one["sql"].startswith(beginning) for one in bridge.statements())


async def test_connects_when_the_server_is_there(tmp_path: Path) -> None:
    with ClickHouseBridge(tmp_path / "store") as bridge:
        options = bridge.options("later")
        bridge.stop()
        engine = ClickHouseEngine(options)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="does not answer"):
                await engine.query("SELECT 1")
        with pytest.raises(UnavailableError):
            await migrate(engine)
        bridge.start()
        await migrate(engine)
        await engine.execute("CREATE TABLE m (a UInt64) ENGINE = Memory")
        await engine.load("m", ("a",), "RowBinary", ROW)
        bridge.kill()
        with pytest.raises(UnavailableError):
            await engine.load("m", ("a",), "RowBinary", ROW)
        bridge.start()
        assert await engine.query("SELECT count() FROM m") == [(0,)]
        assert await migrate(engine) == []
        await engine.close()


@pytest.mark.parametrize("kind", ["refuse", "lose"])
@pytest.mark.parametrize("way", ["load", "execute"])
async def test_what_writes_is_sent_once(
    bridge: ClickHouseBridge, engine: ClickHouseEngine, kind: str, way: str
) -> None:
    await engine.load("t", ("a",), "RowBinary", ROW)
    before = _sent(bridge, "INSERT INTO t")
    bridge.inject({"kind": kind, "match": "INSERT INTO t", "times": 1})
    with pytest.raises(UnavailableError):
        await _insert(engine, way)
    assert _sent(bridge, "INSERT INTO t") == before + 1
    assert await _count(engine) == (1 if kind == "refuse" else 2)


async def _insert(engine: ClickHouseEngine, way: str) -> None:
    if way == "load":
        await engine.load("t", ("a",), "RowBinary", ROW)
    else:
        await engine.execute("INSERT INTO t SELECT {a:UInt64}", {"a": 5})


async def test_control_the_driver_alone_sends_rows_twice(
    bridge: ClickHouseBridge, engine: ClickHouseEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_it_is(self: _Remote, body: bytes) -> bytes:
        return body

    monkeypatch.setattr(_Remote, "block", as_it_is)
    bridge.inject({"kind": "lose", "match": "INSERT INTO t", "times": 1})
    await _insert(engine, "load")
    assert await _count(engine) == 2


async def test_reads_are_tried_again(bridge: ClickHouseBridge, engine: ClickHouseEngine) -> None:
    await engine.query("SELECT 1")
    bridge.inject({"kind": "lose", "match": "SELECT count()", "times": 1})
    assert await _count(engine) == 0
    bridge.inject({"kind": "refuse", "match": "SELECT count()", "times": -1})
    with pytest.raises(UnavailableError):
        await _count(engine)


@pytest.mark.parametrize("code", [202, 210, 225, 236, 242, 252, 285, 319, 394, 516, 745, 999])
async def test_errors_that_pass_are_unavailable(
    bridge: ClickHouseBridge, engine: ClickHouseEngine, code: int
) -> None:
    for kind in ("fail", "undone"):
        bridge.inject({"kind": kind, "match": "SELECT count()", "code": code, "times": 1})
        with pytest.raises(UnavailableError) as caught:
            await _count(engine)
        assert isinstance(caught.value.__cause__, EngineError)
        assert caught.value.__cause__.code == code


async def test_a_write_that_takes_too_long_may_come_again(
    bridge: ClickHouseBridge, engine: ClickHouseEngine
) -> None:
    bridge.inject({"kind": "fail", "match": "INSERT INTO t", "code": 159, "times": 1})
    with pytest.raises(UnavailableError):
        await _insert(engine, "execute")


@pytest.mark.parametrize("freeze", [False, True])
async def test_gives_up_on_a_server_that_does_not_answer(
    bridge: ClickHouseBridge, monkeypatch: pytest.MonkeyPatch, freeze: bool
) -> None:
    monkeypatch.setattr(clickhouse, "_MARGIN_SECONDS", 0)
    bridge.inject()
    engine = ClickHouseEngine(
        bridge.options(statement_timeout_seconds=1), query_timeout_seconds=1.0
    )
    await engine.query("SELECT 1")
    await engine.execute("SELECT 1")
    if freeze:
        bridge.freeze()
    else:
        bridge.inject({"kind": "slow", "match": "SELECT 2", "seconds": 1.5, "times": 2})
    try:
        for call in (engine.query("SELECT 2"), engine.execute("SELECT 2")):
            with pytest.raises(UnavailableError, match="does not answer"):
                await call
    finally:
        if freeze:
            bridge.thaw()
    assert await engine.query("SELECT 1") == [(1,)]
    await engine.close()


async def test_the_server_is_told_what_a_statement_may_do(
    bridge: ClickHouseBridge, engine: ClickHouseEngine
) -> None:
    options = bridge.options(statement_timeout_seconds=77, insert_quorum=0)
    told = ClickHouseEngine(options, query_timeout_seconds=9.5, query_memory_bytes=10**9)
    await told.query("SELECT 'read'")
    await told.execute("SELECT 'write'", query_id="sink-0-7")
    await told.kill("sink-0-")
    await told.close()
    heard = {one["sql"].partition("\n")[0]: one for one in bridge.statements()}
    read, write = heard["SELECT 'read'"], heard["SELECT 'write'"]
    assert read["readonly"] == "2"
    assert read["settings"]["max_execution_time"] == "9.5"
    assert read["settings"]["max_memory_usage"] == "1000000000"
    assert write["readonly"] is None
    assert write["settings"]["max_execution_time"] == "77"
    assert write["query_id"] == "sink-0-7"
    assert {read["settings"]["session_timezone"], read["settings"]["async_insert"]} == {"UTC", "0"}
    assert any(sql.startswith("KILL QUERY WHERE startsWith") for sql in heard)


async def test_reads_cannot_write(engine: ClickHouseEngine) -> None:
    with pytest.raises(EngineError) as caught:
        await engine.query("INSERT INTO t VALUES (1)")
    assert caught.value.code == 164
    assert await _count(engine) == 0


async def test_a_wrong_password_waits_to_be_mended(bridge: ClickHouseBridge) -> None:
    engine = ClickHouseEngine(ClickHouseOptions(bridge.url, user=bridge.user, password="wrong"))
    with pytest.raises(UnavailableError) as caught:
        await engine.query("SELECT 1")
    assert "wrong" not in f"{caught.value} {caught.value.__cause__}"
    assert "secret" not in repr(bridge.options())
    await engine.close()


async def test_answers_can_be_compressed(bridge: ClickHouseBridge) -> None:
    engine = ClickHouseEngine(bridge.options(compress=True))
    assert await engine.query("SELECT sum(number) FROM numbers(10)") == [(45,)]
    assert len(await engine.query("SELECT number FROM numbers(5000)")) == 5000
    await engine.close()


@pytest.mark.parametrize("url", ["ftp://host", "localhost:8123", "http://u:p@host", ""])
def test_an_address_must_be_one(url: str) -> None:
    with pytest.raises(ValidationError):
        ClickHouseOptions(url)


# The layout of tables.

_OF_ONE_SERVER = "67f7ede6593b730243e36ba94cd4103b69104b173eced3601a4d26a32a7932ff"
"""What version 0.1 ran, statement by statement: stores that it made stay as they are."""


def test_one_server_gets_the_tables_it_always_had() -> None:
    (first, *_) = migrations()
    text = ";\n".join(first.statements(Layout()))
    assert sha256(text.encode()).hexdigest() == _OF_ONE_SERVER


def test_a_cluster_replicates_every_table() -> None:
    layout = Layout("main", replica_path="/mine/{shard}/{table}", deduplication_window=99)
    text = "\n".join(one for each in migrations() for one in each.statements(layout))
    assert text.count("ON CLUSTER 'main'") == text.count("CREATE ") + text.count("ALTER ")
    assert text.count("MergeTree(") == len(SHARDING_KEYS)
    assert text.count("ReplicatedMergeTree('/mine/{shard}/{table}', '{replica}')") == 4
    assert "ReplicatedAggregatingMergeTree('/mine/{shard}/{table}', '{replica}')" in text
    assert "non_replicated" not in text
    assert text.count("replicated_deduplication_window = 99,") == len(SHARDING_KEYS)
    assert layout.change("points") == "points ON CLUSTER 'main'"
    assert "_local" not in text


async def test_the_engine_can_parse_what_a_cluster_runs(engine: ClickHouseEngine) -> None:
    layout = Layout("main", sharded=True)
    statements = [one for each in migrations() for one in each.statements(layout)]
    statements += [layout.over_shards(table) or "" for table in SHARDING_KEYS]
    statements += [
        f"DELETE FROM {layout.change('points')} WHERE series = 1",
        f"ALTER TABLE {layout.change('events')} DELETE WHERE ns = 'a'",
        f"KILL QUERY{layout.on_cluster} WHERE startsWith(query_id, 'a') SYNC",
        f"CREATE DATABASE IF NOT EXISTS `a`{layout.on_cluster}",
    ]
    for statement in statements:
        rows = await engine.query(f"EXPLAIN AST {statement}")
        assert rows, statement


async def test_a_sharded_store_reads_and_writes_through_its_distributed_tables(
    tmp_path: Path,
) -> None:
    with ClickHouseBridge(tmp_path / "store", cluster="two") as bridge:
        engine = ClickHouseEngine(bridge.options("one"))
        assert await migrate(engine) == ["0001_events", "0002_compact_parts"]
        tables = dict(
            await engine.query("SELECT name, engine FROM system.tables WHERE database = 'one'")
        )
        for table in SHARDING_KEYS:
            assert tables[table] == "Distributed"
            assert tables[f"{table}_local"].endswith("MergeTree")
        insert = (
            "INSERT INTO points (series, subject, time, part, off, idx, exact, value, text, dims)"
            " SELECT 1, 's', now64(6), 0, number, 1, 0, 2, '', [] FROM numbers(5)"
        )
        for token in ("a", "a", "b"):
            await engine.execute(insert, None, {"insert_deduplication_token": token})
        local = "SELECT sum(sum), sum(count) FROM"
        for table in ("totals", "totals_local"):
            assert await engine.query(f"{local} {table}") == [(20, 10)]
        await engine.execute(
            f"DELETE FROM {engine.layout.change('points')} WHERE off > 0",
            None,
            {"lightweight_deletes_sync": 2},
        )
        assert await engine.query("SELECT count() FROM points") == [(2,)]
        await engine.close()


@pytest.mark.parametrize(
    "wrong",
    [{"sharded": True}, {"cluster": "a'b"}, {"cluster": "c", "replica_path": "/x'"}],
)
def test_a_layout_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Layout(**wrong)
