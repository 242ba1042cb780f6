"""docker-compose.yml, as far as it can be known without Docker."""

import re
from pathlib import Path

import pytest

from meterline.kernel.access import prefix_of
from meterline.server.roles import parts_of
from meterline.server.settings import load_settings
from tests.deploy.files import COMPOSE, ROOT, compose, filled, ours, read_env

_EXAMPLE = read_env(ROOT / ".env.example")
_VARIABLE = re.compile(r"\$\{(\w+)(:[?-][^}]*)?\}")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_there_is_all_that_it_takes() -> None:
    services = compose()["services"]
    assert set(services) == {
        "kafka", "clickhouse", "postgres", "migrate", "gateway", "sink-1", "sink-2", "api",
    }  # fmt: skip
    roles = {name: one["command"] for name, one in ours().items()}
    assert roles == {
        "migrate": ["migrate"],
        "gateway": ["serve", "--role", "ingest"],
        "sink-1": ["serve", "--role", "sink"],
        "sink-2": ["serve", "--role", "sink"],
        "api": ["serve", "--role", "api"],
    }


@pytest.mark.parametrize("name", ["gateway", "sink-1", "sink-2", "api"])
def test_its_settings_are_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = ours()[name]
    for variable, text in service["environment"].items():
        monkeypatch.setenv(variable, filled(text, _EXAMPLE))
    role = service["command"][-1]
    settings = load_settings(flags={"server.role": role})
    parts_of(settings)
    assert settings.database.url is not None
    assert "@postgres:5432/meterline" in settings.database.url.get_secret_value()
    # One broker cannot have more replicas than itself.
    assert (settings.kafka.replication, settings.kafka.min_insync_replicas) == (1, 1)
    # Each of the sinks must get partitions.
    assert settings.kafka.partitions >= 2


def test_every_service_is_watched_and_keeps_its_data_in_a_named_volume() -> None:
    services = compose()["services"]
    for name in ("kafka", "clickhouse", "postgres"):
        assert "healthcheck" in services[name]
        (volume,) = services[name]["volumes"]
        assert volume.partition(":")[0] in compose()["volumes"]
        waited_for = services["migrate"]["depends_on"][name]
        assert waited_for == {"condition": "service_healthy"}
    for name in ("gateway", "sink-1", "sink-2", "api"):
        # Their health check is the image's.
        assert services[name]["depends_on"]["migrate"]["condition"].endswith("successfully")


def test_no_password_is_written_down() -> None:
    text = COMPOSE.read_text()
    for line in text.splitlines():
        name, colon, value = line.strip().partition(": ")
        if colon and re.search(r"PASSWORD|SECRET|FIRST_KEY|__URL$", name):
            value = value.strip()
            assert _VARIABLE.search(value) or "@" not in value, line
            assert name.endswith("__URL") or _VARIABLE.fullmatch(value), line
    for given in _EXAMPLE.values():
        assert given not in text
    # What is secret has no default, so that forgetting it is an error.
    defaults = {name for name, default in _VARIABLE.findall(text) if default.startswith(":-")}
    assert defaults <= {"METERLINE_TAG", "GATEWAY_PORT", "API_PORT"}


def test_the_example_names_every_variable_and_its_key_is_one() -> None:
    asked = {name for name, how in _VARIABLE.findall(COMPOSE.read_text()) if how.startswith(":?")}
    assert asked == set(_EXAMPLE)
    assert prefix_of(_EXAMPLE["METERLINE_FIRST_KEY"]) is not None


def test_only_meterline_is_reachable_and_only_from_this_machine() -> None:
    for name, service in compose()["services"].items():
        published = service.get("ports", [])
        assert bool(published) == (name in ("gateway", "api"))
        assert all(port.startswith("127.0.0.1:") for port in published)


def test_meterline_runs_with_as_few_rights_as_it_can() -> None:
    for service in ours().values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
