"""`meterline entitlements`: what a subject may use, and how it came to that."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from entitlements.balance.exact import ROOM
from meterline.kernel.quantity import format_number
from meterline.kernel.windows import WindowSize
from meterline.server.cli.http import Api
from meterline.server.cli.options import DEFAULT_URL, ApiKey, Url
from meterline.server.cli.output import print_table

app = typer.Typer(no_args_is_help=True, help="Look at what subjects may use.")

Subject = Annotated[str, typer.Argument(help="Whose.")]
Feature = Annotated[str, typer.Argument(help="Key of the feature, its id or the entitlement's.")]
_BAR = 40


@app.command("value")
def value_command(
    subject: Subject,
    feature: Feature,
    at: Annotated[str | None, typer.Option("--time", help="The instant; now if absent.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Print whether a subject may use a feature, and what is left."""
    with Api(url, api_key) as api:
        params = [] if at is None else [("time", at)]
        value = api.json("GET", f"{_path(subject, feature)}/value", params=params)
    table = Table("", "", box=None, show_header=False)
    for name, figure in value.items():
        if isinstance(figure, dict):
            for grant, balance in figure.items():
                table.add_row(f"grant {grant}", _text(balance))
        else:
            table.add_row(name, _text(figure))
    print_table(table)


@app.command("history")
def history_command(
    subject: Subject,
    feature: Feature,
    since: Annotated[
        str | None, typer.Option("--from", help="The start of the usage period if absent.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Now if absent.")] = None,
    window_size: Annotated[
        WindowSize, typer.Option(case_sensitive=False, help="A row a window.")
    ] = WindowSize.DAY,
    time_zone: Annotated[
        str | None, typer.Option(help="Where days and months begin, e.g. Europe/Berlin.")
    ] = None,
    chart: Annotated[bool, typer.Option("--chart", help="Draw the balance as bars.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Print usage and balance over time.

    meterline entitlements history acme ai_tokens --from 2026-01-01T00:00:00Z --chart
    """
    given = {"from": since, "to": until, "windowSize": window_size, "windowTimeZone": time_zone}
    params = [(name, str(text)) for name, text in given.items() if text is not None]
    with Api(url, api_key) as api:
        told = api.json("GET", f"{_path(subject, feature)}/history", params=params)
    windows = told["windowedHistory"]
    if not windows:
        typer.echo("no whole window yet")
    elif chart:
        typer.echo("\n".join(chart_lines(windows)))
    else:
        print_table(_table(windows))


def chart_lines(windows: Sequence[Mapping[str, Any]], width: int = _BAR) -> Iterator[str]:
    """A line a window: what was left at its end as █, what it used of the balance as ░."""
    starts = [Decimal(one["balanceAtStart"]) for one in windows]
    most = max(max(starts), Decimal(1))
    used = [_text(one["usage"]) for one in windows]
    room = max(map(len, used))
    for window, balance, usage in zip(windows, starts, used, strict=True):
        left = max(ROOM.subtract(balance, Decimal(window["usage"])), Decimal(0))
        full, shade = _cells(left, most, width), _cells(balance, most, width)
        bar = "█" * full + "░" * (shade - full)
        yield f"{window['period']['from']}  {bar:<{width}}  -{usage:<{room}}  {_text(left)} left"


def _cells(amount: Decimal, most: Decimal, width: int) -> int:
    return round(amount / most * width)


def _table(windows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("from", "to", box=None)
    for name in ("usage", "balance at start"):
        table.add_column(name, justify="right")
    for window in windows:
        period = window["period"]
        figures = _text(window["usage"]), _text(window["balanceAtStart"])
        table.add_row(period["from"], period["to"], *figures)
    return table


def _path(subject: str, feature: str) -> str:
    return f"/api/v1/subjects/{quote(subject, safe='')}/entitlements/{quote(feature, safe='')}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Decimal):
        return f"{Decimal(format_number(Decimal(value))):,}"
    return str(value)
