from datetime import datetime

from entitlements.balance import Plan, Reset, plan
from meterline.kernel.periods import Period
from tests.entitlements.balance.build import START, Case, at, every, grant


def cuts(planned: Plan) -> list[datetime]:
    return [phase.start for phase in planned.phases]


def test_without_a_change_there_is_one_phase() -> None:
    planned = plan(Case(grant("a", 10)).allowance, at("01-20"))
    assert cuts(planned) == [START]
    assert planned.spans == (Period(START, at("01-20")),)


def test_time_is_cut_at_each_change_once() -> None:
    case = Case(
        grant("a", 10, at("01-05"), expires_at=at("01-10")),
        grant("b", 10, at("01-10"), voided_at=at("01-20")),
        resets=[Reset(at("01-20"))],
    )
    planned = plan(case.allowance, at("03-01"))
    assert cuts(planned) == [START, *map(at, ("01-05", "01-10", "01-20", "02-20"))]
    assert [p.period_start.day for p in planned.phases] == [1, 1, 1, 20, 20]


def test_a_grant_recurs_only_while_it_is_active() -> None:
    weekly = every("P1W", at("2024-12-30"))
    given = grant("a", 10, at("01-08"), expires_at=at("01-27"), recurrence=weekly)
    planned = plan(Case(given, period=every("P1Y")).allowance, at("03-01"))
    assert cuts(planned) == [START, *map(at, ("01-08", "01-13", "01-20", "01-27"))]
    assert planned.phases[-1].changes and not planned.phases[-1].changes.recurred


def test_a_grant_that_ends_before_it_starts_cuts_nothing() -> None:
    given = grant("a", 10, at("01-10"), voided_at=at("01-10"))
    assert cuts(plan(Case(given).allowance, at("01-20"))) == [START]


def test_a_change_at_the_end_is_a_phase_of_its_own_and_needs_no_usage() -> None:
    planned = plan(Case(grant("a", 10, at("01-20"))).allowance, at("01-20"))
    assert cuts(planned) == [START, at("01-20")]
    assert planned.spans == (Period(START, at("01-20")),)


def test_marks_stop_a_phase_without_cutting_it() -> None:
    case = Case(grant("a", 10, at("01-10")))
    marks = [at(day) for day in ("2024-12-01", "01-01", "01-05", "01-10", "01-20", "01-21")]
    planned = plan(case.allowance, at("01-20"), marks=marks)
    assert cuts(planned) == [START, at("01-10")]
    assert [phase.stops for phase in planned.phases] == [
        (START, at("01-05"), at("01-10")),
        (at("01-10"), at("01-20")),
    ]
    assert [span.end.day for span in planned.spans] == [5, 10, 20]
    assert planned.marks == set(marks[1:-1])
