"""The way of an import: rows, batches, connections, and results in the order of the file."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from meterline.server.cli.import_read import READ_ERRORS, MappedRow
from meterline.server.cli.import_rows import RowError
from meterline.server.cli.import_send import Batch, ImportStopped, RowFailure, Sender


@dataclass(slots=True)
class Outcome:
    """What became of the rows, in the order of the file."""

    rows: int = 0
    """Rows that are done: stored, or reported as bad."""
    sent: int = 0
    """Events that the server acknowledged in this run."""
    failures: list[RowFailure] = field(default_factory=list)
    failed: int = 0
    last_event: str = ""
    """The JSON text of the last acknowledged event."""
    stopped: str = ""
    """Why the import ended before the end of the file."""


MAX_FAILURES_KEPT = 1000
Progress = Callable[[Outcome], None]


def batches(
    rows: Iterable[MappedRow], size: int, *, rows_before: int, stop_at_bad: bool
) -> Iterator[Batch]:
    """Group events. With `stop_at_bad` the first row without an event ends the stream."""
    lines: list[int] = []
    events: list[str] = []
    bad: list[RowFailure] = []
    through = rows_before
    end = ""
    try:
        for line, event in rows:
            reason = _refusal(event)
            if reason is not None:
                bad.append(RowFailure(line, reason))
                if stop_at_bad:
                    break
            elif isinstance(event, str):
                lines.append(line)
                events.append(event)
            through += 1
            if len(events) + len(bad) >= size:
                yield Batch(through, lines, events, bad)
                lines, events, bad = [], [], []
    except READ_ERRORS as error:
        end = str(error) or type(error).__name__
    if lines or bad or end:
        yield Batch(through, lines, events, bad, end)


def _refusal(event: str | RowError) -> str | None:
    if isinstance(event, RowError):
        return str(event)
    if event.isascii():
        return None
    try:
        event.encode()
    except UnicodeEncodeError:
        return "not UTF-8"
    return None


def run(
    work: Iterable[Batch],
    sender: Sender,
    outcome: Outcome,
    *,
    concurrency: int,
    skip_bad_rows: bool,
    progress: Progress,
) -> None:
    """Send all batches. `outcome` grows in file order, whatever order the answers come in."""
    waiting: deque[tuple[Batch, Future[list[RowFailure]]]] = deque()
    with ThreadPoolExecutor(concurrency, "meterline-import") as pool:
        try:
            for batch in work:
                waiting.append((batch, pool.submit(sender.send, batch)))
                while len(waiting) > concurrency or (waiting and waiting[0][1].done()):
                    _settle(*waiting.popleft(), outcome, skip_bad_rows)
                    progress(outcome)
            while waiting:
                _settle(*waiting.popleft(), outcome, skip_bad_rows)
                progress(outcome)
        except ImportStopped as error:
            outcome.stopped = str(error)
        finally:
            sender.cancel()
            for _, future in waiting:
                future.cancel()


def _settle(
    batch: Batch, future: Future[list[RowFailure]], outcome: Outcome, skip_bad_rows: bool
) -> None:
    """Wait for a batch and count it. Raises ImportStopped when the import must end there."""
    refused = future.result()
    failures = sorted([*batch.failures, *refused], key=lambda failure: failure.line)
    outcome.failed += len(failures)
    outcome.failures += failures[: MAX_FAILURES_KEPT - len(outcome.failures)]
    if refused and not skip_bad_rows:
        raise ImportStopped("a row was refused")
    outcome.rows = batch.rows_through
    outcome.sent += len(batch.events) - len(refused)
    if batch.events:
        outcome.last_event = batch.events[-1]
    if failures and not skip_bad_rows:
        raise ImportStopped("a row is bad")
    if batch.end:
        raise ImportStopped(batch.end)
