import asyncio

import pytest

from meterline.kernel.errors import UnavailableError
from meterline.server.health import CheckResult, Readiness


async def fine() -> CheckResult:
    return CheckResult(True, {"lagEvents": 0})


async def stalled() -> CheckResult:
    return CheckResult(False, {"lagEvents": 7})


async def hangs() -> CheckResult:
    await asyncio.Event().wait()
    raise AssertionError


async def unavailable() -> CheckResult:
    raise UnavailableError("the disk is full")


async def breaks() -> CheckResult:
    raise RuntimeError("a secret of the inside")


async def test_ready_when_every_check_is_ok() -> None:
    ready, body = await Readiness({"a": fine, "b": fine}).report()
    assert ready
    assert body == {
        "status": "ready",
        "checks": {"a": {"status": "ok", "lagEvents": 0}, "b": {"status": "ok", "lagEvents": 0}},
    }


@pytest.mark.parametrize("check", [stalled, hangs, unavailable, breaks])
async def test_one_bad_check_is_enough(check: object) -> None:
    readiness = Readiness({"good": fine, "bad": check}, patience_seconds=0.02)  # type: ignore[dict-item]
    ready, body = await readiness.report()
    assert not ready
    assert body["status"] == "not ready"
    assert body["checks"]["bad"]["status"] == "failed"
    assert body["checks"]["good"]["status"] == "ok"
    assert "secret" not in str(body)


async def test_a_check_can_be_left_out() -> None:
    ready, body = await Readiness({"good": fine, "bad": stalled}).report(["bad"])
    assert ready
    assert list(body["checks"]) == ["good"]
