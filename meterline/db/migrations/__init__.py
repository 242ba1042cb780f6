"""Numbered changes of the relational schema, run by Alembic in one transaction at start.

To add one: `versions/NNNN_name.py` with `revision = "NNNN"` and `down_revision` set to the number
before it. Write the tables out with `sa.Column`s; a migration never imports today's tables,
because it must keep making yesterday's. There is no way down: restore a backup instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

if TYPE_CHECKING:
    from alembic.config import Config

_BY_LANGUAGE = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0
        AND NOT a.attisdropped AND a.attcollation NOT IN (0, '"C"'::regcollation)
        AND c.relname <> 'alembic_version'
    ORDER BY c.relname, a.attnum
"""
"""Columns of texts that PostgreSQL would compare by language."""

_FOLDER = Path(__file__).parent
_TABLE = "alembic_version"
_LOCK = 7_105_201_017
"""Names our lock among PostgreSQL's advisory locks."""


class SchemaTooNewError(RuntimeError):
    """The database was made by a newer Meterline than this one."""


def configuration() -> Config:
    """Alembic's configuration, without a file."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def versions() -> list[str]:
    """The versions of the schema that this Meterline knows, oldest first."""
    return sorted(file.name[:4] for file in _FOLDER.glob("versions/[0-9]*.py"))


def current(connection: Connection) -> str | None:
    """The version of the schema that the database has, None when it is empty."""
    if not inspect(connection).has_table(_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {_TABLE}")).scalar_one_or_none()
    return None if found is None else str(found)


def upgrade(connection: Connection) -> list[str]:
    """Apply what is missing, inside the caller's transaction; answers the versions applied."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    known = versions()
    before = current(connection)
    if before is not None and before not in known:
        raise SchemaTooNewError(
            f"the database has schema version {before}, this Meterline knows up to {known[-1]}: "
            "install the newer Meterline again, or use another data directory"
        )
    missing = known[known.index(before) + 1 :] if before else known
    if missing:
        from alembic import command  # only here: most starts find nothing to do, and are quicker

        config = configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if connection.dialect.name == "postgresql":
            _compare_bytes(connection)
    return missing


def _compare_bytes(connection: Connection) -> None:
    """Have texts compared as bytes, as SQLite does it: the same everywhere, and quicker.

    Ours are names. What order a language gives them depends on the server's libraries.
    """
    changes: dict[str, list[str]] = {}
    for table, column, kind in connection.execute(text(_BY_LANGUAGE)):
        change = f'ALTER COLUMN "{column}" TYPE {kind} COLLATE "C"'
        changes.setdefault(table, []).append(change)
    for table, of_table in changes.items():
        connection.execute(text(f'ALTER TABLE "{table}" {", ".join(of_table)}'))
