"""One import from its options to its report: progress bar, checkpoint, result."""

import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from meterline.server.cli.import_checkpoint import Checkpoint, CheckpointFile, state_dir
from meterline.server.cli.import_read import (
    Format,
    MappedRow,
    Source,
    guess_format,
    mapped_rows,
    open_source,
)
from meterline.server.cli.import_rows import RowError, RowMapping
from meterline.server.cli.import_run import Outcome, batches, run
from meterline.server.cli.import_send import Sender

_CHECKPOINT_SECONDS = 1.0
_SHOWN_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that the command line says about an import."""

    file: Path | None
    mapping: RowMapping
    url: str
    api_key: str | None
    file_format: Format | None
    delimiter: str | None
    batch_size: int
    concurrency: int
    skip_bad_rows: bool
    restart: bool
    give_up_after_seconds: float
    errors_to: Path | None

    def identity(self) -> str:
        """What must be the same for a checkpoint to be of use."""
        return f"{self.url}\n{self.mapping}\n{self.file_format}\n{self.delimiter}"


def import_file(job: Job, console: Console) -> bool:
    """Run the job and tell about it on the console. True when every row was taken."""
    source = open_source(job.file)
    headers = {"authorization": f"Bearer {job.api_key}"} if job.api_key else {}
    limits = httpx.Limits(max_connections=job.concurrency)
    started = time.monotonic()
    with (
        closing(source),
        httpx.Client(base_url=job.url, headers=headers, limits=limits, timeout=60.0) as client,
    ):
        sender = Sender(
            client,
            skip_bad_rows=job.skip_bad_rows,
            give_up_after_seconds=job.give_up_after_seconds,
        )
        keeper = _Keeper(job, sender, console)
        outcome = Outcome(rows=keeper.resume_at())
        with (
            closing(_rows(job, source, outcome.rows)) as rows,
            _progress_bar(source, _name(job), outcome.rows, console) as show,
        ):

            def progress(now: Outcome) -> None:
                show(now)
                keeper.keep(now)

            try:
                run(
                    batches(
                        rows,
                        job.batch_size,
                        rows_before=outcome.rows,
                        stop_at_bad=not job.skip_bad_rows,
                    ),
                    sender,
                    outcome,
                    concurrency=job.concurrency,
                    skip_bad_rows=job.skip_bad_rows,
                    progress=progress,
                )
            except KeyboardInterrupt:
                outcome.stopped = "interrupted"
            finally:
                keeper.keep(outcome, now=True)
    if not outcome.stopped:
        keeper.done()
    _report(job, outcome, time.monotonic() - started, console)
    return not outcome.stopped


def _name(job: Job) -> str:
    return job.file.name if job.file else "stdin"


def _rows(job: Job, source: Source, skip: int) -> Generator[MappedRow]:
    file_format = job.file_format or guess_format(_name(job), source.first_bytes())
    if file_format == "csv" and job.mapping.type is None:
        raise RowError("CSV rows need a --type (and --subject-column, --time-column, …)")
    delimiter = job.delimiter or ("\t" if ".tsv" in _name(job).lower() else ",")
    yield from mapped_rows(source.stream, file_format, job.mapping, delimiter=delimiter, skip=skip)


class _Keeper:
    """Keeps the checkpoint of a job; does nothing for standard input."""

    def __init__(self, job: Job, sender: Sender, console: Console) -> None:
        self._file = CheckpointFile(state_dir(), job.file, job.identity()) if job.file else None
        self._restart = job.restart
        self._sender = sender
        self._console = console
        self._kept_at = time.monotonic()

    def resume_at(self) -> int:
        """How many rows an earlier run has done for sure."""
        saved = self._file.load() if self._file and not self._restart else None
        if saved is None or not self._sender.stored(saved.source, saved.event_id):
            return 0
        self._console.print(f"going on after row {saved.rows:,}", highlight=False)
        return saved.rows

    def keep(self, outcome: Outcome, *, now: bool = False) -> None:
        """Save how far we are, at most once a second unless `now`."""
        if self._file is None or not outcome.last_event:
            return
        if not now and time.monotonic() - self._kept_at < _CHECKPOINT_SECONDS:
            return
        self._kept_at = time.monotonic()
        event = json.loads(outcome.last_event)
        with suppress(OSError):  # a checkpoint only saves time
            self._file.save(
                Checkpoint(outcome.rows, event.get("source", ""), event["id"], self._file.head)
            )

    def done(self) -> None:
        """The import is complete."""
        if self._file is not None:
            with suppress(OSError):
                self._file.clear()


@contextmanager
def _progress_bar(
    source: Source, name: str, rows_before: int, console: Console
) -> Iterator[Callable[[Outcome], None]]:
    """A bar that follows the bytes read of the file; silent when nobody looks."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows, {task.fields[rate]:,.0f} rows/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=source.size, rows=rows_before, rate=0.0)

        def show(outcome: Outcome) -> None:
            rate = (outcome.rows - rows_before) / max(time.monotonic() - started, 1e-6)
            bar.update(task, completed=source.position(), rows=outcome.rows, rate=rate)

        yield show


def _report(job: Job, outcome: Outcome, seconds: float, console: Console) -> None:
    say = partial(console.print, markup=False, highlight=False)
    for failure in outcome.failures[:_SHOWN_FAILURES]:
        say(f"line {failure.line}: {failure.reason}", style="red")
    if outcome.failed > _SHOWN_FAILURES:
        say(f"… and {outcome.failed - _SHOWN_FAILURES:,} more bad rows", style="red")
    if job.errors_to is not None:
        lines = [json.dumps({"line": it.line, "reason": it.reason}) for it in outcome.failures]
        job.errors_to.write_text("".join(f"{line}\n" for line in lines))
    rate = outcome.sent / max(seconds, 1e-6)
    say(f"{outcome.sent:,} events stored in {seconds:.1f} s ({rate:,.0f} events/s)", end="")
    say(f", {outcome.failed:,} bad rows left out" if job.skip_bad_rows else "")
    if outcome.stopped:
        say(f"stopped after row {outcome.rows:,}: {outcome.stopped}", style="red")
        if job.file:
            say("run the same command again to go on from there")
