"""The documentation's Python runs against a server, and prints what its comments say."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.providers import serving
from tests.support.server import MeterlineServer

_ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"^\s*print\(.*\)  # (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeterlineServer]:
    """A server where nobody has taken a name yet."""
    with MeterlineServer(tmp_path_factory.mktemp("docs") / "data") as server:
        yield server


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the packages of OpenAI find a provider."""
    with serving() as stub:
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{stub.url}/v1")
        yield


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "sdk/README.md",
        "docs/sdk.md",
        "docs/coming-from.md",
    ],
)
def test_the_blocks_run_and_print_what_they_say(fresh: MeterlineServer, name: str) -> None:
    blocks = _BLOCK.findall((_ROOT / name).read_text())
    assert blocks
    names: dict[str, Any] = {}
    try:
        for number, block in enumerate(blocks, 1):
            code = block.replace("http://127.0.0.1:8888", fresh.url)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(code, f"{name}, block {number}", "exec"), names)
            assert out.getvalue().splitlines() == _SHOWN.findall(block), block
    finally:
        for value in names.values():
            if type(value).__name__ in ("Meterline", "TrackedOpenAI"):
                value.close()


def test_every_product_has_its_section() -> None:
    text = (_ROOT / "docs/coming-from.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert len(sections) == 5
    assert all(_BLOCK.search(section) for section in sections)
