"""The OpenAPI document: what it says of every route, and of the parts that FastAPI does not see."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import compile_path

import entitlements.plans.api.routes  # noqa: F401
from entitlements.api.exact import ExactRoute
from entitlements.plans.api.openapi import check_operation
from entitlements.plans.api.wire import ReasonBody
from entitlements.plans.options import PlanOptions
from meterline.server.openapi import build_openapi
from meterline.web.idempotency import IdempotencyLimits
from meterline.web.problem import install_problem_handlers
from tests.support.api import assert_problem, client_of

KEYS = IdempotencyLimits(max_key_length=40)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, found in document["paths"].items():
        for method, operation in found.items():
            yield path, method, operation


@pytest.fixture
def document() -> dict[str, Any]:
    app = FastAPI()
    routes = APIRouter(prefix="/api/v1")

    @routes.post("/reservations", status_code=201)
    async def reserve() -> None: ...

    @routes.get("/reservations/{reservation_id}")
    async def get_reservation(reservation_id: str) -> None: ...

    @routes.post("/events")
    async def ingest() -> None: ...

    app.include_router(routes)
    return build_openapi(app, KEYS)


def test_every_post_but_those_of_events_may_have_a_key(document: dict[str, Any]) -> None:
    with_key = {
        (path, method): one["schema"]
        for path, method, operation in operations(document)
        for one in operation.get("parameters", [])
        if one["name"] == "Idempotency-Key"
    }
    assert list(with_key) == [("/api/v1/reservations", "post")]
    (schema,) = with_key.values()
    assert (schema["minLength"], schema["maxLength"]) == (1, 40)


def test_refusals_are_problems(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        assert "422" not in operation["responses"]
        assert ("404" in operation["responses"]) == ("{" in path)
        assert ("409" in operation["responses"]) == (method == "post" and "events" not in path)
        for status, response in operation["responses"].items():
            if status == "default" or status >= "400":
                assert list(response["content"]) == ["application/problem+json"]


def test_what_a_post_made_is_linked(document: dict[str, Any]) -> None:
    made = document["paths"]["/api/v1/reservations"]["post"]["responses"]["201"]
    (link,) = made["links"].values()
    below = document["paths"]["/api/v1/reservations/{reservation_id}"]["get"]
    assert link["operationId"] == below["operationId"]
    assert link["parameters"] == {"reservation_id": "$response.body#/transactionId"}


def test_a_check_declares_the_limits_of_its_settings() -> None:
    options = PlanOptions(max_subject_length=77, max_hold_ttl_seconds=88)
    operation = check_operation(options)
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["subject"]["maxLength"] == 77
    assert schema["properties"]["hold"]["properties"]["ttlSeconds"]["maximum"] == 88
    assert set(operation["responses"]) >= {"200", "402", "403", "413", "429"}


@pytest.mark.parametrize("body", ["1.5", "1e300", "5", '"text"', "[]", "true"])
async def test_a_body_that_is_no_object_is_refused_where_every_field_may_be_absent(
    body: str,
) -> None:
    app = FastAPI()
    install_problem_handlers(app)
    routes = APIRouter(route_class=ExactRoute)

    @routes.post("/ban")
    async def ban(body: ReasonBody | None = None) -> str:
        return "done"

    app.include_router(routes)
    headers = {"content-type": "application/json"}
    async with client_of(app) as client:
        assert_problem(await client.post("/ban", content=body, headers=headers), 400)
        assert (await client.post("/ban", content="{}", headers=headers)).is_success


@pytest.mark.parametrize(
    ("subject", "fits"),
    [("c", True), ("a/b", True), ("entitlements", True), ("c/entitlements", False)],
)
def test_an_entitlement_to_a_feature_is_not_what_a_subject_has(subject: str, fits: bool) -> None:
    regex, _, _ = compile_path("/subjects/{subject:subject}/credits")
    assert (regex.match(f"/subjects/{subject}/credits") is not None) == fits


@pytest.mark.parametrize(
    ("plan", "fits"),
    [("pro", True), ("a/b", True), ("subjects", True), ("pro/subjects", False)],
)
def test_the_subjects_of_a_plan_are_not_a_plan(plan: str, fits: bool) -> None:
    regex, _, _ = compile_path("/plans/{plan:plan}")
    assert (regex.match(f"/plans/{plan}") is not None) == fits
