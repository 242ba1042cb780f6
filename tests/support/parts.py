"""Programs that some tests need beside Python."""

import os
import shutil
from typing import NoReturn

import pytest


def require_program(name: str) -> str:
    """The path of a program. Skips when it is missing; fails in CI, where nothing may be."""
    return shutil.which(name) or missing_part(name)


def missing_part(name: str) -> NoReturn:
    """Skip the test for want of a part; in CI, fail it."""
    if os.environ.get("METERLINE_REQUIRE_PARTS") == "1":
        pytest.fail(f"{name} is missing, and METERLINE_REQUIRE_PARTS=1 allows no gap")
    pytest.skip(f"{name} is not installed")
