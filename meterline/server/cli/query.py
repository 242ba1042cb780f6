"""`meterline query`: ask a meter of a running server."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from meterline.kernel.errors import ValidationError
from meterline.kernel.windows import WindowSize
from meterline.server.cli.http import Api
from meterline.server.cli.options import DEFAULT_URL, ApiKey, Url
from meterline.server.cli.output import print_table


class Format(StrEnum):
    """How the answer is printed."""

    table = "table"
    json = "json"
    csv = "csv"


def query_command(
    meter: Annotated[str, typer.Argument(help="Slug or id of the meter.")],
    since: Annotated[
        str | None, typer.Option("--from", help="First instant, e.g. 2026-01-01T00:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="End, itself not included.")] = None,
    window_size: Annotated[
        WindowSize | None,
        typer.Option(case_sensitive=False, help="A row a window; without it, one in all."),
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="Where days and months begin, e.g. Europe/Berlin.")
    ] = None,
    subject: Annotated[
        list[str] | None, typer.Option(help="Of this subject only; may be repeated.")
    ] = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option(help="A row a value of this key, or `subject`; may be repeated."),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="KEY=VALUE", help="Only this value; may be repeated."),
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Ask a meter and print the answer, every digit of it.

    meterline query tokens --window-size DAY --group-by model --from 2026-01-01T00:00:00Z
    """
    params = [
        *_given("from", since),
        *_given("to", until),
        *_given("windowSize", window_size.value if window_size else None),
        *_given("windowTimeZone", time_zone),
        *(("subject", one) for one in subject or ()),
        *(("groupBy", one) for one in group_by or ()),
        *(_filter(one) for one in filters or ()),
    ]
    path = f"/api/v1/meters/{quote(meter, safe='')}/query"
    with Api(url, api_key) as api:
        if output is Format.table:
            print_rows(api.json("GET", path, params=params)["data"])
        else:
            accept = "text/csv" if output is Format.csv else "application/json"
            typer.echo(api.call("GET", path, params=params, accept=accept).text.rstrip("\n"))


def _given(name: str, value: str | None) -> Sequence[tuple[str, str]]:
    return [] if value is None else [(name, value)]


def _filter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValidationError(f"--filter takes KEY=VALUE, not {text!r}")
    return f"filterGroupBy[{key}]", value


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """The rows of an answer as a table."""
    if not rows:
        typer.echo("no usage")
        return
    keys = list(dict.fromkeys(key for row in rows for key in row.get("groupBy") or {}))
    with_subject = any(row.get("subject") is not None for row in rows)
    columns = ["from", "to", *(["subject"] if with_subject else []), *keys]
    table = Table(*columns, box=None)
    table.add_column("value", justify="right")
    for row in rows:
        cells = [row.get("windowStart"), row.get("windowEnd")]
        cells += [row.get("subject")] if with_subject else []
        cells += [(row.get("groupBy") or {}).get(key) for key in keys]
        value = row["value"]
        table.add_row(*(cell or "" for cell in cells), f"{value:,}" if value is not None else "")
    print_table(table)
