"""Environments of their own for packages that cannot live with ours."""

import fcntl
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.parts import require_program


def made_once(folder: Path, result: str, wanted: bytes, make: Callable[[], object]) -> None:
    """Make `folder/result`, unless it was made for the same `wanted`. Test processes take turns."""
    stamp = folder / result / ".installed"
    fingerprint = hashlib.sha256(wanted).hexdigest()
    with (folder / f".{result.strip('.')}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.is_file() and stamp.read_text() == fingerprint):
            make()
            stamp.write_text(fingerprint)


def python_with(folder: Path) -> str:
    """A Python with the packages of `folder/requirements.txt` (hashes and all), and none of ours.

    It is made once, and again when the lock or this Python changes.
    """
    lock = folder / "requirements.txt"
    python = str(folder / ".venv" / "bin" / "python")

    def make() -> None:
        succeed(folder, sys.executable, "-m", "venv", "--clear", str(folder / ".venv"))
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        succeed(folder, python, *install, "--require-hashes", "-r", str(lock))

    made_once(folder, ".venv", lock.read_bytes() + sys.version.encode(), make)
    return python


def node_with(folder: Path) -> str:
    """The path of node, with the packages of `folder/package-lock.json` in the folder."""
    node, npm = require_program("node"), require_program("npm")
    install = [npm, "ci", "--omit=peer", "--ignore-scripts", "--no-audit", "--no-fund"]
    lock = (folder / "package-lock.json").read_bytes()
    made_once(folder, "node_modules", lock, lambda: succeed(folder, *install))
    return node


def succeed(folder: Path, *command: str, **environment: str) -> str:
    """Run a command to its end in a folder; what it printed. It must succeed."""
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"PATH": "/usr/bin:/bin", **environment} if environment else None,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
