"""The HTTP API of entitlements over meters that tests fill by hand."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.support.entitlements import Bench, running_bench


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with running_bench(tmp_path) as running:
        yield running
