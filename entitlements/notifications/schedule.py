"""What follows an attempt: done, again later, or given up. Pure.

A delivery is tried at once, then after the waits below; each is counted from the attempt before
and up to a tenth longer, so that what failed together does not come back together.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from entitlements.notifications.model import DeliveryState

WAITS = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
ATTEMPTS = len(WAITS) + 1
MAX_WAIT = timedelta(days=1)
"""The longest `Retry-After` that is honoured."""

_JITTER = 0.1
_GONE = 410
_THROTTLING = (429, 502, 504)
_LEAST_THROTTLE = timedelta(seconds=5)
_SECONDS = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of an attempt. Without a status there was no answer, and `body` says why."""

    status: int | None
    body: str
    duration_ms: int
    retry_after: str | None = None
    refused: bool = False
    """The guard refused the address; waiting does not help, but its owner may change it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do after an attempt."""

    state: DeliveryState
    reason: str
    next_attempt_at: datetime | None = None
    pause_until: datetime | None = None
    """Nothing at all is sent to the channel until then."""
    gone: bool = False
    """The receiver wants no more messages, ever."""


def judge(answer: Answer, attempt: int, delivery_id: str, now: datetime) -> Verdict:
    """The verdict after attempt number `attempt`, counted from 1."""
    if answer.status is not None and 200 <= answer.status < 300:
        return Verdict(DeliveryState.SUCCESS, "")
    reason = answer.body if answer.status is None else f"status {answer.status}"
    if answer.status == _GONE:
        return Verdict(DeliveryState.FAILED, f"{reason}: the receiver is gone", gone=True)
    asked = parse_retry_after(answer.retry_after, now)
    throttled = answer.status in _THROTTLING
    if attempt >= ATTEMPTS:
        pause = now + (asked or _LEAST_THROTTLE) if throttled else None
        return Verdict(
            DeliveryState.FAILED, f"{reason}; given up after {attempt} attempts", pause_until=pause
        )
    wait = max(wait_after(attempt, delivery_id), asked or timedelta(0))
    pause = now + max(asked or _LEAST_THROTTLE, _LEAST_THROTTLE) if throttled else None
    return Verdict(DeliveryState.SENDING, reason, now + wait, pause)


def wait_after(attempt: int, delivery_id: str) -> timedelta:
    """How long to wait after attempt number `attempt`."""
    digest = hashlib.sha256(f"{delivery_id} {attempt}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    return WAITS[attempt - 1] * (1 + _JITTER * share)


def parse_retry_after(text: str | None, now: datetime) -> timedelta | None:
    """The wait that a `Retry-After` header asks for, as seconds or as a date; None when unclear."""
    if text is None:
        return None
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return min(timedelta(seconds=int(text)), MAX_WAIT)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    date = date.replace(tzinfo=UTC) if date.tzinfo is None else date
    return min(max(date - now, timedelta(0)), MAX_WAIT)
