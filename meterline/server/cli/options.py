"""Options that several commands share, and the settings that they lead to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from meterline.server.settings import Settings, load_settings, parse_assignments

Config = Annotated[
    Path | None,
    typer.Option(
        envvar="METERLINE_CONFIG", help="Settings file. [default: meterline.yaml, if it is there]"
    ),
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the server's data. [default: data]")]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.NAME=VALUE",
        help="Any setting, e.g. ingest.require_subject=false; may be repeated.",
    ),
]
Url = Annotated[str, typer.Option(envvar="METERLINE_URL", help="The server.")]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="METERLINE_API_KEY", help="API key, once the server has any."),
]
DEFAULT_URL = "http://127.0.0.1:8888"


def settings_from(
    config: Path | None,
    data_dir: Path | None = None,
    assignments: Sequence[str] | None = None,
    **server: object,
) -> Settings:
    """The settings of a command; what is None was not given."""
    flags = parse_assignments(assignments or ())
    given = {"data_dir": data_dir, **server}
    flags |= {f"server.{name}": value for name, value in given.items() if value is not None}
    return load_settings(config, flags=flags)
