"""Sends batches of events to a Meterline server, and finds out which rows it does not take.

Sending again is safe: an event's (source, id) is fixed by its row, so the server counts it once.
Therefore anything that may pass (429, 502, 503, 504, a lost connection) is tried again.
"""

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

_RETRIED = frozenset({408, 425, 429, 502, 503, 504})
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_INDEX = re.compile(r"\[([0-9]+)\]").search


class ImportStopped(Exception):
    """The import cannot go on; the text tells the user why."""


@dataclass(frozen=True, slots=True)
class RowFailure:
    """A row that was not stored: the line it ends on, and the reason."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to be sent together, with their line numbers.

    `rows_through` is how many rows of the file are behind us once this batch is done; `failures`
    are the rows between that had no event; `end` is why nothing can be read after it.
    """

    rows_through: int
    lines: Sequence[int]
    events: Sequence[str]
    failures: Sequence[RowFailure] = ()
    end: str = ""


class Sender:
    """Posts batches; safe to use from several threads."""

    def __init__(
        self, client: httpx.Client, *, skip_bad_rows: bool, give_up_after_seconds: float
    ) -> None:
        self._client = client
        self._skip = skip_bad_rows
        self._give_up_after = give_up_after_seconds
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Send nothing from now on: calls end with ImportStopped."""
        self._cancelled.set()

    def send(self, batch: Batch) -> list[RowFailure]:
        """Store the batch; answers the rows that the server refused.

        When bad rows are not skipped, a refused row means that the batch was not stored.
        """
        failures: list[RowFailure] = []
        parts = [(batch.lines, batch.events)] if batch.events else []
        while parts:
            lines, events = parts.pop()
            response = self._post(("[" + ",".join(events) + "]").encode())
            if response.is_success:
                continue
            if response.status_code not in (400, 413):
                raise ImportStopped(_explain(response))
            bad = _bad_rows(response, len(events))
            if bad:
                failures += [RowFailure(lines[at], reason) for at, reason in bad.items()]
                good = [at for at in range(len(events)) if at not in bad]
                if self._skip and good:
                    parts.append(([lines[at] for at in good], [events[at] for at in good]))
            elif len(events) == 1:
                failures.append(RowFailure(lines[0], _explain(response)))
            else:
                half = len(events) // 2
                parts.append((lines[half:], events[half:]))
                parts.append((lines[:half], events[:half]))
            if failures and not self._skip:
                self.cancel()
                break
        return sorted(failures, key=lambda failure: failure.line)

    def stored(self, source: str, event_id: str) -> bool:
        """Whether the server still has this event; False when it does not say.

        What was acknowledged is listed a moment later, so a server that is behind is given time.
        """
        deadline = time.monotonic() + self._give_up_after
        while True:
            behind = self._is_behind()
            if self._is_listed(source, event_id):
                return True
            if not behind or time.monotonic() > deadline:
                return False
            self._cancelled.wait(_FIRST_PAUSE_SECONDS)

    def _is_listed(self, source: str, event_id: str) -> bool:
        items = self._get("/api/v1/events", {"id": event_id, "source": source, "limit": "1"})
        try:
            events = [item["event"] for item in items]
            return any(it["id"] == event_id and it["source"] == source for it in events)
        except (LookupError, TypeError):
            return False

    def _is_behind(self) -> bool:
        try:
            return bool(self._get("/readyz", {})["checks"]["sink"]["lagEvents"] > 0)
        except (LookupError, TypeError):
            return False

    def _get(self, path: str, params: dict[str, str]) -> Any:
        try:
            response = self._client.get(path, params=params)
            return response.json() if response.status_code in (200, 503) else None
        except (httpx.HTTPError, ValueError):
            return None

    def _post(self, body: bytes) -> httpx.Response:
        deadline = time.monotonic() + self._give_up_after
        pause = _FIRST_PAUSE_SECONDS
        problem = "cancelled"
        while not self._cancelled.is_set():
            asked = 0.0
            try:
                response = self._client.post(
                    "/api/v1/events",
                    content=body,
                    headers={"content-type": "application/cloudevents-batch+json"},
                )
                if response.status_code not in _RETRIED:
                    return response
                problem = _explain(response)
                asked = _retry_after(response)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise ImportStopped(f"bad URL: {error}") from error
            except httpx.TransportError as error:
                problem = f"{self._client.base_url}: {error or type(error).__name__}"
            wait = min(max(pause, asked), _LONGEST_PAUSE_SECONDS)
            if time.monotonic() + wait > deadline:
                raise ImportStopped(problem)
            self._cancelled.wait(wait)
            pause *= 2
        raise ImportStopped(problem)


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _explain(response: httpx.Response) -> str:
    detail = _problem(response).get("detail")
    return f"{response.status_code} {response.reason_phrase}" + (f": {detail}" if detail else "")


def _bad_rows(response: httpx.Response, count: int) -> dict[int, str]:
    """Index in the batch -> reason, from the problem's list of faults."""
    extensions = _problem(response).get("extensions")
    errors = extensions.get("validationErrors") if isinstance(extensions, dict) else None
    bad: dict[int, str] = {}
    for error in errors if isinstance(errors, list) else ():
        where = str(error.get("where", "")) if isinstance(error, dict) else ""
        match = _INDEX(where)
        if match and int(match[1]) < count:
            attribute = where[match.end() :].lstrip(".")
            reason = (
                f"{attribute}: {error.get('reason')}" if attribute else str(error.get("reason"))
            )
            at = int(match[1])
            bad[at] = f"{bad[at]}; {reason}" if at in bad else reason
    return bad
