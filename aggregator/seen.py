"""Filling the filter of seen keys from the store, in slices that no query has to wait for."""

import asyncio

import numpy as np
import structlog

from aggregator.dedupe import SeenKeys
from aggregator.stores.engine import Engine
from aggregator.stores.state import MOVED

log = structlog.get_logger(__name__)

_KEYS_A_SLICE = 50_000


class KnownKeys:
    """The filter of one partition, while its worker has it."""

    def __init__(self, engine: Engine, part: int, retry_seconds: float) -> None:
        self.seen = SeenKeys()
        self._engine = engine
        self._part = part
        self._retry_seconds = retry_seconds
        self._learning: asyncio.Task[None] | None = None

    async def anew(self) -> SeenKeys:
        """Forget what is known, and learn in the background what is stored by now.

        To be called when the partition is taken, and not before: until then another worker may
        store more keys.
        """
        await self.close()
        self.seen = SeenKeys()
        self._learning = asyncio.create_task(self._learn(self.seen))
        return self.seen

    async def close(self) -> None:
        """Stop learning."""
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)

    async def _learn(self, seen: SeenKeys) -> None:
        while not seen.complete:
            try:
                await learn_keys(self._engine, self._part, seen)
            except Exception:
                # Until it has succeeded every key is looked up.
                log.exception("cannot learn the keys that are stored", partition=self._part)
                await asyncio.sleep(self._retry_seconds)


async def learn_keys(engine: Engine, part: int, seen: SeenKeys) -> None:
    """Remember every stored key of a partition; then the filter is complete.

    All copies of an event are in one partition, so the keys of others are no business of its
    worker. But of some keys that were moved here nobody knows whose they are: their events were
    erased. What is stored from now on the worker remembers itself.
    """
    mine = f"part IN ({part}, {MOVED})"
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
