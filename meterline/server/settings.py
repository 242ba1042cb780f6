"""Every setting, with its default and meaning. `docs/configuration.md` is generated from here.

A value comes from the first of: a flag (`--port`, `--set ingest.require_subject=false`), the
environment (`METERLINE_INGEST__REQUIRE_SUBJECT=false`), the file (`meterline.yaml`), the default.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic import ValidationError as PydanticError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from meterline.kernel.errors import FieldError, ValidationError
from meterline.server.declared import DeclaredMeter

MIB = 1024 * 1024
DEFAULT_FILE = Path("meterline.yaml")
ENV_PREFIX = "METERLINE_"

_Positive = Annotated[int, Field(gt=0)]
_Seconds = Annotated[float, Field(gt=0)]


class PlainLoader(yaml.SafeLoader):
    """YAML in which times stay the text that they are, as in JSON."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Section):
    """Where the server listens and keeps its data."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8888, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    data_dir: Path = Field(Path("data"), description="Folder that holds all data of the server.")
    shutdown_grace_seconds: _Seconds = Field(
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


class IngestSettings(_Section):
    """What `POST /api/v1/events` accepts. Beyond a size of the request: 413; of an event: 400."""

    require_subject: bool = Field(True, description="Refuse events that have no `subject`.")
    max_body_bytes: _Positive = Field(16 * MIB, description="Largest request body, as sent.")
    max_decompressed_bytes: _Positive = Field(
        64 * MIB, description="Largest gzip or zstd body once decompressed."
    )
    max_batch_events: _Positive = Field(10_000, description="Most events in one request.")
    max_depth: _Positive = Field(
        128, description="Deepest nesting of `data`; `data` itself is level 1."
    )
    max_members: _Positive = Field(
        10_000, description="Most object members and array elements in one event's `data`."
    )
    max_number_digits: _Positive = Field(256, description="Longest JSON number, in characters.")
    max_attribute_length: _Positive = Field(
        2_048, description="Longest value of an attribute, in characters."
    )
    max_attribute_name_length: _Positive = Field(
        64, description="Longest name of an extension attribute, in characters."
    )
    max_extensions: _Positive = Field(64, description="Most extension attributes of one event.")
    max_reported_errors: _Positive = Field(
        100, description="Most bad events that one answer lists; it always says how many there are."
    )
    max_buffered_bytes: _Positive = Field(
        256 * MIB, description="Request bodies in memory at a time; beyond it, 503."
    )
    body_timeout_seconds: _Seconds = Field(
        30.0, description="How long a client may take to send its body."
    )


class EventLogSettings(_Section):
    """The embedded event log, which holds what is acknowledged and not yet stored."""

    max_bytes: _Positive | None = Field(
        None, description="File size at which events are refused (503) until the sink catches up."
    )
    compression_level: int = Field(1, ge=1, le=19, description="zstd level of the log.")


class SinkSettings(_Section):
    """The sink, which brings acknowledged events into the event store."""

    max_plan_events: _Positive = Field(100_000, description="Most events stored in one step.")
    linger_seconds: float = Field(
        0.2, ge=0, le=10, description="How long a small step waits for more events."
    )
    retry_seconds: _Seconds = Field(
        1.0, description="Wait after a step that failed; doubled up to 30 s while it fails."
    )
    stalled_after_seconds: _Seconds = Field(
        30.0, description="Not ready when events wait and none was stored for this long."
    )


class AuthSettings(_Section):
    """API keys. Keys themselves are made with `meterline keys create`."""

    remember_seconds: float = Field(
        0.5,
        ge=0,
        le=0.75,
        description="How long a key is believed before it is looked up again; a revocation is"
        " seen this much later, and a quarter of a second.",
    )


class PortalSettings(_Section):
    """Portal tokens, with which a subject reads its own usage."""

    default_lifetime_seconds: _Positive = Field(
        3_600, description="Life of a token whose request names no `expiresAt`."
    )
    max_lifetime_seconds: _Positive = Field(86_400, description="Longest life of a token.")
    secret: SecretStr | None = Field(
        None,
        min_length=32,
        description="Signing secret; one is made and kept in the database when not given.",
    )
    allowed_origins: tuple[str, ...] = Field(
        ("*",), description="Web origins that may call the portal from a browser."
    )


class QuerySettings(_Section):
    """Limits of meter queries."""

    timeout_seconds: _Seconds = Field(30.0, description="Longest a query may run.")
    memory_bytes: _Positive = Field(1024 * MIB, description="Most memory one query may use.")
    concurrency: int = Field(4, ge=2, le=64, description="Statements that run at the same time.")
    max_subjects: _Positive = Field(100, description="Most subjects in one query.")
    max_windows: _Positive = Field(100_000, description="Most windows between `from` and `to`.")
    max_rows: _Positive = Field(100_000, description="Most rows of one answer.")
    max_listed: _Positive = Field(
        10_000, description="Most subjects, or values of a groupBy key, in one list."
    )


class EntitlementSettings(_Section):
    """Limits of features, entitlements, grants and of what is asked of them."""

    max_features: _Positive = Field(
        10_000, description="Most features of a namespace that are not archived."
    )
    max_filter_values: _Positive = Field(
        100, description="Most values that a feature allows for one groupBy key."
    )
    max_entitlements: _Positive = Field(
        1_000, description="Most entitlements of one subject that have not ended."
    )
    max_grants: _Positive = Field(
        1_000, description="Most grants of one entitlement, ended ones included."
    )
    max_resets: _Positive = Field(10_000, description="Most resets by hand of one entitlement.")
    max_config_bytes: _Positive = Field(
        65_536, description="Largest `config` of a static entitlement."
    )
    max_subject_length: _Positive = Field(2_048, description="Longest subject, in characters.")
    min_interval_seconds: _Positive = Field(
        3_600, description="Shortest usage period and recurrence."
    )
    max_steps: _Positive = Field(
        20_000,
        description="Most usage periods and recurrences that one request may make from the past,"
        " or ask about in the future.",
    )
    max_windows: _Positive = Field(20_000, description="Most windows of one history.")
    default_page: _Positive = Field(100, description="Items on a page when none are said.")
    max_page: _Positive = Field(1_000, description="Most items of one listing.")
    wait_seconds: _Seconds = Field(
        5.0, description="How long `wait=true` waits for acknowledged events; then 503."
    )
    concurrent_reads: _Positive = Field(
        4, description="Reads of the event store that one request makes at the same time."
    )


class NotificationSettings(_Section):
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
    disable_after_seconds: _Seconds = Field(
        432_000.0,
        description="A channel of which every attempt failed for so long is disabled.",
    )
    retention_days: _Positive = Field(90, description="How long events are kept.")
    rejected_seconds: _Seconds = Field(
        60.0, description="How long rejected events are counted before one event tells of all."
    )


class TelemetrySettings(_Section):
    """What the server tells about itself."""

    metrics: bool = Field(True, description="Serve Prometheus metrics at `/metrics`.")
    otlp_endpoint: str | None = Field(
        None,
        description="OTLP/HTTP address that takes traces; needs the `telemetry` extra.",
    )
    service_name: str = Field("meterline", description="Name of this server in traces.")
    sample_ratio: float = Field(0.01, ge=0, le=1, description="Share of requests that are traced.")


class Settings(BaseSettings):
    """All settings of one server."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    server: ServerSettings = ServerSettings()
    ingest: IngestSettings = IngestSettings()
    eventlog: EventLogSettings = EventLogSettings()
    sink: SinkSettings = SinkSettings()
    auth: AuthSettings = AuthSettings()
    portal: PortalSettings = PortalSettings()
    query: QuerySettings = QuerySettings()
    entitlements: EntitlementSettings = EntitlementSettings()
    notifications: NotificationSettings = NotificationSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    meters: tuple[DeclaredMeter, ...] = Field(
        (),
        description="Meters that exist from the start, as the body of `POST /api/v1/meters`.",
    )


