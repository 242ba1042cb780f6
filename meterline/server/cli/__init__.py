"""The `meterline` command. Commands import what they need when they run: help must be quick."""

import sys

import typer
from rich.console import Console

from meterline.kernel.errors import MeterlineError
from meterline.server.cli import entitlements, keys, local, meters, prices, query, scenario
from meterline.server.cli.demo import demo_command
from meterline.server.cli.importer import import_command
from meterline.server.cli.migrate_data import migrate_data_command
from meterline.version import __version__

_EPILOG = """
[bold]In five minutes[/bold]\n
meterline serve                                        # a server on http://127.0.0.1:8888\n
meterline meters apply meterline.yaml                  # declare meters\n
meterline import usage.csv --type request --subject-column user\n
meterline query tokens --window-size DAY --group-by model\n
Settings come from flags, then METERLINE_* variables, then meterline.yaml:\n
--set ingest.require_subject=false is METERLINE_INGEST__REQUIRE_SUBJECT=false.
"""

app = typer.Typer(
    name="meterline",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"meterline {__version__}")
        raise typer.Exit


@app.callback(epilog=_EPILOG)
def root(
    version: bool = typer.Option(
        False, "--version", help="Show the version.", callback=_show_version, is_eager=True
    ),
) -> None:
    """Usage metering: CloudEvents in, exact meters out."""


app.command("serve")(local.serve_command)
app.command("import")(import_command)
app.command("query")(query.query_command)
app.add_typer(meters.app, name="meters")
app.add_typer(keys.app, name="keys")
app.add_typer(entitlements.app, name="entitlements")
app.add_typer(scenario.app, name="scenario")
app.command("migrate")(local.migrate_command)
app.command("migrate-data")(migrate_data_command)
app.command("doctor")(local.doctor_command)
app.add_typer(prices.app, name="prices")
app.command("reprice")(prices.reprice_command)
app.command("rebuild-usage")(local.rebuild_usage_command)
app.command("demo")(demo_command)


def main() -> None:
    """The console script's entry point: errors of ours are one sentence, not a traceback."""
    try:
        app()
    except MeterlineError as error:
        Console(stderr=True, soft_wrap=True).print(
            f"error: {error.detail or error.title}", markup=False, highlight=False
        )
        sys.exit(1)
