"""`meterline scenario`: see what customers would see of a plan, without waiting for it."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Play plans under a simulated clock.")

File = Annotated[
    Path, typer.Argument(help="A case, or an object with `cases`, as JSON.", show_default=False)
]


@app.command("run")
def run_command(file: File) -> None:
    """Play each case through the whole application, on a temporary folder, at the times it names.

    Prints a JSON line a case: id, passed, and of each step the result or the error, and what was
    not as expected. Ends with 1 when anything was not.
    """
    from meterline.server.logs import configure_logging
    from meterline.server.scenario.cases import read_cases
    from meterline.server.scenario.player import play
    from meterline.web.json import encode

    configure_logging("warning", "auto")

    async def run() -> bool:
        passed = True
        async for result in play(read_cases(file)):
            typer.echo(encode(result))
            passed = passed and result["passed"]
        return passed

    if not asyncio.run(run()):
        raise typer.Exit(1)


@app.command("plot")
def plot_command(
    file: File,
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")],
) -> None:
    """Play each case, and write a page of HTML: the burn-down of each grant over time, and usage.

    Ends with 1 when anything was not as expected; the page is written all the same.
    """
    from meterline.server.logs import configure_logging
    from meterline.server.scenario.cases import read_cases
    from meterline.server.scenario.report import report
    from meterline.server.scenario.stories import tell

    configure_logging("warning", "auto")
    told = asyncio.run(tell(read_cases(file)))
    output.write_text(report(told, f"Scenarios of {file.name}"), encoding="utf-8")
    failed = sum(not one.result["passed"] for one in told)
    typer.echo(f"{output}: {len(told)} played, {failed} not as expected")
    if failed:
        raise typer.Exit(1)
