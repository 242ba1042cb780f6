"""What each role needs, and what it refuses to start with."""

import pytest

from meterline.kernel.errors import ValidationError
from meterline.server.roles import Parts, parts_of
from meterline.server.settings import Settings, load_settings

SHARED: dict[str, object] = {
    "eventlog.kind": "kafka",
    "store.kind": "clickhouse",
    "database.url": "postgresql://u:hush@h/n",
}


def settings(role: str, **changed: object) -> Settings:
    flags = {**SHARED, **{name.replace("__", "."): value for name, value in changed.items()}}
    return load_settings(flags={"server.role": role, **flags})


def test_all_has_every_part_whatever_is_embedded() -> None:
    everything = Parts(ingests=True, stores=True, answers=True)
    assert parts_of(load_settings()) == everything
    assert parts_of(settings("all")) == everything
    assert parts_of(load_settings(flags={"eventlog.kind": "kafka"})) == everything


def test_the_roles_share_the_work() -> None:
    assert parts_of(settings("ingest")) == Parts(ingests=True, stores=False, answers=False)
    assert parts_of(settings("sink")) == Parts(ingests=False, stores=True, answers=False)
    assert parts_of(settings("api")) == Parts(ingests=True, stores=False, answers=True)


@pytest.mark.parametrize("role", ["ingest", "sink", "api"])
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"eventlog__kind": "embedded"}, "eventlog.kind=kafka"),
        ({"database__url": None}, "database.url=postgresql://"),
        ({"database__url": "sqlite:////tmp/x.db"}, "database.url=postgresql://"),
    ],
)
def test_what_is_embedded_cannot_be_shared(
    role: str, changed: dict[str, object], named: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        parts_of(settings(role, **changed))
    assert named in str(refused.value.detail)
    assert f"server.role={role}" in str(refused.value.detail)
    assert "hush" not in str(refused.value.detail)


def test_only_a_gateway_needs_no_store() -> None:
    parts_of(settings("ingest", store__kind="embedded"))
    for role in ("sink", "api"):
        with pytest.raises(ValidationError, match=r"store\.kind=clickhouse"):
            parts_of(settings(role, store__kind="embedded"))


def test_everything_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(ValidationError, match=r"kafka.*clickhouse.*postgresql"):
        parts_of(load_settings(flags={"server.role": "sink"}))


def test_there_is_no_other_role() -> None:
    with pytest.raises(ValidationError, match=r"server\.role"):
        load_settings(flags={"server.role": "queen"})
