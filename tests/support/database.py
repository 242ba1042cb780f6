"""A relational database of the newest schema, for one test."""

import atexit
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from meterline.db.engine import Database, DatabaseLimits
from tests.support.migrating import migrate_in_thread
from tests.support.postgres import PostgresCluster, require_binaries

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
async def opened(url: str, limits: DatabaseLimits | None = None) -> AsyncIterator[Database]:
    """The database at a URL, closed at the end."""
    database = Database.open(url, limits)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def migrated(folder: Path, limits: DatabaseLimits | None = None) -> AsyncIterator[Database]:
    """The SQLite database of a folder, made when there is none.

    With METERLINE_TEST_DATABASE=postgresql in the environment it is one of PostgreSQL.
    """
    if os.environ.get("METERLINE_TEST_DATABASE") == "postgresql":
        async with opened(_postgres_of(folder), limits) as database:
            yield database
        return
    if not (folder / "meterline.db").exists():
        sqlite_url(folder)
    database = Database.open(database_url(folder), limits)
    try:
        yield database
    finally:
        await database.close()


_stack = ExitStack()
_clusters: list[PostgresCluster] = []
_by_folder: dict[Path, str] = {}


def _postgres_of(folder: Path) -> str:
    if not _by_folder:
        _clusters.append(_stack.enter_context(PostgresCluster(require_binaries())))
        atexit.register(_stack.close)
    if folder not in _by_folder:
        _by_folder[folder] = _clusters[0].create_database()
    return _by_folder[folder]


def _empty_database(folder: Path) -> bytes:
    file = folder / "template.db"
    migrate_in_thread(f"sqlite:///{file}")
    return file.read_bytes()
