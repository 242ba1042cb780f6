"""Brings the event store's schema up to date."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from importlib import resources

from aggregator.stores.engine import Engine
from aggregator.stores.layout import SHARDING_KEYS, Layout
from meterline.kernel.errors import ConflictError

_APPLIED = "schema_migrations"


@dataclass(frozen=True, slots=True)
class Migration:
    """A numbered file of statements, each of which can be applied again."""

    number: int
    name: str
    text: str

    def statements(self, layout: Layout) -> list[str]:
        """What to run, in order."""
        parts = [part.strip() for part in self.text.split(";\n")]
        return [layout.render(part) for part in parts if part]


def migrations() -> Sequence[Migration]:
    """Every migration, in order."""
    folder = resources.files("aggregator.stores") / "schema"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda one: one.name
    )
    return [
        Migration(int(file.name[:4]), file.name.removesuffix(".sql"), file.read_text())
        for file in files
    ]


async def migrate(
    engine: Engine, lock: AbstractAsyncContextManager[object] | None = None
) -> list[str]:
    """Apply what is missing, and answer its names.

    `lock` is held meanwhile, to keep the processes of a deployment from doing it at once; a
    migration that was cut short is applied again as a whole. `ConflictError` when the store has
    migrations that this version does not know.
    """
    layout = engine.layout
    await engine.prepare()
    if not await _missing(engine):
        return []
    async with lock or nullcontext():
        await engine.execute(_record_table(layout))
        missing = await _missing(engine)
        for one in missing:
            for statement in one.statements(layout):
                await engine.execute(statement)
            for table in SHARDING_KEYS:
                if over := layout.over_shards(table):
                    await engine.execute(over)
            await engine.execute(
                f"INSERT INTO {_APPLIED} (number, name) VALUES ({one.number}, '{one.name}')"
            )
    return [one.name for one in missing]


def _record_table(layout: Layout) -> str:
    # Every server of a cluster has all rows, whatever its shard: hence a path without {shard}.
    engine = "MergeTree"
    if layout.cluster is not None:
        path = layout.replica_path.replace("{shard}", "all")
        engine = f"ReplicatedMergeTree('{path}', '{{shard}}-{layout.replica_name}')"
    return (
        f"CREATE TABLE IF NOT EXISTS {_APPLIED}{layout.on_cluster} (number UInt32, name String,"
        f" applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')) ENGINE = {engine}"
        " ORDER BY number"
    )


async def _missing(engine: Engine) -> list[Migration]:
    known = migrations()
    ((there,),) = await engine.query(f"EXISTS TABLE {_APPLIED}")
    if not there:
        return list(known)
    applied = {number for (number,) in await engine.query(f"SELECT number FROM {_APPLIED}")}
    unknown = applied - {one.number for one in known}
    if unknown:
        raise ConflictError(
            f"the event store has migration {max(unknown)}, which this version does not know"
        )
    return [one for one in known if one.number not in applied]
