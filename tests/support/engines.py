"""The engine that tests of the store run on.

Embedded, in the folder that a test gives it. With METERLINE_TEST_STORE=clickhouse the same folder
stands for a database of a ClickHouse server instead: the one that METERLINE_TEST_CLICKHOUSE_URL
names, else the bridge. So the whole suite of the aggregator runs over HTTP, too:

    METERLINE_TEST_STORE=clickhouse python -m pytest tests/aggregator

With METERLINE_TEST_STORE=sharded the tables are those of a cluster with shards, which
METERLINE_TEST_CLUSTER names where the server is a real one.
"""

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from aggregator.stores.clickhouse import ClickHouseEngine, ClickHouseOptions
from aggregator.stores.layout import Layout
from tests.support.clickhouse import URL_VARIABLE, real_server, shared_bridge, shared_options

STORE_VARIABLE = "METERLINE_TEST_STORE"
CLUSTER_VARIABLE = "METERLINE_TEST_CLUSTER"
_BRIDGE_CLUSTER = "bridge"


def over_http() -> bool:
    """Whether the suite runs on a server."""
    return os.environ.get(STORE_VARIABLE, "embedded") != "embedded"


def store_at(folder: Path) -> Path | ClickHouseOptions:
    """Where the store of a folder is: the first argument of `ClickHouseEngine`."""
    if not over_http():
        return folder
    sharded = os.environ[STORE_VARIABLE] == "sharded"
    layout = Layout()
    if sharded:
        layout = Layout(os.environ.get(CLUSTER_VARIABLE, _BRIDGE_CLUSTER), sharded=True)
    name = f"test_{sha256(str(folder).encode()).hexdigest()[:16]}"
    return shared_options(name, layout=layout)


def environment() -> dict[str, str]:
    """What a child of the test needs in its environment to find the same store."""
    if not over_http() or real_server() is not None:
        return {}
    sharded = os.environ[STORE_VARIABLE] == "sharded"
    bridge = shared_bridge(_BRIDGE_CLUSTER if sharded else None)
    return {URL_VARIABLE: bridge.url.replace("://", f"://{bridge.user}:{bridge.password}@")}


def open_engine(folder: Path, **options: Any) -> ClickHouseEngine:
    """The engine of a folder."""
    return ClickHouseEngine(store_at(folder), **options)
