"""Requests, and when to make one again. Pure: no I/O, no clock."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from meterline_sdk._json import camel, instant

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may work."""

Query = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the API. A retry is the same request, with the same idempotency key."""

    method: str
    path: str
    query: Query = field(default_factory=dict)
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    decides: bool = False
    """429 is the answer, and not a reason to try again."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how long to wait in between (exponential, with jitter)."""

    max_retries: int = 3
    base_seconds: float = 0.2
    max_seconds: float = 5.0


def idempotency_key() -> str:
    """A key for a call that moves value."""
    return uuid.uuid4().hex


def wait_before_retry(
    policy: RetryPolicy,
    request: Request,
    retries: int,
    status: int | None,
    retry_after: str | None,
    jitter: float,
) -> float | None:
    """Seconds to wait before the next try, None to give up.

    `status` is None when no answer came. `jitter` is in [0, 1).
    """
    if retries >= policy.max_retries:
        return None
    if status is not None and not _may_work(status, retry_after is not None, request):
        return None
    delay = min(policy.max_seconds, policy.base_seconds * 2.0**retries) * (0.5 + jitter / 2)
    asked = _seconds(retry_after)
    if asked is not None and asked > policy.max_seconds:
        return None
    return max(delay, asked or 0.0)


def _may_work(status: int, later: bool, request: Request) -> bool:
    """Whether the same request may succeed. A 409 that says when: a try of it is under way."""
    if status == 429 and request.decides:
        return False
    return status in RETRIED or (status == 409 and later)


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def segment(text: str) -> str:
    """A text as one segment of a path."""
    return quote(text, safe="")


def as_query(**parameters: Any) -> dict[str, str | list[str]]:
    """Query parameters; None is left out, lists repeat, names become camelCase."""
    found: dict[str, str | list[str]] = {}
    for name, value in parameters.items():
        if value is None:
            continue
        if isinstance(value, bool):
            found[camel(name)] = "true" if value else "false"
        elif isinstance(value, list | tuple):
            found[camel(name)] = [str(one) for one in value]
        else:
            found[camel(name)] = instant(value) if hasattr(value, "isoformat") else str(value)
    return found
