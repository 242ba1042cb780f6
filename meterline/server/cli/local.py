"""Commands on a data folder: serve, migrate, doctor."""

import asyncio
import gc
from typing import Annotated

import typer
from rich.table import Table

from meterline.kernel.instants import format_instant
from meterline.server.cli.options import Assignments, Config, DataDir, settings_from
from meterline.server.cli.output import print_table


def serve_command(
    role: Annotated[
        str | None,
        typer.Option(help="all, or a part of a larger deployment: ingest, sink, api."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0 picks a free one. [default: 8888]")
    ] = None,
    data_dir: DataDir = None,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Serve the API in this process, with all data in one folder.

    With --role it does a part of the work, beside other processes that share Kafka, ClickHouse and
    PostgreSQL with it: ingest takes events, sink stores them, api answers.

    While no API key exists the server is open, and therefore listens on loopback only. Stop it
    with Ctrl-C or SIGTERM: it finishes what it has accepted.
    """
    # Little of what is made while a server starts is ever garbage. It is on again when it listens.
    gc.disable()
    from meterline.server.logs import configure_logging
    from meterline.server.serve import run

    settings = settings_from(config, data_dir, assignments, host=host, port=port, role=role)
    configure_logging(settings.server.log_level, settings.server.log_format)
    run(settings)


def migrate_command(
    data_dir: DataDir = None, config: Config = None, assignments: Assignments = None
) -> None:
    """Bring database, event store and event log to this version: schemas and topics.

    `serve` does this by itself. Run it alone to see what an upgrade changes, with the server of a
    data folder stopped; in a deployment of several processes, once before they are replaced.
    """
    from meterline.server.maintenance import migrate

    applied = asyncio.run(migrate(settings_from(config, data_dir, assignments)))
    for version in applied:
        typer.echo(f"applied {version}")
    typer.echo("the schema is current" if applied else "nothing to do: the schema is current")


def doctor_command(
    store: Annotated[
        bool,
        typer.Option(
            "--store", help="Check that all that is stored agrees as well; stop the server first."
        ),
    ] = False,
    data_dir: DataDir = None,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Look for what would keep a server from starting or from being fast, and say what to do.

    Works beside a running server, without --store. Ends with 1 when something is wrong.
    """
    from meterline.server.doctor import diagnose
    from meterline.server.maintenance import diagnose_store

    settings = settings_from(config, data_dir, assignments)
    findings = asyncio.run(diagnose(settings))
    if store:
        findings += asyncio.run(diagnose_store(settings))
    table = Table("check", "", "what", box=None)
    for finding in findings:
        mark = {"ok": "[green]ok", "warning": "[yellow]warning", "failed": "[red]failed"}
        table.add_row(finding.name, mark[finding.status], finding.text)
    print_table(table)
    if any(finding.status == "failed" for finding in findings):
        raise typer.Exit(1)


def rebuild_usage_command(
    verify: Annotated[
        bool, typer.Option("--verify", help="Change nothing; say where the two differ.")
    ] = False,
    data_dir: DataDir = None,
    config: Config = None,
    assignments: Assignments = None,
) -> None:
    """Make the live usage of entitlements anew from the event store; stop the server first.

    Live usage is what makes checks fast. It is only a cache: --verify proves that it equals the
    event store, and ends with 1 if it does not.
    """
    from meterline.server.maintenance import rebuild_usage, verify_usage

    settings = settings_from(config, data_dir, assignments)

    async def compare() -> tuple[int, int]:
        rows = differing = 0
        async for one in verify_usage(settings):
            rows += 1
            if not one.agrees:
                differing += 1
                where = f"{one.subject} {one.feature_key} since {format_instant(one.since)}"
                typer.echo(f"{where}: live {one.kept}, event store {one.stored}")
        return rows, differing

    if not verify:
        done = [0]
        asyncio.run(rebuild_usage(settings, lambda count: done.__setitem__(0, count)))
        typer.echo(f"{done[0]} entitlements calculated anew")
    rows, differing = asyncio.run(compare())
    typer.echo(f"{rows} entitlements compared, {differing} differ")
    if differing:
        raise typer.Exit(1)
