"""Opening what the settings name."""

from pathlib import Path

import pytest

from meterline.kernel.errors import UnavailableError
from meterline.server.settings import Settings, load_settings
from meterline.server.stores import alone_with_database, database_of


async def test_an_embedded_log_keeps_its_postgresql_for_itself(
    postgres_url: str, tmp_path: Path
) -> None:
    def settings(folder: str, **more: object) -> Settings:
        flags = {"server.data_dir": tmp_path / folder, "database.url": postgres_url}
        return load_settings(flags={**flags, **more})

    first, second = database_of(settings("a")), database_of(settings("b"))
    try:
        async with alone_with_database(settings("a"), first):
            with pytest.raises(UnavailableError, match="another server"):
                async with alone_with_database(settings("b"), second):
                    pytest.fail("two logs would share the positions of one")
            shared = {"eventlog.kind": "kafka", "store.kind": "clickhouse"}
            async with alone_with_database(settings("b", **shared), second):
                pass
        async with alone_with_database(settings("b"), second):
            pass
    finally:
        await first.close()
        await second.close()
