"""Requests that are sent again with one key."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from meterline.db.engine import Database
from meterline.db.idempotency import SqlRequestStore
from meterline.kernel.errors import TooManyRequestsError, ValidationError
from meterline.kernel.idempotency import effect_id
from meterline.kernel.ids import is_ulid
from meterline.web.asgi import Receive, Scope, Send, read_body, send_response
from meterline.web.idempotency import Idempotency, IdempotencyLimits, effect_of
from tests.support.api import assert_problem, client_of
from tests.support.clock import FixedClock
from tests.support.entitlements import OneNamespace

LIMITS = IdempotencyLimits(wait_seconds=0.1, lease_seconds=60, max_body_bytes=1000)


@dataclass
class Effects:
    """An application that counts what it does, and may be told to wait or to fail."""

    done: list[str | None] = field(default_factory=list)
    gate: asyncio.Event | None = None
    error: BaseException | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, 10_000)
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        self.done.append(effect_of(scope))
        if self.error is not None:
            raise self.error
        answer = b"%d:%b" % (len(self.done), body)
        await send_response(send, 201, [(b"content-type", b"text/plain"), (b"x-it", b"1")], answer)


@dataclass
class Rig:
    app: Effects
    clock: FixedClock
    database: Database
    http: httpx.AsyncClient

    async def post(self, key: str | None = "k", body: str = "b", **options: Any) -> httpx.Response:
        headers = {**options.pop("headers", {})}
        if key is not None:
            headers["idempotency-key"] = key
        path = options.pop("path", "/p")
        return await self.http.post(path, content=body, headers=headers, **options)


@pytest_asyncio.fixture
async def rig(any_database: Database) -> AsyncIterator[Rig]:
    app, clock = Effects(), FixedClock()
    everybody: Any = OneNamespace()
    layer = Idempotency(app, SqlRequestStore(any_database), everybody, clock, LIMITS)
    async with client_of(layer) as http:
        yield Rig(app, clock, any_database, http)


async def test_the_same_request_gets_the_same_answer_and_is_done_once(rig: Rig) -> None:
    first, again = await rig.post(), await rig.post()
    assert first.content == again.content == b"1:b"
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["x-it"] == "1"
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert rig.app.done == [effect_id("default", "/p", "k")]
    assert is_ulid(rig.app.done[0] or "")


async def test_an_answer_is_kept_for_its_time_and_through_a_restart(rig: Rig) -> None:
    await rig.post()
    rig.clock.advance(LIMITS.keep_seconds - 1)
    everybody: Any = OneNamespace()
    other = Effects()
    layer = Idempotency(other, SqlRequestStore(rig.database), everybody, rig.clock, LIMITS)
    async with client_of(layer) as http:
        again = await http.post("/p", content="b", headers={"idempotency-key": "k"})
    assert again.content == b"1:b"
    assert not other.done
    rig.clock.advance(2)
    assert (await rig.post()).content == b"2:b"
    # The id of the effect is still the same: it is not done twice even then.
    assert rig.app.done[0] == rig.app.done[1]


async def test_another_request_with_the_key_is_a_conflict(rig: Rig) -> None:
    await rig.post()
    assert_problem(await rig.post(body="c"), 409)
    assert_problem(await rig.post(params={"q": "1"}), 409)
    assert_problem(await rig.post(headers={"content-type": "text/x"}), 409)
    assert len(rig.app.done) == 1


async def test_keys_are_of_a_namespace_and_a_route(rig: Rig) -> None:
    await rig.post()
    assert (await rig.post(path="/q")).content == b"2:b"
    assert (await rig.post(headers={"authorization": "other"})).content == b"3:b"
    assert len(set(rig.app.done)) == 3


async def test_without_a_key_everything_is_done_again(rig: Rig) -> None:
    await rig.post(None)
    await rig.post(None)
    assert rig.app.done == [None, None]


@pytest.mark.parametrize("path", ["/api/v1/keys", "/api/v1/portal/tokens"])
async def test_answers_that_hold_secrets_are_not_kept(rig: Rig, path: str) -> None:
    answers = [await rig.post(path=path) for _ in range(2)]
    assert [one.text for one in answers] == ["1:b", "2:b"]


async def test_a_duplicate_waits_for_the_first(rig: Rig) -> None:
    rig.app.gate = asyncio.Event()
    first = asyncio.create_task(rig.post())
    await rig.app.begun.wait()
    second = asyncio.create_task(rig.post())
    early = await rig.post()
    extensions: Any = assert_problem(early, 409)["extensions"]
    assert (extensions["retryAfter"], early.headers["retry-after"]) == (1, "1")
    rig.app.gate.set()
    assert (await first).status_code == 201
    assert (await second).status_code in (201, 409)
    assert len(rig.app.done) == 1
    assert (await rig.post()).content == b"1:b"


async def test_a_crowd_of_duplicates_is_done_once(rig: Rig) -> None:
    answers = await asyncio.gather(*(rig.post() for _ in range(20)))
    assert len(rig.app.done) == 1
    assert {one.status_code for one in answers} <= {201, 409}
    assert {one.content for one in answers if one.status_code == 201} == {b"1:b"}


@pytest.mark.parametrize(
    ("error", "status", "kept"),
    [
        (ValidationError("no"), 400, True),
        (TooManyRequestsError("later"), 429, False),
        (RuntimeError("oh"), 500, False),
    ],
)
async def test_only_answers_that_would_be_the_same_are_kept(
    rig: Rig, error: Exception, status: int, kept: bool
) -> None:
    rig.app.error = error
    first = await rig.post()
    assert_problem(first, status)
    rig.app.error = None
    again = await rig.post()
    assert (again.content == first.content) is kept
    assert again.status_code == (status if kept else 201)


async def test_a_request_whose_server_died_is_done_by_the_next_one(rig: Rig) -> None:
    """What was begun and never answered: its lease ends, and its effect has the same id."""
    rig.app.gate = asyncio.Event()
    dying = asyncio.create_task(rig.post())
    await rig.app.begun.wait()
    assert_problem(await rig.post(), 409)
    rig.clock.advance(LIMITS.lease_seconds)
    rig.app.gate.set()
    assert (await rig.post()).status_code == 201
    await dying
    assert len(set(rig.app.done)) == 1


async def test_what_is_too_large_is_refused(rig: Rig) -> None:
    assert_problem(await rig.post(body="b" * 1001), 413)
    assert_problem(await rig.post("k" * 256), 400)
    assert_problem(await rig.post(""), 400)
    assert not rig.app.done


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "kéy", "a\tb"])
async def test_a_key_is_printable_ascii(rig: Rig, key: str) -> None:
    headers = {"idempotency-key": key.encode("latin-1")}
    extensions: Any = assert_problem(await rig.post(None, headers=headers), 400)["extensions"]
    assert [one["where"] for one in extensions["validationErrors"]] == ["Idempotency-Key"]
    assert rig.app.done == []


async def test_old_answers_are_forgotten(rig: Rig) -> None:
    store = SqlRequestStore(rig.database)
    for number in range(3):
        await rig.post(f"k{number}")
    assert await store.forget(rig.clock()) == 0
    assert await store.forget(rig.clock() + timedelta(days=3)) == 3
