"""The API of credits over databases."""

from collections.abc import AsyncIterator

import pytest_asyncio

from meterline.db.engine import Database
from tests.support.holding import HeldHttp, holding_http


@pytest_asyncio.fixture
async def api(any_database: Database) -> AsyncIterator[HeldHttp]:
    async with holding_http(any_database) as http:
        yield http
