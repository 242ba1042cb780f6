"""What follows an attempt."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitlements.notifications.model import DeliveryState
from entitlements.notifications.schedule import (
    ATTEMPTS,
    MAX_WAIT,
    WAITS,
    Answer,
    judge,
    parse_retry_after,
    wait_after,
)
from tests.entitlements.notifications.build import NOW


def answer(status: int | None, retry_after: str | None = None) -> Answer:
    return Answer(status, "text", 3, retry_after)


def test_the_waits_are_those_of_the_specification() -> None:
    assert ATTEMPTS == 10
    hours = [wait / timedelta(hours=1) for wait in WAITS]
    assert hours == [5 / 3600, 300 / 3600, 0.5, 2, 5, 10, 14, 20, 24]


@given(st.integers(1, ATTEMPTS - 1), st.text(max_size=26))
def test_jitter_only_adds_and_at_most_a_tenth(attempt: int, delivery: str) -> None:
    wait = wait_after(attempt, delivery)
    assert WAITS[attempt - 1] <= wait <= 1.1 * WAITS[attempt - 1]
    assert wait == wait_after(attempt, delivery)


def test_jitter_differs_between_deliveries() -> None:
    assert len({wait_after(3, f"delivery {number}") for number in range(50)}) == 50


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_two_hundreds_succeed(status: int) -> None:
    verdict = judge(answer(status), 1, "d", NOW)
    assert (verdict.state, verdict.next_attempt_at) == (DeliveryState.SUCCESS, None)


@pytest.mark.parametrize("status", [None, 100, 301, 302, 307, 308, 400, 401, 404, 500, 503])
def test_everything_else_is_tried_again(status: int | None) -> None:
    verdict = judge(answer(status), 2, "d", NOW)
    assert verdict.state is DeliveryState.SENDING
    assert verdict.next_attempt_at == NOW + wait_after(2, "d")
    assert (verdict.pause_until, verdict.gone) == (None, False)
    assert verdict.reason


@pytest.mark.parametrize("status", [429, 502, 504])
def test_throttling_pauses_the_channel(status: int) -> None:
    assert judge(answer(status), 1, "d", NOW).pause_until == NOW + timedelta(seconds=5)
    asked = judge(answer(status, "120"), 1, "d", NOW)
    assert asked.pause_until == asked.next_attempt_at == NOW + timedelta(seconds=120)


def test_gone_is_gone() -> None:
    verdict = judge(answer(410), 1, "d", NOW)
    assert (verdict.state, verdict.gone) == (DeliveryState.FAILED, True)
    assert verdict.next_attempt_at is None


def test_the_last_attempt_gives_up() -> None:
    verdict = judge(answer(500), ATTEMPTS, "d", NOW)
    assert (verdict.state, verdict.next_attempt_at) == (DeliveryState.FAILED, None)
    assert "given up" in verdict.reason


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("0", 0),
        (" 7 ", 7),
        ("99999999", MAX_WAIT.total_seconds()),
        ("Sun, 01 Mar 2026 12:01:00 GMT", 60),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Mon, 01 Mar 2027 12:00:00 GMT", MAX_WAIT.total_seconds()),
        ("Mon, 99 Mar 2027 12:00:00 GMT", None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    found = parse_retry_after(text, NOW)
    assert (found and found.total_seconds()) == seconds or found == timedelta(0)


@given(st.text(max_size=60))
def test_retry_after_never_raises(text: str) -> None:
    found = parse_retry_after(text, NOW)
    assert found is None or timedelta(0) <= found <= MAX_WAIT


def test_retry_after_lengthens_but_does_not_shorten() -> None:
    long = judge(answer(503, "60"), 1, "d", NOW)
    assert long.next_attempt_at == NOW + timedelta(seconds=60)
    short = judge(answer(503, "1"), 2, "d", NOW)
    assert short.next_attempt_at == NOW + wait_after(2, "d")
