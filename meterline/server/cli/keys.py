"""`meterline keys`: API keys of a data folder, with or without a server running on it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from meterline.kernel.access import DEFAULT_NAMESPACE, SCOPES
from meterline.kernel.clock import system_clock
from meterline.server.cli.options import Config, DataDir, settings_from
from meterline.server.cli.output import print_table
from meterline.server.settings import Settings
from meterline.web.keys import KeyService

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True,
    help="Create, list and revoke API keys, offline on the data folder. A running server sees"
    " the change within a second.",
)


@app.command("create")
def create(
    scope: Annotated[
        list[str],
        typer.Option(help=f"What the key may do: {', '.join(SCOPES)}; may be repeated."),
    ] = ["ingest", "read"],  # noqa: B006  # typer's way to default a list; nothing changes it
    namespace: Annotated[
        str, typer.Option(help="Tenant of the key; it sees nothing of the others.")
    ] = DEFAULT_NAMESPACE,
    name: Annotated[str, typer.Option(help="For people: what the key is for.")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the key alone.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make a key and show it, this once: only its hash is kept.

    With the first key the server stops being open: every request needs a key from then on.
    """
    settings = settings_from(config, data_dir)
    key, text = _run(settings, lambda service: service.create(namespace, scope, name))
    typer.echo(text)
    if not quiet:
        typer.echo(
            f"id {key.id}, namespace {key.namespace}, scopes {', '.join(sorted(key.scopes))}\n"
            "Keep it now; it cannot be shown again. Use it as: Authorization: Bearer <key>",
            err=True,
        )


@app.command("list")
def list_keys(
    namespace: Annotated[str | None, typer.Option(help="Of this tenant only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Show the keys in use, never the keys themselves."""
    keys = _run(settings_from(config, data_dir), lambda service: service.list(namespace))
    rows = [
        (
            key.id,
            key.prefix,
            key.namespace,
            key.name,
            ",".join(sorted(key.scopes)),
            key.created_at.isoformat(timespec="seconds"),
        )
        for key in keys
    ]
    columns = ("id", "prefix", "namespace", "name", "scopes", "created")
    if as_json:
        typer.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows]))
        return
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*row)
    if rows:
        print_table(table)
    else:
        typer.echo("no key in use")


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id that `list` shows.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Revoke a key for good. Revoking the last one does not open the server again."""
    _run(settings_from(config, data_dir), lambda service: service.revoke(key_id))
    typer.echo(f"revoked {key_id}")


def _run(settings: Settings, work: Callable[[KeyService], Awaitable[T]]) -> T:
    async def run() -> T:
        async with _key_service(settings) as service:
            return await work(service)

    return asyncio.run(run())


@asynccontextmanager
async def _key_service(settings: Settings) -> AsyncIterator[KeyService]:
    from meterline.db.keys import SqlKeyStore
    from meterline.server.stores import opened_database

    async with opened_database(settings) as database:
        yield KeyService(SqlKeyStore(database), system_clock)
