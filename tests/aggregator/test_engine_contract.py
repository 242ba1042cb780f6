"""What every engine does: the embedded one, and a server over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from aggregator.binding import Binder
from aggregator.cut import ListedCut, make_cut
from aggregator.filters import FilterLimits, parse_filter
from aggregator.query import MeterQuery, QueryLimits, TimeRange
from aggregator.rows import _select_cells
from aggregator.series import Series, series_key
from aggregator.sql import plan_query
from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.stores.engine import EngineError, UnreadableError
from aggregator.stores.migrations import migrate
from meterline.kernel.errors import ConflictError, UnavailableError, ValidationError
from meterline.kernel.meters import Aggregation
from meterline.kernel.windows import WindowSize
from tests.support.clickhouse import shared_options
from tests.support.usage import meter

AWKWARD = ["", "it's", "a\nb\tc", "back\\slash", "{p0:String}", "😀 é", "NULL", "%", '"', "\\N"]


@pytest.fixture(params=["embedded", "http"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ClickHouseEngine]:
    where = tmp_path / "store"
    if request.param == "http":
        one = ClickHouseEngine(shared_options(f"contract_{uuid4().hex}"))
    else:
        one = ClickHouseEngine(where)
    await one.prepare()
    try:
        yield one
    finally:
        await one.close()


async def test_values_come_back_as_they_are(engine: ClickHouseEngine) -> None:
    (row,) = await engine.query(
        "SELECT toUInt64(18446744073709551615), toDecimal256('1.000000000000000001', 18),"
        " toDateTime64('2026-03-29 01:30:00.123456', 6, 'UTC'), ['a', ''], NULL"
    )
    instant = datetime(2026, 3, 29, 1, 30, 0, 123456, UTC)
    assert row == (2**64 - 1, Decimal("1.000000000000000001"), instant, ["a", ""], None)
    assert row[2].tzinfo is UTC
    assert await engine.query("SELECT 1 WHERE 0") == []


@pytest.mark.parametrize("text", AWKWARD)
async def test_parameters_are_never_read_as_sql(engine: ClickHouseEngine, text: str) -> None:
    rows = await engine.query("SELECT {p:String}, {q:Array(String)}", {"p": text, "q": [text] * 2})
    assert rows == [(text, [text, text])]


async def test_answers_in_a_format_of_the_engine(engine: ClickHouseEngine) -> None:
    sql = "SELECT toUInt64(number) FROM numbers(3) WHERE number >= {low:UInt64}"
    assert await engine.fetch(sql, "RowBinary", {"low": 1}) == bytes([1, *[0] * 7, 2, *[0] * 7])
    assert await engine.fetch("SELECT 1 WHERE 0", "RowBinary") == b""


async def test_bytes_are_loaded_once_and_whole(engine: ClickHouseEngine) -> None:
    await engine.execute("CREATE TABLE t (a UInt64, b String) ENGINE = Memory")
    await engine.load("t", ("a", "b"), "JSONCompactEachRow", b'[1,"x\\ny"]\n[2,"FORMAT TSV"]')
    await engine.load("t", ("a",), "RowBinary", bytes([3, *[0] * 7]))
    rows = await engine.query("SELECT a, b FROM t ORDER BY a")
    assert rows == [(1, "x\ny"), (2, "FORMAT TSV"), (3, "")]


async def test_a_token_makes_a_retry_a_no_op(engine: ClickHouseEngine) -> None:
    await migrate(engine)
    insert = (
        "INSERT INTO points (series, subject, time, part, off, idx, exact, value, text, dims)"
        " SELECT 1, {s:String}, now64(6), 0, number, 1, 0, 2, '', [] FROM numbers(5)"
    )
    for token in ("one", "one", "other"):
        settings = {"insert_deduplication_token": token, "async_insert": 0}
        await engine.execute(insert, {"s": "alice"}, settings)
    assert await engine.query("SELECT count() FROM points") == [(10,)]
    assert await engine.query("SELECT toString(sum(sum)), sum(count) FROM totals") == [("20", 10)]


async def test_settings_belong_to_one_statement(engine: ClickHouseEngine) -> None:
    await engine.execute("CREATE TABLE t (a UInt64) ENGINE = Memory")
    insert = "INSERT INTO t SELECT number FROM numbers(100)"
    with pytest.raises(EngineError) as caught:
        await engine.execute(insert, None, {"max_rows_to_read": 10})
    assert caught.value.code == 158
    await engine.execute(insert)
    assert await engine.query("SELECT count() FROM t") == [(100,)]


async def test_what_cannot_be_read_says_so(engine: ClickHouseEngine) -> None:
    await engine.execute("CREATE TABLE t (a UInt64) ENGINE = Memory")
    with pytest.raises(UnreadableError):
        await engine.load("t", ("a",), "JSONCompactEachRow", b'[1]\n["x"]')
    # The next statement is not touched by what failed.
    assert await engine.query("SELECT count() FROM t") == [(0,)]


async def test_errors_are_short_whatever_was_asked(engine: ClickHouseEngine) -> None:
    secret = "very secret " * 10_000
    with pytest.raises(EngineError) as caught:
        await engine.query("SELECT * FROM absent WHERE a = {p:String}", {"p": secret})
    assert caught.value.code == 60
    assert len(str(caught.value)) < 400
    assert caught.value.__cause__ is None


async def test_reads_have_limits(tmp_path: Path, engine: ClickHouseEngine) -> None:
    remote = engine._remote is not None
    where = shared_options("default") if remote else tmp_path / "store"
    limited = ClickHouseEngine(where, query_timeout_seconds=0.2, query_memory_bytes=20_000_000)
    try:
        with pytest.raises(ValidationError, match="timeout_seconds"):
            await limited.query("SELECT sum(sleepEachRow(0.05)) FROM numbers(60)")
        with pytest.raises(UnavailableError, match="memory_bytes"):
            await limited.query("SELECT groupArray(number) FROM numbers(10000000)")
        assert await limited.query("SELECT 1") == [(1,)]
    finally:
        await limited.close()


async def test_statements_run_side_by_side(engine: ClickHouseEngine) -> None:
    await engine.execute("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    inserts = [engine.execute(f"INSERT INTO t VALUES ({n})") for n in range(20)]
    reads = [engine.query("SELECT {n:UInt64}", {"n": n}) for n in range(20)]
    done = await asyncio.gather(*inserts, *reads)
    assert done[20:] == [[(n,)] for n in range(20)]
    assert await engine.query("SELECT count(), sum(a) FROM t") == [(20, 190)]


async def test_kill_ends_quietly_when_nothing_runs(engine: ClickHouseEngine) -> None:
    await engine.execute("CREATE TABLE t (a UInt8) ENGINE = Memory", query_id=f"x-{uuid4()}")
    await engine.kill("x-")


async def test_migrations_are_applied_once_and_by_many(engine: ClickHouseEngine) -> None:
    names = ["0001_events", "0002_compact_parts"]
    done = await asyncio.gather(*(migrate(engine) for _ in range(3)))
    assert names in done
    assert await migrate(engine) == []
    await engine.execute("INSERT INTO schema_migrations (number, name) VALUES (9999, 'later')")
    with pytest.raises(ConflictError, match="9999"):
        await migrate(engine)


# The longest statements that the settings allow.

TOKENS = meter("tokens", model="$.model")
SERIES = Series(1, series_key(TOKENS), "ready", {}, {})


async def test_the_most_windows_of_odd_lengths(engine: ClickHouseEngine) -> None:
    limits = QueryLimits()
    zone = ZoneInfo("Europe/Budapest")
    end = datetime(2026, 4, 1, tzinfo=UTC)
    span = TimeRange(end - timedelta(minutes=limits.max_windows - 61), end)
    query = MeterQuery(range=span, since=span.begin, window=WindowSize.MINUTE, tz=zone)
    cut = make_cut(query, TimeRange(), limits)
    if not isinstance(cut, ListedCut):
        cut = ListedCut(tuple(range(10**15, 10**15 + limits.max_windows)))
    await migrate(engine)
    statement = plan_query(TOKENS, SERIES, query, cut, False, limits.max_rows).statement
    assert await engine.query(statement.sql, statement.params) == []


async def test_the_largest_filter(engine: ClickHouseEngine) -> None:
    limits = FilterLimits()
    # Four bytes a character, each with all that escaping can add.
    texts = [f"{n:04d}" + "\\'😀" * ((limits.max_text_length - 4) // 3) for n in range(100)]
    listed = parse_filter(texts, "f", limits)
    parts = [{"$like": text} for text in texts[: limits.max_values]]
    nested = parse_filter({"$or": parts}, "f", limits)
    await migrate(engine)
    for one in (listed, nested):
        query = MeterQuery(subjects=tuple(texts), by_subject=True, filters=(("model", one),))
        statement = plan_query(TOKENS, SERIES, query, None, False, 10).statement
        assert await engine.query(statement.sql, statement.params) == []


async def test_a_thousand_meters_in_one_statement(engine: ClickHouseEngine) -> None:
    await migrate(engine)
    keys = {f"group_{n}": f"$.nested.member_{n}" for n in range(5)}
    meters = [meter(f"m{n}", Aggregation.SUM, f"$.value_{n:04d}", **keys) for n in range(1000)]
    series = [Series(n, series_key(one), "ready", {}, {}) for n, one in enumerate(meters)]
    bind = Binder()
    sql = _select_cells("events", series, bind, "1")
    await engine.execute(
        "INSERT INTO events (id, data, time) VALUES ('a', '{\"value_0007\": 5}', now64(6))"
    )
    columns = "series, subject, time, part, off, idx, exact, value, text, dims"
    insert = f"INSERT INTO points ({columns})\n{sql} WHERE s.2 IS NOT NULL"
    await engine.execute(insert, bind.params)
    assert await engine.query("SELECT series, value FROM points") == [(7, Decimal(5))]
