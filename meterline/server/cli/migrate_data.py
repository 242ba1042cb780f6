"""`meterline migrate-data`: from one data folder into a deployment."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from meterline.server.cli.options import Assignments, Config, settings_from
from meterline.server.cli.output import print_table

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from aggregator.moved import Figures
    from meterline.server.moving.move import Moved
    from meterline.server.settings import Settings


def migrate_data_command(
    folder: Annotated[
        Path | None, typer.Option("--from", help="The data folder to move; its server is stopped.")
    ] = None,
    from_config: Annotated[
        Path | None, typer.Option(help="Or the settings file of the server that has it.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what was moved so far and begin anew.")
    ] = False,
    warm: Annotated[
        bool, typer.Option(help="At the end, calculate the balances that quick checks need.")
    ] = True,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Move a data folder into a deployment on Kafka, ClickHouse and PostgreSQL.

    The settings name the deployment: empty databases, and no server running on it. Stop the
    folder's server as well; the folder stays, as a backup. All of it is moved: events with their
    order, times and conflicts, what keeps an event from counting twice, meters, entitlements,
    grants, holds, plans, keys.

    It can be killed and run again at any time, and goes on where it was. At the end it compares
    both sides and prints the totals of every meter; only when they agree may servers start. It ends
    with 1 when anything differs. Run again after that, it moves nothing and compares once more.

    Example:

    meterline migrate-data --from data --config deployment.yaml
    """
    from meterline.server.logs import configure_logging

    settings = settings_from(config, None, assignments)
    configure_logging("warning", settings.server.log_format)
    source = _source(settings, folder, from_config)
    console = Console(stderr=True)
    moved = asyncio.run(_moved(source, settings, console, restart=restart))
    _print(moved)
    if not moved.report.agrees:
        console.print("the two sides differ: see above", style="red")
        if not moved.was_done:
            console.print("no server starts on the deployment; try --restart")
        raise typer.Exit(1)
    if moved.was_done:
        console.print("nothing is left to move: all of it is there")
        return
    if warm:
        from meterline.server.maintenance import warm_usage

        console.print(f"{asyncio.run(warm_usage(settings))} balances calculated for quick checks")
    console.print(
        "all of it is there: start the deployment's servers, and the folder's never again"
    )


def _source(settings: "Settings", folder: Path | None, from_config: Path | None) -> "Settings":
    from meterline.server.moving.source import source_settings
    from meterline.server.settings import load_file

    if (folder is None) == (from_config is None):
        raise typer.BadParameter("give --from FOLDER, or --from-config FILE")
    if folder is None:
        assert from_config is not None
        folder = load_file(from_config).server.data_dir
    return source_settings(settings, folder)


async def _moved(
    source: "Settings", settings: "Settings", console: Console, *, restart: bool
) -> "Moved":
    from meterline.server.moving.move import move_data

    with _told(console) as tell:
        return await move_data(source, settings, tell, restart=restart)


@contextmanager
def _told(console: Console) -> Iterator["_Bars"]:
    # Imported here so that `meterline --help` stays quick.
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} {task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars = _Bars(progress, console)
        yield bars
        bars.end()


class _Bars:
    """A bar for each part of a move; a line for each in a pipe."""

    def __init__(self, progress: "Progress", console: Console) -> None:
        self._progress = progress
        self._console = console
        self._task: TaskID | None = None
        self._what = ""
        self._done = 0

    def begin(self, what: str, total: int | None, done: int = 0) -> None:
        """See `Tell.begin`."""
        self.end()
        self._what, self._done = what, done
        self._task = self._progress.add_task(what, total=total, completed=done, rate="")

    def advance(self, count: int) -> None:
        """See `Tell.advance`."""
        assert self._task is not None
        self._done += count
        speed = self._progress.tasks[self._task].speed
        rate = f"({speed:,.0f}/s)" if speed else ""
        self._progress.update(self._task, advance=count, rate=rate)

    def say(self, text: str) -> None:
        """See `Tell.say`."""
        self._console.print(text, markup=False, highlight=False)

    def end(self) -> None:
        """The part that was begun is over."""
        if self._task is not None and not self._console.is_terminal:
            self.say(f"{self._what}: {self._done:,}")
        self._task = None


def _print(moved: "Moved") -> None:
    from meterline.server.moving.verify import shown

    report = moved.report
    table = Table("namespace", "events", "moved", "conflicts", "moved", "", box=None)
    for one in report.namespaces:
        numbers = (
            one.folder.counted,
            one.moved.counted,
            one.folder.conflicts,
            one.moved.conflicts,
        )
        table.add_row(one.namespace, *map(str, numbers), _mark(one.agrees))
    print_table(table)
    headers = ("namespace", "meter", "", "total", "moved", "events", "moved", "subjects", "moved")
    table = Table(*headers, "", box=None)
    for meter in report.meters:
        folder, there = meter.folder, meter.moved
        table.add_row(
            meter.meter.namespace,
            meter.meter.slug,
            meter.meter.aggregation.value,
            shown(folder.value),
            "changed since" if there is None else shown(there.value),
            *_pair(folder, there, "events"),
            *_pair(folder, there, "subjects"),
            _mark(meter.agrees),
        )
    print_table(table)
    for text in report.others:
        typer.echo(f"differs: {text}")


def _pair(folder: "Figures", there: "Figures | None", name: str) -> tuple[str, str]:
    return str(getattr(folder, name)), "" if there is None else str(getattr(there, name))


def _mark(agrees: bool) -> str:
    return "[green]same" if agrees else "[red]differs"
