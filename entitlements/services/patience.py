"""Patience: how long a request waits for what is being done elsewhere, and how often it looks."""

import time
from collections.abc import Iterator

PATIENCE_SECONDS = 5.0
"""How long a request waits before it is told to come again."""

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.01, 0.2


def pauses() -> Iterator[float]:
    """The pause before each further look, in seconds: none at first, then longer and longer.

    It ends when the patience does.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    yield 0.0
    pause = _FIRST_PAUSE_SECONDS
    while time.monotonic() < end:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
