from collections.abc import AsyncIterator

import pytest_asyncio

from meterline.db.engine import Database
from tests.support.planning import Planning, planning


@pytest_asyncio.fixture
async def bench(any_url: str, any_database: Database) -> AsyncIterator[Planning]:
    """Plans on SQLite and on PostgreSQL."""
    async with planning(any_database, any_url) as found:
        yield found
