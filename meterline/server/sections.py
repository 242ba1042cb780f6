"""What each section of the settings says; `settings.py` reads them.

The sections of the log, the store and the database are in `backends.py`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

MIB = 1024 * 1024

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A group of settings; a name that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Section):
    """Where the server listens, what it does, and where it keeps its data."""

    role: Literal["all", "ingest", "sink", "api"] = Field(
        "all",
        description="`ingest` takes events, `sink` stores them, `api` answers everything; `all`"
        " does it in one process.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8888, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    data_dir: Path = Field(Path("data"), description="Folder that holds all data of the server.")
    start_wait_seconds: float = Field(
        60.0,
        ge=0,
        description="How long a start waits for Kafka, ClickHouse or PostgreSQL to be reached.",
    )
    shutdown_grace_seconds: Seconds = Field(
        20.0, description="How long a stop waits for requests in flight."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least severe log lines that are written."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="`json` writes one object a line, `console` is for people; `auto` is `console`"
        " on a terminal, else `json`.",
    )


class IngestSettings(Section):
    """What `POST /api/v1/events` accepts. Beyond a size of the request: 413; of an event: 400."""

    require_subject: bool = Field(True, description="Refuse events that have no `subject`.")
    max_body_bytes: Positive = Field(16 * MIB, description="Largest request body, as sent.")
    max_decompressed_bytes: Positive = Field(
        64 * MIB, description="Largest gzip or zstd body once decompressed."
    )
    max_batch_events: Positive = Field(10_000, description="Most events in one request.")
    max_depth: Positive = Field(
        128, description="Deepest nesting of `data`; `data` itself is level 1."
    )
    max_members: Positive = Field(
        10_000, description="Most object members and array elements in one event's `data`."
    )
    max_number_digits: Positive = Field(256, description="Longest JSON number, in characters.")
    max_attribute_length: Positive = Field(
        2_048, description="Longest value of an attribute, in characters."
    )
    max_attribute_name_length: Positive = Field(
        64, description="Longest name of an extension attribute, in characters."
    )
    max_extensions: Positive = Field(64, description="Most extension attributes of one event.")
    max_reported_errors: Positive = Field(
        100, description="Most bad events that one answer lists; it always says how many there are."
    )
    max_buffered_bytes: Positive = Field(
        256 * MIB, description="Request bodies in memory at a time; beyond it, 503."
    )
    body_timeout_seconds: Seconds = Field(
        30.0, description="How long a client may take to send its body."
    )


class SinkSettings(Section):
    """The sink, which brings acknowledged events into the event store."""

    max_plan_events: Positive = Field(100_000, description="Most events stored in one step.")
    linger_seconds: float = Field(
        0.2, ge=0, le=10, description="How long a small step waits for more events."
    )
    retry_seconds: Seconds = Field(
        1.0, description="Wait after a step that failed; doubled up to 30 s while it fails."
    )
    stalled_after_seconds: Seconds = Field(
        30.0, description="Not ready when events wait and none was stored for this long."
    )
    plans_at_once: Positive = Field(
        2,
        description="Steps that one process is at, each in memory: of as many partitions, or of one"
        " and its next.",
    )
    release_seconds: Seconds = Field(
        5.0, description="How long a partition that another process takes over may finish its step."
    )


class AuthSettings(Section):
    """API keys. Keys themselves are made with `meterline keys create`."""

    remember_seconds: float = Field(
        0.5,
        ge=0,
        le=0.75,
        description="How long a key is believed before it is looked up again; a revocation is"
        " seen this much later, and a quarter of a second.",
    )
    wait_seconds: Seconds = Field(
        5.0, description="How long the database may take to tell who calls; then 503."
    )
    first_key: SecretStr | None = Field(
        None,
        description="An administrator's key that is made at the start if no key was ever made,"
        " so that servers which listen to others can be reached: `ml_`, 12 of a-z and 0-9, `_`,"
        " and 43 of A-Z, a-z, 0-9, `_` and `-`, all of them random.",
    )


class PortalSettings(Section):
    """Portal tokens, with which a subject reads its own usage."""

    default_lifetime_seconds: Positive = Field(
        3_600, description="Life of a token whose request names no `expiresAt`."
    )
    max_lifetime_seconds: Positive = Field(86_400, description="Longest life of a token.")
    secret: SecretStr | None = Field(
        None,
        min_length=32,
        description="Signing secret; one is made and kept in the database when not given.",
    )
    allowed_origins: tuple[str, ...] = Field(
        ("*",), description="Web origins that may call the portal from a browser."
    )


class QuerySettings(Section):
    """Limits of meter queries."""

    timeout_seconds: Seconds = Field(30.0, description="Longest a query may run.")
    memory_bytes: Positive = Field(1024 * MIB, description="Most memory one query may use.")
    concurrency: int = Field(4, ge=2, le=64, description="Statements that run at the same time.")
    max_subjects: Positive = Field(100, description="Most subjects in one query.")
    max_windows: Positive = Field(100_000, description="Most windows between `from` and `to`.")
    max_rows: Positive = Field(100_000, description="Most rows of one answer.")
    max_listed: Positive = Field(
        10_000, description="Most subjects, or values of a groupBy key, in one list."
    )


class EntitlementSettings(Section):
    """Limits of features, entitlements, grants and of what is asked of them."""

    max_features: Positive = Field(
        10_000, description="Most features of a namespace that are not archived."
    )
    max_filter_values: Positive = Field(
        100, description="Most values that a feature allows for one groupBy key."
    )
    max_entitlements: Positive = Field(
        1_000, description="Most entitlements of one subject that have not ended."
    )
    max_grants: Positive = Field(
        1_000, description="Most grants of one entitlement, ended ones included."
    )
    max_resets: Positive = Field(10_000, description="Most resets by hand of one entitlement.")
    max_config_bytes: Positive = Field(
        65_536, description="Largest `config` of a static entitlement."
    )
    max_subject_length: Positive = Field(2_048, description="Longest subject, in characters.")
    min_interval_seconds: Positive = Field(
        3_600, description="Shortest usage period and recurrence."
    )
    max_steps: Positive = Field(
        20_000,
        description="Most usage periods and recurrences that one request may make from the past,"
        " or ask about in the future.",
    )
    max_windows: Positive = Field(20_000, description="Most windows of one history.")
    default_page: Positive = Field(100, description="Items on a page when none are said.")
    max_page: Positive = Field(1_000, description="Most items of one listing.")
    wait_seconds: Seconds = Field(
        5.0, description="How long `wait=true` waits for acknowledged events; then 503."
    )
    concurrent_reads: Positive = Field(
        4, description="Reads of the event store that one request makes at the same time."
    )


class NotificationSettings(Section):
    """Webhooks that tell of balances, resets, grants and rejected events."""

    enabled: bool = Field(True, description="Look for events and send webhooks in this process.")
    allow_private_targets: bool = Field(
        False,
        description="Send to addresses that are not on the public internet, such as those of"
        " this machine. Whoever may make channels can then reach into your network.",
    )
    timeout_seconds: float = Field(
        20.0, ge=1, le=30, description="How long a receiver may take to answer."
    )
    concurrency: int = Field(
        32, ge=1, le=256, description="Most webhooks on their way at the same time."
    )
    endpoint_concurrency: int = Field(
        4, ge=1, le=64, description="Most webhooks on their way to one channel."
    )
    poll_seconds: float = Field(
        0.5, ge=0.05, le=60, description="How often to look for what is due."
    )
    look_seconds: float = Field(
        3_600.0,
        ge=60,
        description="How often an entitlement is looked at although nothing was told of it.",
    )
    untold_seconds: float = Field(
        60.0,
        ge=1,
        description="The same for meters that do not add up: UNIQUE_COUNT, LATEST and MAX.",
    )
    disable_after_seconds: Seconds = Field(
        432_000.0,
        description="A channel of which every attempt failed for so long is disabled.",
    )
    retention_days: Positive = Field(90, description="How long events are kept.")
    rejected_seconds: Seconds = Field(
        60.0, description="How long rejected events are counted before one event tells of all."
    )


class TelemetrySettings(Section):
    """What the server tells about itself."""

    metrics: bool = Field(True, description="Serve Prometheus metrics at `/metrics`.")
    otlp_endpoint: str | None = Field(
        None,
        description="OTLP/HTTP address that takes traces; needs the `telemetry` extra.",
    )
    service_name: str = Field("meterline", description="Name of this server in traces.")
    sample_ratio: float = Field(0.01, ge=0, le=1, description="Share of requests that are traced.")
