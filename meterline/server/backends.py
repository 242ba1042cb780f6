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
