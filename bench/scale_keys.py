"""What remembering the keys of events costs: `python -m bench.scale_keys [--keys 1000000]`.

A sink tells duplicates by a filter over all keys that were ever stored in its partitions. Here are
its memory and speed by the number of keys; how long a sink that takes a partition over learns
them from the store; and what a plan's look-up costs until then, when every key is looked up.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aggregator.dedupe import SeenKeys
from aggregator.seen import learn_keys
from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.stores.migrations import migrate
from bench.cluster import load_average

_PLAN = 100_000
_CHUNK = 1_000_000
_FILL = """
INSERT INTO keys (h, content, part, off, idx)
SELECT reinterpretAsUInt128(sipHash128(number)), number, 0, number + 1, 1
FROM numbers({start:UInt64}, {count:UInt64}) ORDER BY 1"""
_LOOK_UP = """
SELECT count() FROM keys WHERE h IN (
    SELECT reinterpretAsUInt128(sipHash128(number, 1)) FROM numbers({count:UInt64}))"""
_BYTES = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'keys'"


def resident_mib() -> float:
    """The memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def remember(count: int) -> dict[str, float]:
    """Fill a filter, and ask it about a plan of new keys."""
    chance = np.random.default_rng(1)
    before = resident_mib()
    seen = SeenKeys()
    seen.complete = True
    begin = time.process_time()
    for first in range(0, count, _PLAN):
        seen.add(chance.integers(0, 2**64, min(_PLAN, count - first), dtype=np.uint64))
    adding = time.process_time() - begin
    asked = chance.integers(0, 2**64, _PLAN, dtype=np.uint64)
    begin = time.process_time()
    found = int(seen.maybe_seen(asked).sum())
    return {
        "memory of the filter, MiB": resident_mib() - before,
        "of these, bytes a key": (resident_mib() - before) * 2**20 / count,
        "adding a key, µs of CPU": 1e6 * adding / count,
        "asking for a key, µs of CPU": 1e6 * (time.process_time() - begin) / _PLAN,
        "new keys that it takes for seen, of 100,000": found,
    }


async def take_over(count: int) -> dict[str, float]:
    """A store with so many keys: its size, learning them, and looking up without the filter."""
    with tempfile.TemporaryDirectory() as name:
        engine = ClickHouseEngine(Path(name), query_timeout_seconds=600)
        try:
            await migrate(engine)
            for start in range(0, count, _CHUNK):
                chunk = min(_CHUNK, count - start)
                await engine.execute(_FILL, {"start": start, "count": chunk})
            size = int((await engine.query(_BYTES))[0][0])
            begin = time.perf_counter()
            await engine.query(_LOOK_UP, {"count": _PLAN})
            looked = time.perf_counter() - begin
            begin = time.perf_counter()
            await learn_keys(engine, 0, SeenKeys())
            learned = time.perf_counter() - begin
        finally:
            await engine.close()
    return {
        "keys in the store, bytes a key": size / count,
        "learning them all, s": learned,
        "looking up a plan of 100,000 without the filter, s": looked,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, nargs="+", default=[1_000_000, 10_000_000])
    options = parser.parse_args(arguments)
    columns = [{**remember(count), **asyncio.run(take_over(count))} for count in options.keys]
    print(f"| | {' | '.join(f'{count:,} keys' for count in options.keys)} |")
    print(f"|---|{'---|' * len(columns)}")
    for row in columns[0]:
        print(f"| {row} | {' | '.join(f'{column[row]:,.2f}' for column in columns)} |")
    print(f"\nload (1, 5, 15 min) at the end: {load_average()}")


if __name__ == "__main__":
    main()
