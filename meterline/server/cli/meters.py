"""`meterline meters`: look at a server's meters, and make them as a file declares."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.table import Table

from meterline.kernel.errors import ConflictError, ValidationError
from meterline.server.cli.http import Api
from meterline.server.cli.options import DEFAULT_URL, ApiKey, Url
from meterline.server.cli.output import print_table
from meterline.server.declared import Change, describe_changes, plan_changes, update_body
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
        changes = plan_changes(read_declarations(file), api.json("GET", "/api/v1/meters"))
    _show(changes)
    if changes:
        raise typer.Exit(1)


@app.command("apply")
def apply(
    file: File = Path("meterline.yaml"), url: Url = DEFAULT_URL, api_key: ApiKey = None
) -> None:
    """Create and change meters until they are as the file declares. Deletes none."""
    with Api(url, api_key) as api:
        existing = {meter["slug"]: meter for meter in api.json("GET", "/api/v1/meters")}
        changes = plan_changes(read_declarations(file), existing.values())
        _show(changes)
        for change in changes:
            if change.kind == "create":
                api.call("POST", "/api/v1/meters", body=dict(change.document))
            elif change.kind == "update":
                body = update_body(change, existing[change.slug])
                api.call("PUT", f"/api/v1/meters/{change.slug}", body=body)
    if any(change.kind == "conflict" for change in changes):
        raise ConflictError("some meters are not as declared; see the lines with `!`")


def read_declarations(file: Path) -> list[dict[str, Any]]:
    """The declared meters of a file: a mapping with `meters`, or the list itself."""
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=PlainLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValidationError(f"{file}: {error}") from None
    meters = content.get("meters", []) if isinstance(content, dict) else content
    if not isinstance(meters, list):
        raise ValidationError(f"{file}: `meters` must be a list")
    return meters


def _show(changes: list[Change]) -> None:
    for line in describe_changes(changes):
        typer.echo(line)
    if not changes:
        typer.echo("nothing to change: the meters are as declared")