def load_settings(
    config: Path | None = None, *, flags: Mapping[str, object] | None = None
) -> Settings:
    """The settings from flags (`{"server.port": 80}`), environment, file and defaults.

    Without `config` (or METERLINE_CONFIG) `meterline.yaml` of the working folder is read if it
    is there. Unknown names are errors, wherever they stand. Raises `ValidationError`.
    """
    _refuse_unknown_sections(os.environ)
    named = config or _path_from_environment()
    from_file = _read_file(named or DEFAULT_FILE, must_exist=named is not None)

    class FromAllSources(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            file_settings = InitSettingsSource(settings_cls, init_kwargs=from_file)
            return (init_settings, env_settings, file_settings)

    try:
        return FromAllSources(**_nested(flags or {}))
    except PydanticError as error:
        faults = [FieldError(_where(fault["loc"]), fault["msg"]) for fault in error.errors()]
        raise ValidationError(_sentence(faults), errors=faults) from None
    except SettingsError as error:
        raise ValidationError(f"an environment variable is not readable: {error}") from None


def parse_assignments(assignments: Iterable[str]) -> dict[str, object]:
    """The flags of `--set SECTION.NAME=VALUE`; values are written as in YAML."""
    flags: dict[str, object] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise ValidationError(f"--set takes SECTION.NAME=VALUE, not {assignment!r}")
        try:
            flags[name.strip()] = yaml.load(text, Loader=PlainLoader)
        except yaml.YAMLError:
            raise ValidationError(f"the value of --set {name} is not readable") from None
    return flags


def _nested(flags: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flags.items():
        *sections, last = name.split(".")
        target = nested
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    return nested


def _path_from_environment() -> Path | None:
    text = os.environ.get(f"{ENV_PREFIX}CONFIG")
    return Path(text) if text else None


def _read_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=PlainLoader)
    except FileNotFoundError:
        if must_exist:
            raise ValidationError(f"{path}: no such file") from None
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValidationError(f"{path}: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValidationError(f"{path}: the top must be a mapping of sections")
    # A section that is named and left empty means its defaults.
    return {name: value for name, value in content.items() if value is not None}


def _refuse_unknown_sections(environment: Iterable[str]) -> None:
    for name in environment:
        if not name.upper().startswith(ENV_PREFIX) or "__" not in name:
            continue
        section = name[len(ENV_PREFIX) :].partition("__")[0].lower()
        if section not in Settings.model_fields:
            raise ValidationError(f"{name}: there is no section {section!r}")


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(str(step) for step in location)


def _sentence(faults: Iterable[FieldError]) -> str:
    return "; ".join(f"{fault.where}: {fault.reason}" for fault in faults)
