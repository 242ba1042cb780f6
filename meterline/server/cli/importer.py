"""`meterline import`: loads files of usage, once each row, however often it is run."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from meterline.server.cli import options

if TYPE_CHECKING:
    from meterline.server.cli.import_read import Format
    from meterline.server.cli.import_rows import RowMapping


class FileFormat(StrEnum):
    """What `--format` takes."""

    auto = "auto"
    ndjson = "ndjson"
    json = "json"
    csv = "csv"


class OnError(StrEnum):
    """What to do with a row that cannot be an event, or that the server refuses."""

    stop = "stop"
    skip = "skip"


def import_command(
    file: Annotated[
        Path,
        typer.Argument(help="NDJSON, a JSON array, or CSV; plain, .gz or .zst; - is stdin."),
    ],
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
    file_format: Annotated[
        FileFormat, typer.Option("--format", help="auto: by the name, else by the content.")
    ] = FileFormat.auto,
    event_type: Annotated[
        str | None,
        typer.Option("--type", help="Event type. Without it, rows are CloudEvents (JSON only)."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Event source. [default: import:FILENAME]")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="One subject for every row.")] = None,
    subject_column: Annotated[str | None, typer.Option(help="Column that names it.")] = None,
    time_column: Annotated[
        str | None,
        typer.Option(help="Column of the event's time; without it, events happen now."),
    ] = None,
    time_format: Annotated[
        str,
        typer.Option(
            help="auto (ISO 8601 with T or a space, any fraction, or seconds since 1970), unix, "
            "unix_ms, unix_us, unix_ns, or a strptime pattern. Times without a zone are UTC."
        ),
    ] = "auto",
    id_columns: Annotated[
        str,
        typer.Option(
            help="Columns, with commas between, that identify a row. Without them the id is a "
            "hash of the row's place in the file and its content."
        ),
    ] = "",
    data_columns: Annotated[
        str, typer.Option(help="Columns for `data`. [default: those not used above]")
    ] = "",
    delimiter: Annotated[
        str | None, typer.Option(help="CSV delimiter. [default: a comma; a tab for .tsv]")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=100_000, help="Events a request.")] = 1000,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Connections.")] = 4,
    on_error: Annotated[
        OnError, typer.Option(help="A bad row ends the import, or is left out and reported.")
    ] = OnError.stop,
    errors_to: Annotated[
        Path | None, typer.Option(help="Write bad rows here, as NDJSON of line and reason.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Do not go on from an interrupted run.")
    ] = False,
    give_up_after: Annotated[
        float, typer.Option(min=0, help="Seconds to retry while the server is away or busy.")
    ] = 60.0,
) -> None:
    """Load a file of usage events into a running server, each row once.

    Run it twice, or kill it and run it again: every row counts once, because a row's id never
    changes. An interrupted import goes on where it was.

    Example:

    meterline import azure.csv.gz --type llm.request --source import:azure
    --subject-column service --time-column timestamp --id-columns service,row
    --data-columns context_tokens,generated_tokens
    """
    # Imported here so that `meterline --help` stays quick.
    from rich.console import Console

    from meterline.server.cli.import_job import Job, import_file
    from meterline.server.cli.import_read import READ_ERRORS
    from meterline.server.cli.import_rows import RowMapping

    path = None if str(file) == "-" else file
    mapping = RowMapping(
        type=event_type,
        source=source if source is not None else _default_source(path),
        subject=subject,
        subject_column=subject_column,
        time_column=time_column,
        time_format=time_format,
        id_columns=_names(id_columns),
        data_columns=_names(data_columns),
    )
    _check_options(path, mapping)
    job = Job(
        path,
        mapping,
        url.rstrip("/"),
        api_key,
        None if file_format is FileFormat.auto else cast("Format", file_format.value),
        delimiter,
        batch_size,
        concurrency,
        on_error is OnError.skip,
        restart,
        give_up_after,
        errors_to,
    )
    console = Console(stderr=True)
    try:
        finished = import_file(job, console)
    except READ_ERRORS as error:
        console.print(
            f"error: {error or type(error).__name__}", style="red", markup=False, highlight=False
        )
        raise typer.Exit(1) from None
    if not finished:
        raise typer.Exit(1)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _default_source(path: Path | None) -> str:
    if path is None:
        return "import:stdin"
    name = path.name
    for ending in (".gz", ".zst", ".zstd"):
        name = name.removesuffix(ending)
    return f"import:{name}"


def _check_options(path: Path | None, mapping: "RowMapping") -> None:
    if path is not None and not path.is_file():
        raise typer.BadParameter(f"{path} is not a file", param_hint="FILE")
    if mapping.subject is not None and mapping.subject_column is not None:
        raise typer.BadParameter("give --subject or --subject-column, not both")
    mapped = mapping.subject_column or mapping.time_column or mapping.id_columns
    if mapping.type is None and (mapped or mapping.data_columns or mapping.subject is not None):
        raise typer.BadParameter("to map columns, give the events a --type")
    if mapping.time_format not in ("auto", "unix", "unix_ms", "unix_us", "unix_ns") and (
        "%" not in mapping.time_format
    ):
        raise typer.BadParameter("--time-format is auto, unix, unix_ms, unix_us, unix_ns, or %…")
