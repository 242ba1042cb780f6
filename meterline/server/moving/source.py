"""The folder that is moved: opened alone, and brought to rest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from aggregator.sink import Sink
from aggregator.stores import state
from meterline.kernel.clock import Clock
from meterline.kernel.errors import UnavailableError, ValidationError
from meterline.server.metering import running_sink
from meterline.server.moving.telling import Tell
from meterline.server.settings import Settings
from meterline.server.stores import DataDir, Stores, opened_stores

_LOOK_SECONDS = 0.5
_GIVE_UP_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a folder holds; another extent is another content."""

    position: int
    """The last offset of its log."""
    events: int
    keys: int

    def texts(self) -> dict[str, int]:
        """As JSON."""
        return asdict(self)


def source_settings(settings: Settings, folder: Path) -> Settings:
    """The settings of a folder where all is embedded; limits are those of `settings`."""
    return settings.model_copy(
        update={
            "server": settings.server.model_copy(update={"data_dir": folder, "role": "all"}),
            "eventlog": settings.eventlog.model_copy(update={"kind": "embedded"}),
            "store": settings.store.model_copy(update={"kind": "embedded"}),
            "database": settings.database.model_copy(update={"url": None}),
            "meters": (),
        }
    )


@asynccontextmanager
async def opened_source(settings: Settings) -> AsyncIterator[Stores]:
    """The folder, which nobody else has open meanwhile, at this version's schemas."""
    data = DataDir(settings.server.data_dir)
    if not data.database.is_file() or not data.event_log.is_file():
        raise ValidationError(f"{data.path} is no data folder of Meterline")
    opening = opened_stores(settings)
    try:
        stores = await opening.__aenter__()
    except UnavailableError as error:
        raise UnavailableError(
            f"{error.detail}: stop the server that uses {data.path}, then run this again"
        ) from error
    try:
        yield stores
    finally:
        await opening.__aexit__(None, None, None)


async def bring_to_rest(settings: Settings, source: Stores, tell: Tell, clock: Clock) -> Extent:
    """Have the folder's own sink finish what it began, and store what still waits in the log.

    So does every start of a server. Series are filled and purges done as well.
    """
    async with running_sink(settings, source, CollectorRegistry(), clock) as sink:
        await _empty(source, sink, tell)
        await sink.upkeep.settled()
    async with source.database.read() as conn:
        position = (await state.load_positions(conn)).get(0, 0)
    engine = source.store.sink
    ((events, elsewhere),) = await engine.query("SELECT count(), countIf(part != 0) FROM events")
    ((keys,),) = await engine.query("SELECT count() FROM keys")
    if elsewhere:
        raise ValidationError("the folder holds events of another log than its own")
    return Extent(position, events, keys)


async def _empty(source: Stores, sink: Sink, tell: Tell) -> None:
    waiting = await _waiting(source, sink)
    tell.begin("events that wait in the log", waiting)
    without_progress = 0.0
    while not await sink.wait_visible(_LOOK_SECONDS):
        left = await _waiting(source, sink)
        tell.advance(waiting - left)
        without_progress = 0.0 if left < waiting else without_progress + _LOOK_SECONDS
        waiting = left
        if without_progress > _GIVE_UP_SECONDS:
            (status,) = await sink.status()
            raise UnavailableError(
                f"the folder's log cannot be emptied: {status.last_error or 'no progress'}"
            )
        await asyncio.sleep(0)
    tell.advance(waiting)


async def _waiting(source: Stores, sink: Sink) -> int:
    (status,) = await sink.status()
    return await source.reader.count(0, status.position)
