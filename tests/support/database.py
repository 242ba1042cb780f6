"""A relational database of the newest schema, in a folder of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from meterline.db.engine import Database, DatabaseLimits


def database_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'meterline.db'}"


@asynccontextmanager
async def migrated(folder: Path, limits: DatabaseLimits | None = None) -> AsyncIterator[Database]:
    database = Database.open(database_url(folder), limits)
    try:
        await database.migrate()
        yield database
    finally:
        await database.close()
