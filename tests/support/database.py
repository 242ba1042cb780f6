"""A relational database of the newest schema, in a folder of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from meterline.db.engine import Database, DatabaseLimits

_template: list[bytes] = []
"""An empty database file, kept because copying it is far quicker than migrating."""


def database_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'meterline.db'}"


@asynccontextmanager
async def migrated(folder: Path, limits: DatabaseLimits | None = None) -> AsyncIterator[Database]:
    file = folder / "meterline.db"
    if not file.exists():
        file.write_bytes(await _empty_database(folder))
    database = Database.open(database_url(folder), limits)
    try:
        yield database
    finally:
        await database.close()


async def _empty_database(folder: Path) -> bytes:
    if not _template:
        url = f"sqlite:///{folder / 'template.db'}"
        database = Database.open(url)
        await database.migrate()
        await database.close()
        _template.append((folder / "template.db").read_bytes())
    return _template[0]
