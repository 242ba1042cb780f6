"""Settings of what keeps data: the event log, the event store and the relational database.

Each is embedded in the process by default, or a service of its own.
"""

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from meterline.server.sections import Positive, Seconds, Section

_SCHEMES = ("postgresql://", "postgres://", "sqlite:///")


class EventLogSettings(Section):
    """The event log, which holds what is acknowledged and not yet stored."""

    kind: Literal["embedded", "kafka"] = Field(
        "embedded",
        description="`embedded` keeps it in a file of the data folder; `kafka` in the topic that"
        " the section `kafka` names.",
    )
    max_bytes: Positive | None = Field(
        None,
        description="Size of the embedded file at which events are refused (503) until the sink"
        " catches up.",
    )
    compression_level: int = Field(1, ge=1, le=19, description="zstd level of the embedded file.")


class StoreSettings(Section):
    """The event store, which meters are queried from."""

    kind: Literal["embedded", "clickhouse"] = Field(
        "embedded",
        description="`embedded` runs the engine in this process, on the data folder; `clickhouse`"
        " uses the server that the section `clickhouse` names.",
    )


class ClickHouseSettings(Section):
    """The ClickHouse server, or cluster, of `store.kind: clickhouse`."""

    url: str = Field(
        "http://localhost:8123",
        pattern=r"^https?://[^/@?#]+/?$",
        description="`http://host:8123` or `https://host:8443`. Always one and the same server of"
        " a cluster: its memory holds the sink's scratch tables.",
    )
    database: str = Field("default", description="Name of the database; it must exist.")
    user: str = Field("default", description="User name.")
    password: SecretStr = Field(SecretStr(""), description="The user's password.")
    verify: bool = Field(True, description="With https: only a certificate that is trusted.")
    ca_file: str | None = Field(None, description="File of certificates that are trusted.")
    client_certificate: str | None = Field(None, description="File of our certificate.")
    client_key: str | None = Field(None, description="File of its key.")
    connect_timeout_seconds: Positive = Field(5, description="How long connecting may take.")
    statement_timeout_seconds: Positive = Field(
        120, description="How long a statement that writes may run."
    )
    compress: bool = Field(False, description="Compress answers on their way.")
    insert_quorum: int = Field(
        0, ge=0, description="Replicas that must have an insert before it counts as done; 0: any."
    )
    cluster: str | None = Field(
        None, description="Name of the cluster in the servers' configuration; none: one server."
    )
    sharded: bool = Field(False, description="Whether the cluster has more than one shard.")
    replica_path: str = Field(
        "/clickhouse/tables/{shard}/{database}/{table}",
        description="Where the replicas of a table meet in Keeper.",
    )
    replica_name: str = Field("{replica}", description="What tells replicas apart.")
    deduplication_window: Positive = Field(
        10_000, description="Inserts that a table remembers, so that none counts twice."
    )
    deduplication_window_seconds: Positive = Field(
        604_800, description="How long replicated tables remember them."
    )


class DatabaseSettings(Section):
    """The relational database: meters, entitlements, keys, and how far the sinks are."""

    url: SecretStr | None = Field(
        None,
        description="`postgresql://user:password@host/name`. Without it, an SQLite file in the"
        " data folder.",
    )
    readers: int = Field(
        4, ge=1, le=256, description="Transactions that read at the same time, in one process."
    )
    wait_seconds: Seconds = Field(
        30.0, description="How long a request waits for a connection, or for SQLite's lock."
    )
    writers: int = Field(
        8,
        ge=1,
        le=256,
        description="Transactions that write at the same time. PostgreSQL only,"
        " as all that follow; SQLite has one.",
    )
    hot: int = Field(2, ge=1, le=64, description="Connections for quick look-ups.")
    connect_seconds: Seconds = Field(10.0, description="How long making a connection may take.")
    statement_seconds: Seconds = Field(30.0, description="How long one statement may take.")
    lock_seconds: Seconds = Field(
        10.0, description="How long a statement waits for another transaction's lock."
    )
    idle_seconds: Seconds = Field(
        60.0, description="How long a transaction may do nothing before the server ends it."
    )

    @field_validator("url")
    @classmethod
    def _known(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(_SCHEMES):
            raise ValueError("begins with postgresql:// (or sqlite:////, and a path)")
        return url

    @property
    def is_embedded(self) -> bool:
        """Whether it is an SQLite file, which the processes of one machine share at most."""
        return self.url is None or self.url.get_secret_value().startswith("sqlite:")
