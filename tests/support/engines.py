"""The engine that tests of the store run on.

Embedded, in the folder that a test gives it. With METERLINE_TEST_STORE=clickhouse the same folder
stands for a database of a ClickHouse server instead: the one that METERLINE_TEST_CLICKHOUSE_URL
names, else the bridge. So the whole suite of the aggregator runs over HTTP, too:

    METERLINE_TEST_STORE=clickhouse python -m pytest tests/aggregator
"""

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from aggregator.stores.clickhouse import ClickHouseEngine, ClickHouseOptions
from tests.support.clickhouse import URL_VARIABLE, shared_bridge, shared_options

STORE_VARIABLE = "METERLINE_TEST_STORE"


def over_http() -> bool:
    """Whether the suite runs on a server."""
    return os.environ.get(STORE_VARIABLE) == "clickhouse"


def store_at(folder: Path) -> Path | ClickHouseOptions:
    """Where the store of a folder is: the first argument of `ClickHouseEngine`."""
    if not over_http():
        return folder
    if URL_VARIABLE not in os.environ:
        # Children of this test have to find the same server.
        bridge = shared_bridge()
        os.environ[URL_VARIABLE] = bridge.url.replace("://", f"://{bridge.user}:{bridge.password}@")
    return shared_options(f"test_{sha256(str(folder).encode()).hexdigest()[:16]}")


def open_engine(folder: Path, **options: Any) -> ClickHouseEngine:
    """The engine of a folder."""
    return ClickHouseEngine(store_at(folder), **options)
