"""Every setting, with its default and meaning. `docs/configuration.md` is generated from here.

A value comes from the first of: a flag (`--port`, `--set ingest.require_subject=false`), the
environment (`METERLINE_INGEST__REQUIRE_SUBJECT=false`), the file (`meterline.yaml`), the default.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field
from pydantic import ValidationError as PydanticError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from meterline.kernel.errors import FieldError, ValidationError
from meterline.server.backends import (
    ClickHouseSettings,
    DatabaseSettings,
    EventLogSettings,
    KafkaSettings,
    StoreSettings,
)
from meterline.server.declared import DeclaredMeter
from meterline.server.kit_sections import (
    CreditSettings,
    IdempotencySettings,
    PlanSettings,
    StripeSettings,
    UsageSettings,
)
from meterline.server.sections import (
    AuthSettings,
    EntitlementSettings,
    IngestSettings,
    NotificationSettings,
    PortalSettings,
    QuerySettings,
    ServerSettings,
    SinkSettings,
    TelemetrySettings,
)

DEFAULT_FILE = Path("meterline.yaml")
ENV_PREFIX = "METERLINE_"


class PlainLoader(yaml.SafeLoader):
    """YAML in which times stay the text that they are, as in JSON."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class Settings(BaseSettings):
    """All settings of one server."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    server: ServerSettings = ServerSettings()
    ingest: IngestSettings = IngestSettings()
    eventlog: EventLogSettings = EventLogSettings()
    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    database: DatabaseSettings = DatabaseSettings()
    sink: SinkSettings = SinkSettings()
    auth: AuthSettings = AuthSettings()
    portal: PortalSettings = PortalSettings()
    query: QuerySettings = QuerySettings()
    entitlements: EntitlementSettings = EntitlementSettings()
    notifications: NotificationSettings = NotificationSettings()
    usage: UsageSettings = UsageSettings()
    credits: CreditSettings = CreditSettings()
    plans: PlanSettings = PlanSettings()
    stripe: StripeSettings = StripeSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
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
    return _settings(from_file, flags or {}, from_environment=True)


def load_file(path: Path) -> Settings:
    """The settings of a file alone, for they are not this process's."""
    return _settings(_read_file(path, must_exist=True), {}, from_environment=False)


def _settings(
    from_file: Mapping[str, Any], flags: Mapping[str, object], *, from_environment: bool
) -> Settings:
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
            file_settings = InitSettingsSource(settings_cls, init_kwargs=dict(from_file))
            environment = (env_settings,) if from_environment else ()
            return (init_settings, *environment, file_settings)

    try:
        return FromAllSources(**_nested(flags))
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
