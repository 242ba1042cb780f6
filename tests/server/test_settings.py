from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aggregator.query import QueryLimits
from aggregator.stores.clickhouse import ClickHouseOptions
from aggregator.worker import SinkOptions
from entitlements.credits.rates import CreditOptions
from entitlements.holds.limits import HoldLimits
from entitlements.plans.options import PlanOptions, StripeOptions
from entitlements.usage_records.options import UsageLimits
from ingest.limits import IngestLimits
from meterline.db.limits import DatabaseLimits
from meterline.eventlog.kafka_options import KafkaOptions
from meterline.kernel.errors import ValidationError
from meterline.server import settings_docs
from meterline.server.settings import load_settings, parse_assignments
from meterline.server.stores import clickhouse_options, database_limits, kafka_options
from meterline.web.auth import AuthLimits
from meterline.web.idempotency import IdempotencyLimits
from portal.tokens import PortalLimits

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("METERLINE_CONFIG", "METERLINE_REQUIRE_PARTS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_defaults_are_those_of_the_services() -> None:
    settings = load_settings()
    assert IngestLimits(**settings.ingest.model_dump()) == IngestLimits()
    assert SinkOptions(**settings.sink.model_dump()) == SinkOptions()
    limits = PortalLimits()
    assert settings.portal.default_lifetime_seconds == limits.default_lifetime_seconds
    assert settings.portal.max_lifetime_seconds == limits.max_lifetime_seconds
    assert settings.auth.remember_seconds == AuthLimits().remember_seconds
    assert clickhouse_options(settings) == ClickHouseOptions()
    assert kafka_options(settings) == KafkaOptions()
    assert replace(database_limits(settings), application_name="meterline") == DatabaseLimits()
    query = QueryLimits()
    for name in ("max_subjects", "max_windows", "max_rows", "max_listed"):
        assert getattr(settings.query, name) == getattr(query, name)
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8888)


@pytest.mark.parametrize(
    ("section", "options"),
    [
        ("usage", [UsageLimits()]),
        ("credits", [HoldLimits(), CreditOptions()]),
        ("plans", [PlanOptions()]),
        ("stripe", [StripeOptions()]),
        ("idempotency", [IdempotencyLimits()]),
    ],
)
def test_defaults_are_those_of_the_kit(section: str, options: Sequence[Any]) -> None:
    expected = {name: value for one in options for name, value in asdict(one).items()}
    assert getattr(load_settings(), section).model_dump() == expected


def test_flag_beats_environment_beats_file_beats_default(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def port() -> int:
        return load_settings(flags=flags).server.port

    flags: dict[str, object] = {}
    assert port() == 8888
    (empty_folder / "meterline.yaml").write_text("server: {port: 1, host: '::1'}")
    assert port() == 1
    monkeypatch.setenv("METERLINE_SERVER__PORT", "2")
    assert port() == 2
    flags["server.port"] = 3
    assert port() == 3
    assert load_settings(flags=flags).server.host == "::1"


def test_every_section_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERLINE_INGEST__REQUIRE_SUBJECT", "false")
    monkeypatch.setenv("METERLINE_PORTAL__ALLOWED_ORIGINS", '["https://a.example"]')
    settings = load_settings()
    assert settings.ingest.require_subject is False
    assert settings.portal.allowed_origins == ("https://a.example",)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("server: {prt: 1}", "server.prt"),
        ("sever: {port: 1}", "sever"),
        ("server: {port: 70000}", "server.port"),
        ("ingest: {max_batch_events: 0}", "ingest.max_batch_events"),
        ("- 1", "mapping"),
        ("a: b: c", "meterline.yaml"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(empty_folder: Path, text: str, fault: str) -> None:
    (empty_folder / "meterline.yaml").write_text(text)
    with pytest.raises(ValidationError, match=fault):
        load_settings()


@pytest.mark.parametrize("name", ["METERLINE_INGST__X", "METERLINE_INGEST__REQUIRE_SUBJEKT"])
def test_a_typo_in_the_environment_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ValidationError):
        load_settings()


def test_a_named_file_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="no such file"):
        load_settings(tmp_path / "nowhere.yaml")
    monkeypatch.setenv("METERLINE_CONFIG", str(tmp_path / "nowhere.yaml"))
    with pytest.raises(ValidationError, match="no such file"):
        load_settings()


def test_an_empty_section_means_its_defaults(empty_folder: Path) -> None:
    (empty_folder / "meterline.yaml").write_text("server:\ningest:\n  require_subject: no\n")
    assert load_settings().server.port == 8888
    assert load_settings().ingest.require_subject is False


def test_meters_are_declared_in_the_file(empty_folder: Path) -> None:
    (empty_folder / "meterline.yaml").write_text(
        "meters:\n- {slug: a, aggregation: COUNT, eventType: b, eventFrom: 2026-01-01T00:00:00Z}\n"
    )
    (meter,) = load_settings().meters
    assert (meter.slug, meter.event_from) == ("a", datetime(2026, 1, 1, tzinfo=UTC))


def test_a_bad_declaration_is_named(empty_folder: Path) -> None:
    (empty_folder / "meterline.yaml").write_text("meters:\n- {slug: a, eventType: b}\n")
    with pytest.raises(ValidationError, match="meters.0.aggregation"):
        load_settings()


def test_assignments_are_written_as_yaml() -> None:
    flags = parse_assignments(["ingest.require_subject=false", "portal.allowed_origins=[a, b]"])
    settings = load_settings(flags=flags)
    assert settings.ingest.require_subject is False
    assert settings.portal.allowed_origins == ("a", "b")


@pytest.mark.parametrize("text", ["nothing", "=1", "a.b=[", "ingest.nothing=1"])
def test_a_bad_assignment_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        load_settings(flags=parse_assignments([text]))


def test_a_secret_is_not_shown() -> None:
    settings = load_settings(flags={"portal.secret": 8 * "hush-"})
    assert "hush" not in repr(settings)


def test_the_configuration_reference_is_current() -> None:
    """Run `make docs` when this fails."""
    assert (ROOT / settings_docs.TARGET).read_text(encoding="utf-8") == settings_docs.render()


def test_no_secret_of_a_backend_is_shown() -> None:
    secrets = ("kafka.sasl_password", "clickhouse.password", "auth.first_key")
    flags: dict[str, object] = dict.fromkeys(secrets, "hush-hush")
    settings = load_settings(flags={**flags, "database.url": "postgresql://u:hush@h/n"})
    options = (clickhouse_options(settings), kafka_options(settings))
    assert "hush" not in repr(settings) + repr(options)
    assert settings.kafka.sasl_password is not None
    assert kafka_options(settings).sasl_password == "hush-hush"


@pytest.mark.parametrize("url", ["mysql://h/n", "h:5432", ""])
def test_a_database_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match=r"database\.url.*postgresql://"):
        load_settings(flags={"database.url": url})
