"""The tracked client over another major of OpenAI's package."""

from pathlib import Path

from tests.sdk.providers import serving
from tests.support.environments import python_with, succeed

FOLDER = Path(__file__).parent / "openai2"
SDK = Path(__file__).parents[2] / "sdk"


def test_the_major_before() -> None:
    python = python_with(FOLDER)
    with serving() as stub:
        version = succeed(FOLDER, python, "flows.py", stub.url, PYTHONPATH=str(SDK))
    assert version.startswith("2.")
    totals = {one["key"]: one["response"]["usage"]["total_tokens"] for one in stub.tracked}
    calls = ("create", "stream", "helper", "responses", "events", "raw")
    assert totals == {**dict.fromkeys(calls, 18), "embeddings": 8}
    assert not any(one.get("estimated") for one in stub.tracked)
