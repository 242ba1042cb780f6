"""The tests of the sink once more, on a ClickHouse server and through `Distributed` tables.

`METERLINE_TEST_STORE=clickhouse python -m pytest tests/aggregator` runs all the others so, too.
"""

from collections.abc import Iterator

import pytest

from tests.aggregator.test_sink import *  # noqa: F403
from tests.support.engines import STORE_VARIABLE, over_http


@pytest.fixture(autouse=True, scope="module", params=["sharded"])
def _on_a_server(request: pytest.FixtureRequest) -> Iterator[None]:
    if over_http():
        pytest.skip("the whole suite runs on a server already")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORE_VARIABLE, request.param)
        yield
