"""The `meterline` command."""

import typer

app = typer.Typer(name="meterline", no_args_is_help=True, add_completion=False)


@app.callback()
def root() -> None:
    """Usage metering: events in, exact meters out."""


def main() -> None:
    """The console script's entry point."""
    app()
