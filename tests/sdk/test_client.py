import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from meterline_sdk import (
    APIError,
    AsyncMeterline,
    BannedError,
    ConflictError,
    ConnectionFailedError,
    ForbiddenError,
    Meterline,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    UnauthorizedError,
    UsageLimitError,
    ValidationError,
)
from meterline_sdk._request import Request, wait_before_retry
from tests.sdk.loopback import Asked, Reply, loopback
from tests.support.server import MeterlineServer

KEPT = ("content-type", "idempotency-key")
QUICK = RetryPolicy(max_retries=2, base_seconds=0.0, max_seconds=0.0)
Answer = Callable[[httpx2.Request], httpx2.Response]


def client(answer: Answer, **options: Any) -> Meterline:
    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return Meterline("http://test", "secret", retries=QUICK, http_client=http, **options)


def problem(status: int, **members: Any) -> httpx2.Response:
    body = {"type": "about:blank", "title": "No", "status": status, "detail": "because", **members}
    return httpx2.Response(
        status,
        content=json.dumps(body).encode(),
        headers={"content-type": "application/problem+json"},
    )


@pytest.mark.parametrize(
    ("status", "members", "kind"),
    [
        (400, {}, ValidationError),
        (401, {}, UnauthorizedError),
        (402, {"limitType": "monthlyTokenLimit"}, UsageLimitError),
        (403, {}, ForbiddenError),
        (403, {"limitType": "banned", "detail": "the subject is banned: fraud"}, BannedError),
        (
            403,
            {"extensions": {"limitType": "banned"}, "detail": "the subject is banned: fraud"},
            BannedError,
        ),
        (404, {}, NotFoundError),
        (409, {}, ConflictError),
        (429, {"retryAfter": 2}, RateLimitError),
        (500, {}, ServerError),
        (503, {}, ServerError),
        (418, {}, APIError),
    ],
)
def test_every_refusal_has_its_error(
    status: int, members: dict[str, Any], kind: type[APIError]
) -> None:
    with (
        client(lambda _: problem(status, **members)) as meterline,
        pytest.raises(APIError) as caught,
    ):
        meterline.meters.get("tokens")
    assert type(caught.value) is kind
    detail = members.get("detail", "because")
    assert (caught.value.status, caught.value.detail) == (status, detail)
    if isinstance(caught.value, BannedError):
        assert caught.value.reason == "fraud"
    if isinstance(caught.value, RateLimitError):
        assert caught.value.retry_after == 2.0


def test_a_page_of_a_proxy_is_an_error_with_its_status() -> None:
    page = httpx2.Response(502, content=b"<html>bad gateway</html>")
    with client(lambda _: page) as meterline, pytest.raises(ServerError, match="HTTP 502"):
        meterline.meters.list()


def test_a_retry_is_the_same_request_with_the_same_key() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        if len(seen) == 1:
            raise httpx2.ConnectError("refused")
        made = b'{"transactionId":"t","accountId":"a","amount":1.50,"status":"open"}'
        return problem(503) if len(seen) == 2 else httpx2.Response(201, content=made)

    with client(answer) as meterline:
        reserved = meterline.reservations.create("a", Decimal("1.50"))
    assert str(reserved.amount) == "1.50"
    keys = {request.headers["idempotency-key"] for request in seen}
    assert len(seen) == 3
    assert len(keys) == 1
    assert {request.content for request in seen} == {b'{"accountId":"a","amount":1.50}'}
    assert seen[0].headers["authorization"] == "Bearer secret"


def _losing(lost: int, body: Any) -> Callable[[Asked], Reply]:
    """Loses the first answers."""
    tries = 0

    def answer(_: Asked) -> Reply:
        nonlocal tries
        tries += 1
        return Reply(200, body, lost=tries <= lost)

    return answer


def test_a_check_that_holds_is_one_check_however_often_it_is_tried() -> None:
    answer = _losing(2, {"allowed": True})
    with loopback(answer) as server, Meterline(server.url, retries=QUICK) as meterline:
        assert meterline.require("kim", tokens=400, hold_seconds=900).allowed
        (key,) = {one.headers["idempotency-key"] for one in server.asked}
        assert len(server.asked) == 3
        meterline.check("kim", tokens=400, hold_seconds=900)
        assert server.asked[-1].headers["idempotency-key"] != key
        meterline.check("kim", idempotency_key="mine")
        assert server.asked[-1].headers["idempotency-key"] == "mine"
        meterline.check("kim")
        assert "idempotency-key" not in server.asked[-1].headers


