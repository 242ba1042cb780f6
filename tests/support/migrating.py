"""The newest schema, for callers that may be inside a running event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from meterline.db.engine import Database


def migrate_in_thread(url: str) -> None:
    """Bring the database at a URL to the newest schema."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(lambda: asyncio.run(_migrate(url))).result()


async def _migrate(url: str) -> None:
    database = Database.open(url)
    try:
        await database.migrate()
    finally:
        await database.close()
