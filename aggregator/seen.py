"""Filling the filter of seen keys from the store, in slices that no query has to wait for."""

import asyncio

import numpy as np

from aggregator.dedupe import SeenKeys
from aggregator.stores.engine import Engine

_KEYS_A_SLICE = 50_000


async def learn_keys(engine: Engine, part: int, seen: SeenKeys) -> None:
    """Remember every stored key of a partition; then the filter is complete.

    All copies of an event are in one partition, so the keys of others are no business of its
    worker. What is stored from now on the worker remembers itself.
    """
    mine = f"part = {part}"
    total = int((await engine.query(f"SELECT count() FROM keys WHERE {mine}"))[0][0])
    slices = max(1, -(-total // _KEYS_A_SLICE))
    bounds = [(1 << 128) * number // slices for number in range(slices)] + [1 << 128]
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        raw = await engine.fetch(
            "SELECT toUInt64(bitAnd(h, toUInt128(18446744073709551615))) FROM keys"
            f" WHERE h >= {{low:UInt128}} AND h <= {{high:UInt128}} AND {mine}",
            "RowBinary",
            {"low": str(low), "high": str(high - 1)},
        )
        await asyncio.to_thread(seen.add, np.frombuffer(raw, dtype="<u8"))
    seen.complete = True
