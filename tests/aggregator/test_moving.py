"""Rows move from store to store in chunks of any size, each once, whatever was cut short."""

import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
import pytest_asyncio

from aggregator import moving
from aggregator.moved import Side
from aggregator.moving import Chunk, StoreMover
from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.stores.engine import Engine
from aggregator.stores.migrations import migrate
from aggregator.stores.state import MOVED
from tests.support.clickhouse import shared_options

EVENTS = 500
ERASED = 20
# Few namespaces, types and subjects, and times that repeat: only the place tells many apart.
_FILL = f"""
INSERT INTO events SELECT concat('n', toString(number % 3)), 0, intDiv(number, 7) + 1,
    number % 7 + 1, if(number % 50 = 0, 2, 0), 0, concat('id"', toString(number)), 'src/é', 't',
    concat('s', toString(number % 2)), fromUnixTimestamp64Micro(toInt64(number % 5) - 2, 'UTC'),
    1, '', if(number = 250, repeat('x', 9000), '{{"n": 1}}'), '', '', now64(3), now64(3)
FROM numbers({EVENTS + ERASED})"""
_KEYS = """
INSERT INTO keys SELECT reinterpretAsUInt128(sipHash128(ns, source, id)), sipHash64(type, subject,
    toUnixTimestamp64Micro(time), datacontenttype, data, data_base64, ext), part, off, idx
FROM events"""


@dataclass(frozen=True)
class Stores:
    """Two stores, one filled."""

    source: ClickHouseEngine
    target: ClickHouseEngine

    def mover(self, name: str) -> StoreMover:
        return StoreMover(self.source, self.target, homes, name)

    async def agree(self) -> bool:
        here, there = Side(self.source, moved=False), Side(self.target, moved=True)
        same_events = await here.events() == await there.events()
        return same_events and await here.keys() == await there.keys()


def homes(keys: Sequence[tuple[str, str, str]]) -> list[int]:
    return [len(name) % 4 for _, _, name in keys]


@pytest_asyncio.fixture
async def stores() -> AsyncIterator[Stores]:
    names = (f"moving_{secrets.token_hex(6)}" for _ in range(2))
    source, target = (ClickHouseEngine(shared_options(name)) for name in names)
    for engine in (source, target):
        await migrate(engine)
    await source.execute(_FILL)
    await source.execute(_KEYS)
    gone = f"off * 7 + idx > {EVENTS}"
    await source.execute(f"ALTER TABLE events DELETE WHERE {gone}", None, {"mutations_sync": 2})
    yield Stores(source, target)
    await source.close()
    await target.close()


async def move(mover: StoreMover, *, again: bool = False) -> list[Chunk]:
    chunks = []
    after = None
    while (chunk := await mover.next_chunk(after)) is not None:
        await mover.move_keys(chunk, again=again)
        await mover.move_events(chunk, again=again)
        chunks.append(chunk)
        after = chunk.through
    for one in await mover.erased_ranges(100):
        await mover.move_erased(one, again=again)
    return chunks


async def count(engine: Engine, table: str, where: str = "1") -> int:
    return int((await engine.query(f"SELECT count() FROM {table} WHERE {where}"))[0][0])


@pytest.mark.parametrize(("rows", "keys"), [(1_000, 1_000), (64, 30)])
async def test_every_row_moves_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, rows: int, keys: int
) -> None:
    monkeypatch.setattr(moving, "_ROWS", rows)
    monkeypatch.setattr(moving, "_KEYS", keys)
    mover = stores.mover("a")
    assert await mover.is_empty()
    kept = await count(stores.source, "events")
    chunks = await move(mover)
    assert sum(one.count for one in chunks) == kept
    assert all(one.count <= rows for one in chunks)
    assert await stores.agree()
    assert await count(stores.target, "events", f"part != {MOVED}") == 0
    # Keys are where copies of their events will be looked for, and before all of those.
    assert await count(stores.target, "keys", "off = 0 AND part < 4") == kept
    erased = await count(stores.source, "keys") - kept
    assert erased >= ERASED - 7
    assert await count(stores.target, "keys", f"part = {MOVED} AND off > 0") == erased
    # A token makes the same insert nothing.
    await move(mover)
    assert await stores.agree()
    await mover.clear()
    assert await mover.is_empty()


async def test_a_large_event_makes_a_small_chunk(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_BYTES", 8_000)
    chunks = await move(stores.mover("a"))
    assert min(one.count for one in chunks) == 1
    assert await stores.agree()


async def test_what_was_cut_short_is_completed_without_tokens(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_ROWS", 100)
    await move(stores.mover("a"))
    for table, some in (("events", "(off + idx) % 3 = 0"), ("keys", "content % 3 = 0")):
        await stores.target.execute(
            f"ALTER TABLE {table} DELETE WHERE {some}", None, {"mutations_sync": 2}
        )
    assert not await stores.agree()
    await move(stores.mover("its tokens are forgotten"), again=True)
    assert await stores.agree()
    # The control: without looking for what is there, all of it is there twice.
    await move(stores.mover("and again"), again=False)
    assert await count(stores.target, "events") == 2 * await count(stores.source, "events")
