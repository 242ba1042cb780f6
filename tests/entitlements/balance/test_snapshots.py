from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitlements.balance import (
    Allowance,
    Snapshot,
    balance_at,
    burn,
    history,
    newest,
    plan,
    plan_history,
)
from meterline.kernel.errors import ValidationError
from meterline.kernel.meters import Aggregation
from meterline.kernel.windows import WindowSize, load_zone
from tests.entitlements.balance.build import Case, at, grant, row
from tests.entitlements.balance.strategies import (
    allowances,
    corrected_events,
    events,
    exact_instants,
    unhurried,
)
from tests.entitlements.balance.usage import Event, MemoryMeter


def snapshot_at(allowance: Allowance, when: datetime, meter: MemoryMeter) -> Snapshot:
    planned = plan(allowance, when)
    return burn(planned, meter.read(planned.spans)).opening


@unhurried
@given(allowances(), corrected_events, st.lists(exact_instants, max_size=4), exact_instants)
def test_answers_are_the_same_without_any_snapshot(
    allowance: Allowance, used: list[Event], looked: list[datetime], when: datetime
) -> None:
    meter = MemoryMeter(events=used)
    kept: list[Snapshot] = []
    for t in sorted(looked):
        kept.append(snapshot_at(allowance, t, meter))
        since = newest(kept, t)
        assert balance_at(allowance, t, meter.read, since=since) == balance_at(
            allowance, t, meter.read
        )
    since = newest(kept, when)
    assert balance_at(allowance, when, meter.read, since=since) == balance_at(
        allowance, when, meter.read
    )


@unhurried
@given(allowances(), events, exact_instants, exact_instants, exact_instants)
def test_a_snapshot_survives_what_happens_after_it(
    allowance: Allowance, used: list[Event], looked: datetime, late: datetime, when: datetime
) -> None:
    meter = MemoryMeter(events=used)
    snapshot = snapshot_at(allowance, looked, meter)
    meter.add(late, 3)
    extra = grant("late", 7, late)
    allowance = replace(allowance, grants=(*allowance.grants, extra))
    if snapshot.survives(late) and snapshot.at <= when:
        assert balance_at(allowance, when, meter.read, since=snapshot) == balance_at(
            allowance, when, meter.read
        )


def test_a_snapshot_is_at_a_change_not_at_the_instant_asked_for() -> None:
    case = Case(grant("a", 10), grant("b", 5, at("01-10"))).use("01-05", 4).use("01-12", 1)
    snapshot = snapshot_at(case.allowance, at("01-20"), case.meter)
    assert row(snapshot.at, snapshot.usage, snapshot.burnt) == (at("01-10"), 4, 4)
    assert snapshot.balances == {"a": 6, "b": 5}
    assert snapshot.filled == {"a": 10, "b": 5}


def test_a_snapshot_knows_what_corrections_may_give_back() -> None:
    later = [grant(f"at {day}", 1, at(day), priority=2) for day in ("01-10", "01-20")]
    case = Case(grant("a", 10), *later).use("01-05", 4).use("01-12", -3)
    snapshot = snapshot_at(case.allowance, at("01-11"), case.meter)
    for day in ("01-15", "01-25"):
        found = balance_at(case.allowance, at(day), case.meter.read, since=snapshot)
        assert found == case.balance(day)
        assert found.grant_balances["a"] == 9


def test_a_snapshot_of_a_gauge_knows_the_overage_that_was_preserved() -> None:
    case = Case(
        grant("a", 100),
        grant("b", 10, at("02-10")),
        aggregation=Aggregation.LATEST,
        preserve_overage_at_reset=True,
    )
    case.use("01-05", 130).use("02-01T12:00", 20)
    for day in ("02-01", "02-10"):
        snapshot = snapshot_at(case.allowance, at(day), case.meter)
        found = balance_at(case.allowance, at("02-11"), case.meter.read, since=snapshot)
        assert found == case.balance("02-11")
        assert (found.balance, found.usage) == row(60, 20)


def test_the_newest_that_is_not_too_late() -> None:
    case = Case(grant("a", 10))
    kept = [snapshot_at(case.allowance, at(t), case.meter) for t in ("01-05", "02-05", "03-05")]
    assert newest(kept, at("02-20")) == kept[1]
    assert newest(kept, kept[2].at) == kept[2]
    assert newest(kept, at("2024-12-01")) is None


def test_history_starts_from_a_snapshot_only_when_it_is_early_enough() -> None:
    case = Case(grant("a", 10, max_rollover=10)).use("01-05", 4).use("02-02", 1)
    snapshot = snapshot_at(case.allowance, at("02-05"), case.meter)
    for start in (at("01-03"), at("02-02")):
        answers = []
        for since in (None, snapshot):
            planned = plan_history(
                case.allowance, start, at("02-06"), WindowSize.DAY, load_zone("UTC"), since=since
            )
            answers.append(history(planned, case.meter.read(planned.spans)))
        assert answers[0] == answers[1]


def test_nothing_is_planned_before_a_snapshot() -> None:
    case = Case(grant("a", 10))
    snapshot = snapshot_at(case.allowance, at("02-05"), case.meter)
    with pytest.raises(ValidationError):
        balance_at(case.allowance, at("01-05"), case.meter.read, since=snapshot)
