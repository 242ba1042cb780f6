"""Programs that some tests need beside Python."""

import os
import shutil

import pytest


def require_program(name: str) -> str:
    """The path of a program. Skips when it is missing; fails in CI, where nothing may be."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("METERLINE_REQUIRE_PARTS") == "1":
            pytest.fail(f"{name} is missing, and METERLINE_REQUIRE_PARTS=1 allows no gap")
        pytest.skip(f"{name} is not installed")
    return found
