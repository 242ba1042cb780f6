"""The README's tour, pasted into a shell as it stands, gives the answers that it shows."""

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import StartServer
from tests.support.parts import require_program
from tests.support.server import cli_environment

_ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SHELL = {"sh", "bash", "shell"}
_STARTS_A_SERVER = re.compile(r"^make (run|setup|demo)|meterline (serve|demo)", re.MULTILINE)


def tour() -> list[tuple[str, str]]:
    """The tour's shell blocks, each with the output that is shown after it."""
    sections = re.split(r"^## ", (_ROOT / "README.md").read_text(), flags=re.MULTILINE)
    section = next(text for text in sections if "tour" in text.split("\n", 1)[0].lower())
    steps: list[tuple[str, str]] = []
    for language, body in _BLOCK.findall(section):
        if language in _SHELL:
            steps.append((body, ""))
        elif steps:
            steps[-1] = (steps[-1][0], body)
    return [step for step in steps if not _STARTS_A_SERVER.search(step[0])]


def same(shown: object, found: object) -> bool:
    """Whether they are equal; a shown text that holds … stands for any text.

    A shown name that holds … stands for the name at its place.
    """
    if isinstance(shown, str) and "…" in shown:
        return isinstance(found, str)
    if isinstance(shown, dict) and isinstance(found, dict):
        names = [f if "…" in s else s for s, f in zip(shown, found, strict=False)]
        shown = dict(zip(names, shown.values(), strict=False))
        return shown.keys() == found.keys() and all(same(shown[k], found[k]) for k in shown)
    if isinstance(shown, list) and isinstance(found, list):
        return len(shown) == len(found) and all(map(same, shown, found))
    return shown == found


def parsed(text: str) -> object:
    try:
        return json.loads(text, parse_float=str)
    except ValueError:
        return [" ".join(line.split()) for line in text.strip().splitlines()]


# What a pipe picks from is seen when the picking fails.
_SHOWING = 'curl() { command curl "$@" | tee /dev/stderr; }; '


def test_the_tour_works_when_pasted(start_server: StartServer) -> None:
    bash = require_program("bash")
    require_program("curl")
    steps = tour()
    server = start_server()  # the names of the tour are nobody else's
    assert steps, "the README has no tour"
    environment = cli_environment({"METERLINE_URL": server.url})
    for commands, shown in steps:
        # Only the address differs, and what runs `meterline`.
        script = re.sub(r"http://(127\.0\.0\.1|localhost):8888", server.url, commands)
        script = script.replace(".venv/bin/meterline", f"{sys.executable} -m meterline")
        done = subprocess.run(
            [bash, "-euo", "pipefail", "-c", _SHOWING + script],
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        if shown:
            assert same(parsed(shown), parsed(done.stdout)), f"{commands}\n{done.stdout}"
