"""Every error is problem+json, says what it may, and nothing more."""

import logging
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Query
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from meterline.kernel.errors import (
    ConflictError,
    FieldError,
    ForbiddenError,
    MeterlineError,
    NotFoundError,
    PayloadTooLargeError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedMediaError,
    ValidationError,
)
from meterline.web.auth import Authenticator
from meterline.web.problem import problem_response, request_id_of
from tests.support.api import app_of, assert_problem, client_of
from tests.web.keys import MemoryKeys

ERRORS: list[MeterlineError] = [
    ValidationError("wrong", errors=[FieldError("events[3].time", "no time")]),
    UnauthorizedError("who?"),
    ForbiddenError("no"),
    NotFoundError("gone"),
    ConflictError("twice", extensions={"conflictingEntityId": "x"}),
    PayloadTooLargeError("big"),
    UnsupportedMediaError("xml"),
    TooManyRequestsError("slow down", retry_after_seconds=7),
    UnavailableError("later"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_each_error_over_http(error: MeterlineError) -> None:
    router = APIRouter()

    @router.get("/it")
    async def it() -> None:
        raise error

    async with client_of(app_of(Authenticator(MemoryKeys()), router)) as client:
        response = await client.get("/it", headers={"x-request-id": "abc"})
    body = assert_problem(response, error.status)
    assert body["detail"] == error.detail
    assert body["instance"] == "urn:request:abc"
    retry = getattr(error, "retry_after_seconds", None)
    assert response.headers.get("retry-after") == (str(retry) if retry else None)
    assert ("www-authenticate" in response.headers) == (error.status == 401)


def test_field_errors_and_extensions_are_for_programs() -> None:
    error = ValidationError(
        "wrong", errors=[FieldError("a", "b")], extensions={"acceptedEvents": 0}
    )
    _, _, body = problem_response(error, "r")
    assert httpx.Response(200, content=body).json()["extensions"] == {
        "acceptedEvents": 0,
        "validationErrors": [{"where": "a", "reason": "b"}],
    }


class Thing(BaseModel):
    name: str = Field(min_length=2)
    parts: list[int]


async def test_what_the_framework_refuses(caplog: pytest.LogCaptureFixture) -> None:
    router = APIRouter()

    @router.post("/things")
    async def things(body: Thing, limit: Annotated[int, Query(ge=1)] = 1) -> Thing:
        raise RuntimeError("password=hunter2")

    async with client_of(app_of(Authenticator(MemoryKeys()), router)) as client:
        assert_problem(await client.get("/nowhere"), 404)
        wrong_method = await client.delete("/things")
        assert_problem(wrong_method, 405)
        assert wrong_method.headers["allow"] == "POST"

        bad = await client.post("/things?limit=0", json={"name": "x", "parts": [1, "y"]})
        extensions = assert_problem(bad, 400)["extensions"]
        assert isinstance(extensions, dict)
        assert [one["where"] for one in extensions["validationErrors"]] == [
            "query.limit",
            "body.name",
            "body.parts[1]",
        ]
        as_json = {"content-type": "application/json"}
        for content in (b"{", b"\xff", b"[" * 100_000, b'{"name": ' + b"9" * 5_000 + b"}"):
            assert_problem(await client.post("/things", content=content, headers=as_json), 400)
        assert_problem(await client.post("/things", content=b"{}"), 400)

        with caplog.at_level(logging.ERROR):
            broken = await client.post("/things", json={"name": "xy", "parts": []})
        body = assert_problem(broken, 500)
        assert "detail" not in body and "hunter2" not in broken.text
        assert len([r for r in caplog.records if r.name.startswith("meterline")]) == 1


@given(st.binary(max_size=200))
def test_a_callers_request_id_cannot_break_the_answer(value: bytes) -> None:
    scope = {"headers": [(b"x-request-id", value)]}
    request_id = request_id_of(scope)
    assert request_id == request_id_of(scope)
    assert request_id.isascii() and request_id.isprintable() and 1 <= len(request_id) <= 128
