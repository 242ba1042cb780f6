"""Settings of what keeps data: the event log, the event store and the relational database.

Each is embedded in the process by default, or a service of its own.
"""

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from meterline.server.sections import MIB, Positive, Seconds, Section

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


class KafkaSettings(Section):
    """The Apache Kafka cluster of `eventlog.kind: kafka`."""

    bootstrap: str = Field(
        "127.0.0.1:9092", description="`host:port` of brokers, several with commas between them."
    )
    topic: str = Field(
        "meterline.events",
        pattern=r"^[A-Za-z0-9._-]{1,200}$",
        description="The topic of events; dead letters go to the same name with `.dead-letters`.",
    )
    group: str = Field("meterline-sinks", min_length=1, description="Consumer group of the sinks.")
    default_namespace: str = Field(
        "default",
        description="Namespace of records of others, when they have no header"
        " `meterline-namespace`.",
    )
    partitions: int = Field(
        12,
        ge=1,
        le=10_000,
        description="Partitions of the topic, and so the most sinks that can work side by side."
        " Fixed for the topic's life.",
    )
    replication: int = Field(3, ge=1, le=32_767, description="Replicas of each partition.")
    min_insync_replicas: int = Field(
        2, ge=1, le=32_767, description="Replicas that have an event before it is acknowledged."
    )
    create_topics: bool = Field(True, description="Make the topics that are missing.")
    retention_seconds: Positive = Field(
        604_800,
        description="How long topics that are made keep events; a sink that is away for longer"
        " loses some, and says so.",
    )
    max_record_bytes: Positive = Field(
        32 * MIB, description="Largest compressed batch that the topics take."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How connections are made."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN", description="How to log in, with SASL."
    )
    sasl_username: str | None = Field(None, description="Who logs in.")
    sasl_password: SecretStr | None = Field(None, description="The password.")
    ssl_ca_file: str | None = Field(
        None, description="File of certificates that are trusted; the system's when not given."
    )
    ssl_cert_file: str | None = Field(None, description="File of our certificate.")
    ssl_key_file: str | None = Field(None, description="File of its key.")
    ssl_check_hostname: bool = Field(
        True, description="Whether a broker's certificate must name the broker."
    )
    compression: Literal["zstd", "lz4", "gzip", "none"] = Field(
        "zstd", description="How batches are compressed."
    )
    delivery_timeout_seconds: Seconds = Field(
        5.0, description="How long a request waits for the brokers; then 503."
    )
    request_timeout_seconds: Seconds = Field(
        10.0, description="How long one request to a broker may take."
    )
    max_batch_bytes: Positive = Field(
        MIB, description="Events of one batch, before compression, in bytes."
    )
    max_waiting_bytes: Positive = Field(
        64 * MIB, description="Events that wait for the brokers, in bytes; beyond it, 503."
    )
    fetch_bytes: Positive = Field(MIB, description="Bytes of one fetch from a partition.")
    prefetch_events: Positive = Field(
        100_000, description="Events of a partition that a sink holds ready at most."
    )
    prefetch_bytes: Positive = Field(
        128 * MIB,
        description="Memory for events that a sink holds ready, over all its partitions, in bytes.",
    )
    session_timeout_seconds: Seconds = Field(
        10.0, description="A sink that is silent for so long loses its partitions to others."
    )
    rebalance_timeout_seconds: Seconds = Field(
        30.0, description="How long a sink may take to let go of its partitions."
    )


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
    statement_seconds: float = Field(
        30.0, ge=0, description="How long one statement may take; 0 is for ever, as below."
    )
    lock_seconds: float = Field(
        10.0, ge=0, description="How long a statement waits for another transaction's lock."
    )
    idle_seconds: float = Field(
        60.0, ge=0, description="How long a transaction may do nothing before the server ends it."
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
