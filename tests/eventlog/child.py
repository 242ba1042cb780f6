"""A process that appends under load and tells each acknowledgement at once, until it is killed.

`python -m tests.eventlog.child PATH SYNCHRONOUS [early] [trim]`: writes `OFFSET NUMBER` lines.
With `early` it acknowledges before the commit, which is the fault that the crash test must see;
with `trim` it forgets all but the last hundred or so.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from meterline.eventlog.frames import Batch
from meterline.eventlog.sqlite import SqliteLog, SqliteLogOptions

NOW = datetime(2026, 11, 20, tzinfo=UTC)
CLIENTS = 8


def payload(number: int) -> bytes:
    """The events of append `number`: of very different sizes, and recognisable."""
    return b'[{"id":"%d","data":"%b"}]' % (number, b"%x" % (number * 7919) * (number % 700))


class EarlyLog(SqliteLog):
    """Tells the waiters before it commits."""

    def _commit(self, batches: Sequence[Batch]) -> Sequence[int]:
        first = self._tried + 1
        for index, batch in enumerate(batches):
            acknowledge(first + index, batch.count)
        time.sleep(0.02)  # room for the kill; a slow disk does as much
        return super()._commit(batches)


def acknowledge(offset: int, number: int) -> None:
    """One write, so that a line is whole or not there."""
    os.write(1, b"%d %d\n" % (offset, number))


async def main(path: str, synchronous: str, *flags: str) -> None:
    """Append for ever. The count of a batch carries its number."""
    # Small limits bring checkpoints and trims into the short life of this process.
    options = SqliteLogOptions(synchronous=synchronous, checkpoint_bytes=128 * 1024)
    log = (EarlyLog if "early" in flags else SqliteLog)(Path(path), options)
    start = await log.end(0)

    async def client(first: int) -> None:
        number = first
        while True:
            offset = await log.append("default", NOW, number, payload(number))
            if "early" not in flags:
                acknowledge(offset, number)
            if "trim" in flags and first == start + 1:
                await log.trim(0, offset - 100)
            number += CLIENTS

    await asyncio.gather(*(client(start + 1 + each) for each in range(CLIENTS)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
