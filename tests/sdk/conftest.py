"""A server that speaks as ours and the providers do, and a client of ours that tries once."""

from collections.abc import Iterator

import pytest

from meterline_sdk import Meterline, RetryPolicy
from tests.sdk.providers import Stub, serving


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as running:
        yield running


@pytest.fixture
def meterline(stub: Stub) -> Iterator[Meterline]:
    with Meterline(stub.url, retries=RetryPolicy(0)) as client:
        yield client
