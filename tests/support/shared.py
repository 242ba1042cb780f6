"""Data and cases that are given beside the repository, and not part of it."""

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[3] / "shared"


def shared_path(name: str) -> Path:
    """The path of a shared file; skips the test when it is not there."""
    path = _SHARED / name
    if not path.exists():
        pytest.skip(f"../shared/{name} is not here")
    return path
