"""Where tables are in a deployment, and what statements must call them. Pure.

On one server every table is itself. In a cluster of replicas the tables are replicated ones of the
same names. With shards besides, each server keeps a part in `<name>_local`, and `<name>` is a
`Distributed` table over them, which reads and inserts name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template

from meterline.kernel.errors import ValidationError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_PATH = re.compile(r"[A-Za-z0-9_/{}.-]{1,256}")

SHARDING_KEYS: Mapping[str, str] = {
    # All of a subject is on one shard, so that a read of one subject asks one.
    "events": "cityHash64(ns, subject)",
    "points": "cityHash64(series, subject)",
    "keys": "cityHash64(h)",
    "totals": "cityHash64(series, minute)",
    "faults": "cityHash64(series, part, off, idx)",
}
"""Which shard a row goes to, by table. Answers never depend on it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the tables are spread. The default is one server, and the embedded engine."""

    cluster: str | None = None
    """The name of the cluster in the servers' configuration; None is one server."""
    sharded: bool = False
    """Whether the cluster has more than one shard."""
    replica_path: str = "/clickhouse/tables/{shard}/{database}/{table}"
    """Where the replicas of a table meet in Keeper; the servers fill in their macros."""
    replica_name: str = "{replica}"
    """What tells the replicas of a shard apart."""
    deduplication_window: int = 10_000
    """Inserts that each table remembers, so that one that is sent again changes nothing."""
    deduplication_window_seconds: int = 604_800
    """For how long replicated tables remember them."""

    def __post_init__(self) -> None:
        for text, allowed in (
            (self.cluster or "x", _NAME),
            (self.replica_path, _PATH),
            (self.replica_name, _PATH),
        ):
            if not allowed.fullmatch(text):
                raise ValidationError(f"{text[:64]!r} cannot stand in the layout of tables")
        if self.sharded and self.cluster is None:
            raise ValidationError("tables can only be sharded over a cluster that has a name")

    @property
    def on_cluster(self) -> str:
        """What makes every server of the cluster run a statement of DDL."""
        return "" if self.cluster is None else f" ON CLUSTER '{self.cluster}'"

    def own(self, table: str) -> str:
        """What keeps a table's rows, as CREATE must call it."""
        return f"{table}_local" if self.sharded else table

    def change(self, table: str) -> str:
        """What DELETE, ALTER and TRUNCATE must name, so that all of a table changes."""
        return self.own(table) + self.on_cluster

    @property
    def session(self) -> dict[str, str | int]:
        """Settings without which statements over several shards go wrong."""
        if not self.sharded:
            return {}
        return {
            # An insert has reached its shards when it returns, its token with it.
            "distributed_foreground_insert": 1,
            # A subquery is answered once and sent along, and not asked of each shard anew.
            "distributed_product_mode": "global",
            # INSERT SELECT must spread its rows by the target's key, not leave them where they are.
            "parallel_distributed_insert_select": 0,
            "optimize_skip_unused_shards": 1,
        }

    def render(self, template: str) -> str:
        """A statement of the schema files for this layout."""
        names = {table: self.own(table) for table in SHARDING_KEYS}
        return Template(template).substitute(
            names,
            on_cluster=self.on_cluster,
            merge_tree=self._engine("MergeTree"),
            aggregating=self._engine("AggregatingMergeTree"),
            window=self._window,
        )

    def _engine(self, name: str) -> str:
        if self.cluster is None:
            return name
        return f"Replicated{name}('{self.replica_path}', '{self.replica_name}')"

    @property
    def _window(self) -> str:
        if self.cluster is None:
            return f"non_replicated_deduplication_window = {self.deduplication_window}"
        return (
            f"replicated_deduplication_window = {self.deduplication_window},"
            f" replicated_deduplication_window_seconds = {self.deduplication_window_seconds}"
        )

    def over_shards(self, table: str) -> str | None:
        """The statement that makes a table's `Distributed` face, where there are shards."""
        if not self.sharded:
            return None
        own = self.own(table)
        return (
            f"CREATE TABLE IF NOT EXISTS {table}{self.on_cluster} AS {own} ENGINE = Distributed("
            f"'{self.cluster}', currentDatabase(), '{own}', {SHARDING_KEYS[table]})"
        )