def test_a_lost_answer_holds_once(server: MeterlineServer) -> None:
    lost: list[bool] = []

    def answer(asked: Asked) -> Reply:
        found = httpx2.post(
            server.url + asked.path,
            content=asked.content,
            headers={name: asked.headers[name] for name in KEPT if name in asked.headers},
        )
        lost.append(len(lost) < 1)
        return Reply(found.status_code, found.json(), lost=lost[-1])

    with (
        Meterline(server.url) as direct,
        loopback(answer) as between,
        Meterline(between.url, retries=QUICK) as meterline,
    ):
        direct.plans.create("sdk-once", monthly_token_limit=1000)
        direct.plans.assign("sdk-once-kim", "sdk-once")
        meterline.require("sdk-once-kim", tokens=400, hold_seconds=900)
        assert len(between.asked) == 2
        direct.require("sdk-once-kim", tokens=400, hold_seconds=900)
        lost.clear()
        usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
        meterline.usage.track("sdk-once-bot", usage=usage, model_id="gpt-4o")
        assert len(between.asked) == 4
        assert direct.usage.summary(account_id="sdk-once-bot", wait=True).total_requests == 1


def test_a_try_that_is_under_way_is_waited_for_and_no_refusal() -> None:
    def answer(asked: Asked) -> Reply:
        under_way = len(server.asked) % 2 == 1 or asked.body.get("subject") == "late"
        later = {"retry-after": "0"}
        return Reply(409, {"status": 409}, later) if under_way else Reply(200, {"allowed": True})

    with loopback(answer) as server, Meterline(server.url, retries=QUICK) as meterline:
        assert meterline.require("kim", tokens=1, hold_seconds=9).allowed
        with pytest.raises(ConnectionFailedError):
            meterline.require("late", tokens=1, hold_seconds=9)
        with Meterline(server.url, retries=QUICK, on_outage="allow") as open_one:
            assert open_one.check("late", tokens=1, hold_seconds=9).degraded


def test_it_gives_up_after_the_last_retry() -> None:
    tries = 0

    def answer(_: httpx2.Request) -> httpx2.Response:
        nonlocal tries
        tries += 1
        raise httpx2.ReadTimeout("too late")

    with client(answer) as meterline, pytest.raises(ConnectionFailedError, match="too late"):
        meterline.meters.list()
    assert tries == 1 + QUICK.max_retries


def test_waits_grow_and_heed_what_the_server_asks_for() -> None:
    policy = RetryPolicy(max_retries=4, base_seconds=1.0, max_seconds=5.0)
    request = Request("GET", "/")
    waits = [wait_before_retry(policy, request, tries, None, None, 1.0) for tries in range(5)]
    assert waits == [1.0, 2.0, 4.0, 5.0, None]
    assert wait_before_retry(policy, request, 0, 503, "3", 0.0) == 3.0
    assert wait_before_retry(policy, request, 0, 503, "60", 0.0) is None
    assert wait_before_retry(policy, request, 0, 404, None, 0.0) is None
    assert wait_before_retry(policy, request, 0, 409, None, 0.0) is None
    assert wait_before_retry(policy, request, 0, 409, "1", 1.0) == 1.0
    decides = Request("POST", "/api/v1/check", decides=True)
    assert wait_before_retry(policy, decides, 0, 429, "1", 0.0) is None


def test_a_refused_check_is_an_answer() -> None:
    refusal = {"limitType": "requestsPerMinute", "limit": 5, "current": 5, "retryAfter": 12}
    with client(lambda _: problem(429, **refusal)) as meterline:
        decision = meterline.check("alice", model="gpt-4o", tokens=100)
    assert not decision.allowed
    assert (decision.limit_type, decision.retry_after) == ("requestsPerMinute", Decimal(12))
    with client(lambda _: problem(403, limitType="banned", reason="fraud")) as meterline:
        assert not meterline.check("alice").allowed
    with client(lambda _: problem(403)) as meterline, pytest.raises(ForbiddenError):
        meterline.check("alice")  # the API key may not ask: nothing is said of alice


@pytest.mark.parametrize(("policy", "allowed"), [("allow", True), ("deny", False)])
def test_the_policy_answers_when_nobody_can_be_asked(policy: Any, allowed: bool) -> None:
    with client(lambda _: problem(503), on_outage=policy) as meterline:
        decision, value = meterline.check("alice"), meterline.has_access("alice", "chat")
    assert (decision.allowed, decision.degraded) == (allowed, True)
    assert (value.has_access, value.degraded) == (allowed, True)
    with client(lambda _: problem(503)) as meterline, pytest.raises(ServerError):
        meterline.check("alice")


def test_the_asynchronous_client_does_the_same() -> None:
    async def run() -> None:
        tries = 0

        async def answer(request: httpx2.Request) -> httpx2.Response:
            nonlocal tries
            tries += 1
            if tries == 1:
                return problem(503)
            assert request.url.raw_path == b"/api/v1/meters/a%2Fb/query"
            return httpx2.Response(200, content=b'{"data":[{"value":0.10}]}')

        http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
        async with AsyncMeterline("http://test", retries=QUICK, http_client=http) as meterline:
            found = await meterline.meters.query("a/b", window_size="DAY")
        assert str(found.data[0].value) == "0.10"
        await http.aclose()

    asyncio.run(run())
