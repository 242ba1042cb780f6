"""Environments of their own for packages that cannot live with ours."""

import hashlib
import subprocess
import sys
from pathlib import Path


def python_with(folder: Path) -> str:
    """A Python with the packages of `folder/requirements.txt` (hashes and all), and none of ours.

    It is made once, and again when the lock or this Python changes.
    """
    lock = folder / "requirements.txt"
    environment = folder / ".venv"
    stamp, python = environment / ".installed", str(environment / "bin" / "python")
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.is_file() and stamp.read_text() == wanted):
        succeed(folder, sys.executable, "-m", "venv", "--clear", str(environment))
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        succeed(folder, python, *install, "--require-hashes", "-r", str(lock))
        stamp.write_text(wanted)
    return python


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
