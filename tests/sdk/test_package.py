"""The package as it is published: what is in it, what it needs, what it imports."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from meterline_sdk import __version__
from tests.support.environments import python_with, succeed

ALONE = Path(__file__).parent / "alone"
SDK = Path(__file__).parents[2] / "sdk"
PROVIDERS = ("openai", "anthropic", "cohere", "google.genai")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    succeed(SDK, sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    (found,) = folder.glob("*.whl")
    return found


def test_what_is_in_the_wheel(wheel: Path) -> None:
    assert wheel.name == f"meterline_sdk-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"meterline_sdk-{__version__}.dist-info/METADATA").decode()
    assert "meterline_sdk/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    sources = {f"meterline_sdk/{one.relative_to(SDK / 'meterline_sdk')}"
               for one in (SDK / "meterline_sdk").rglob("*.py")}  # fmt: skip
    assert sources <= names
    assert "# Meterline SDK for Python" in metadata
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert [line for line in needed if "extra ==" not in line] == ["Requires-Dist: httpx2<3,>=2.10"]
    project = tomllib.loads((SDK / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ["httpx2>=2.10,<3"]


def test_it_works_with_its_only_dependency(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import meterline_sdk, meterline_sdk.capture, meterline_sdk.models\n"
        "from meterline_sdk.tracked import TrackedOpenAI\n"
        "from meterline_sdk import Meterline, ConnectionFailedError, RetryPolicy\n"
        "with Meterline('http://127.0.0.1:9', retries=RetryPolicy(0)) as meterline:\n"
        "    try: meterline.meters.list()\n"
        "    except ConnectionFailedError: print('away')\n"
        "    try: TrackedOpenAI(meterline)\n"
        "    except ModuleNotFoundError as error: print(error.name)\n"
    )
    python = python_with(ALONE)
    said = succeed(tmp_path, python, "-W", "error", "-c", code, PYTHONPATH=str(tmp_path))
    assert said.split() == ["away", "openai"]


@pytest.mark.parametrize(
    "module", ["meterline_sdk", "meterline_sdk.tracked", "meterline_sdk.capture"]
)
def test_providers_are_imported_late(module: str) -> None:
    code = f"import sys, {module}; print([n for n in {PROVIDERS!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"
