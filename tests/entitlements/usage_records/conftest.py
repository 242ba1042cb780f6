"""The kit over each database."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from meterline.db.engine import Database
from tests.entitlements.usage_records.build import Kit, running_kit
from tests.support.database import migrated


@pytest_asyncio.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    async with migrated(tmp_path) as database, running_kit(database) as running:
        yield running


@pytest_asyncio.fixture
async def any_kit(any_database: Database) -> AsyncIterator[Kit]:
    async with running_kit(any_database) as running:
        yield running
