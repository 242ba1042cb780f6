"""A relational database of the newest schema, for one test."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from meterline.db.engine import Database, DatabaseLimits
from tests.support.migrating import migrate_in_thread
from tests.support.postgres import PostgresCluster

_template: list[bytes] = []
"""An empty database file, kept because copying it is far quicker than migrating."""


def database_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'meterline.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database of the newest schema, once of each kind."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path)
        return
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    url = cluster.create_database()
    yield url
    cluster.drop_database(url)


@pytest.fixture
def postgres_url(postgres: PostgresCluster) -> Iterator[str]:
    """The URL of a PostgreSQL database of the newest schema."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest_asyncio.fixture
async def any_database(any_url: str) -> AsyncIterator[Database]:
    """A database of the newest schema, once of each kind."""
    async with opened(any_url) as database:
        yield database


def sqlite_url(folder: Path) -> str:
    """The URL of a new SQLite database of the newest schema."""
    if not _template:
        _template.append(_empty_database(folder))
    (folder / "meterline.db").write_bytes(_template[0])
    return database_url(folder)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """The database at a URL, closed at the end."""
    database = Database.open(url)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def migrated(folder: Path, limits: DatabaseLimits | None = None) -> AsyncIterator[Database]:
    """The SQLite database of a folder, made when there is none."""
    if not (folder / "meterline.db").exists():
        sqlite_url(folder)
    database = Database.open(database_url(folder), limits)
    try:
        yield database
    finally:
        await database.close()


def _empty_database(folder: Path) -> bytes:
    file = folder / "template.db"
    migrate_in_thread(f"sqlite:///{file}")
    return file.read_bytes()
