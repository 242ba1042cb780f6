"""What several end-to-end tests need."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.support.parts import require_program

_FOLDER = Path(__file__).parents[1] / "sdk-js"


@pytest.fixture(scope="session")
def node() -> str:
    """The path of node, with the packages of the lock installed."""
    node, npm = require_program("node"), require_program("npm")
    lock = hashlib.sha256((_FOLDER / "package-lock.json").read_bytes()).hexdigest()
    stamp = _FOLDER / "node_modules" / ".installed"
    if not (stamp.is_file() and stamp.read_text() == lock):
        command = [npm, "ci", "--omit=peer", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        stamp.write_text(lock)
    return node
