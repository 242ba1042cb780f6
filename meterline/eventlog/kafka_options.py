"""How the event log uses an Apache Kafka cluster."""

from dataclasses import dataclass
from typing import Literal

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """Where the brokers are, what the topic is like, and every bound of writer and reader."""

    bootstrap: str = "127.0.0.1:9092"
    """`host:port`, several with commas between them."""

    topic: str = "meterline.events"
    group: str = "meterline-sinks"
    """Consumer group of the sinks; the brokers share the partitions out among its members."""
    default_namespace: str = "default"
    """Namespace of records without the header `meterline-namespace`."""

    partitions: int = 12
    """Of the topic; fixed for its life, since an event's home partition follows from it."""
    replication: int = 3
    min_insync_replicas: int = 2
    """How many replicas have a batch before it is acknowledged."""
    create_topics: bool = True
    """Make the topics that are missing; else that is left to others."""
    retention_seconds: int = 7 * 86_400
    """How long the topics that are made keep records. A sink that is away for longer loses
    events, and says so."""
    max_record_bytes: int = 32 * MIB
    """Largest compressed batch that the topics take: at least as large as the largest event."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = None
    ssl_ca_file: str | None = None
    """Certificates that brokers are checked against; those of the system when not given."""
    ssl_cert_file: str | None = None
    """This client's certificate chain, for brokers that ask for one."""
    ssl_key_file: str | None = None
    ssl_check_hostname: bool = True

    compression: Literal["zstd", "lz4", "gzip", "none"] = "zstd"
    delivery_timeout_seconds: float = 5.0
    """How long an append waits for the brokers' acknowledgement before it is refused (503)."""
    request_timeout_seconds: float = 10.0
    """How long one request to a broker may take."""
    max_batch_bytes: int = 1 * MIB
    """Bytes of events in one batch, before compression; a single larger event makes its own."""
    max_waiting_bytes: int = 64 * MIB
    """Bytes of events that wait for acknowledgement, over all partitions; beyond it, 503."""

    fetch_bytes: int = 1 * MIB
    """Bytes of one fetch from a partition, as compressed; one batch at least."""
    prefetch_events: int = 100_000
    """Events that the reader holds ready for a partition, about."""
    prefetch_bytes: int = 128 * MIB
    """Memory for events that are held ready, over all partitions of the reader, about."""
    session_timeout_seconds: float = 10.0
    """A reader that is silent for so long loses its partitions to others."""
    rebalance_timeout_seconds: float = 30.0
    """How long a reader may take to let go of its partitions."""

    def __repr__(self) -> str:
        """Without the password."""
        return f"KafkaOptions(bootstrap={self.bootstrap!r}, topic={self.topic!r})"

    @property
    def dead_letter_topic(self) -> str:
        """Where records that cannot be used go."""
        return f"{self.topic}.dead-letters"
