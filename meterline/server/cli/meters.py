"""`meterline meters`: look at a server's meters, and make them as a file declares."""

from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import TypeAdapter
from pydantic import ValidationError as PydanticError
from rich.table import Table

from meterline.kernel.errors import ConflictError, ValidationError
from meterline.server.cli.http import Api
from meterline.server.cli.options import DEFAULT_URL, ApiKey, Url
from meterline.server.cli.output import print_table
from meterline.server.declared import (
    Change,
    DeclaredMeter,
    ExistingMeter,
    creation_body,
    declared_specs,
    describe_changes,
    plan_changes,
    update_body,
)
from meterline.server.settings import PlainLoader

app = typer.Typer(
    no_args_is_help=True,
    help="List a server's meters, and make them as a file declares. The file is `meterline.yaml`"
    " with a list `meters`; the server reconciles its own file at each start.",
)
File = Annotated[Path, typer.Argument(help="File with a list `meters`.")]


@app.command("list")
def list_meters(
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="As the API answers.")] = False,
) -> None:
    """Show the meters."""
    with Api(url, api_key) as api:
        if as_json:
            typer.echo(api.call("GET", "/api/v1/meters").text)
            return
        meters = api.json("GET", "/api/v1/meters")
    table = Table("slug", "aggregation", "event type", "value", "group by", box=None)
    for meter in meters:
        table.add_row(
            meter["slug"],
            meter["aggregation"],
            meter["eventType"],
            meter.get("valueProperty") or "",
            ", ".join(meter.get("groupBy") or {}),
        )
    if meters:
        print_table(table)
    else:
        typer.echo("no meter yet: declare one in meterline.yaml")


@app.command("diff")
def diff(
    file: File = Path("meterline.yaml"), url: Url = DEFAULT_URL, api_key: ApiKey = None
) -> None:
    """Show what `apply` would change. Ends with 1 when something differs."""
    with Api(url, api_key) as api:
        changes = _changes(api, file)
    _show(changes)
    if changes:
        raise typer.Exit(1)


@app.command("apply")
def apply(
    file: File = Path("meterline.yaml"),
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Where a meter cannot be changed, delete it and make it anew. Events stay.",
        ),
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Create and change meters until they are as the file declares. Others are left alone."""
    with Api(url, api_key) as api:
        changes = _changes(api, file)
        _show(changes)
        if not replace and any(change.kind == "replace" for change in changes):
            raise ConflictError(
                "nothing was changed: the meters with `!` would be other meters. Give them"
                " another slug, or apply with --replace"
            )
        for change in changes:
            _apply(api, change)


def _apply(api: Api, change: Change) -> None:
    path = f"/api/v1/meters/{change.spec.slug}"
    if change.kind == "update":
        api.call("PUT", path, body=update_body(change.spec))
        return
    if change.kind == "replace":
        api.call("DELETE", path)
    api.call("POST", "/api/v1/meters", body=creation_body(change.spec))


def _changes(api: Api, file: Path) -> list[Change]:
    specs = declared_specs(read_declarations(file))
    existing = api.json("GET", "/api/v1/meters")
    return plan_changes(specs, [ExistingMeter(**meter).spec() for meter in existing])


def read_declarations(file: Path) -> list[DeclaredMeter]:
    """The declared meters of a file: a mapping with `meters`, or the list itself."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=PlainLoader)
        meters = content.get("meters", []) if isinstance(content, dict) else content
        return TypeAdapter(list[DeclaredMeter]).validate_python(meters)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValidationError(f"{file}: {error}") from None
    except PydanticError as error:
        faults = [
            f"meters.{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        ]
        raise ValidationError(f"{file}: {'; '.join(faults)}") from None


def _show(changes: list[Change]) -> None:
    for line in describe_changes(changes):
        typer.echo(line)
    if not changes:
        typer.echo("nothing to change: the meters are as declared")
