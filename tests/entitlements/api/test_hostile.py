"""Whatever is sent, the answer is no server error and says what is wrong."""

import json
import random
import string
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.entitlements import Bench

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
NASTY: list[Any] = [
    None, True, 0, -1, 10**40, 1.5, "", "\0", "\ud800", "x" * 100_000, "'; DROP TABLE grants; --",
    "%00", "9999-12-31T23:59:59Z", "2026-01-01T00:00:00", "NaN", [], [[]], {}, {"a": {"b": []}},
    ULID, "P999999999999999999999Y", "P0D", "UTC", "../../etc/passwd", "\u202e",
]  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "/features": {
        "key": "other", "name": "Other", "meterSlug": "tokens",
        "meterGroupByFilters": {"model": "a"}, "metadata": {"a": "b"},
    },
    "/subjects/bob/entitlements": {
        "type": "metered", "featureKey": "tokens", "isSoftLimit": True, "metadata": {"a": "b"},
        "usagePeriod": {"interval": "MONTH", "anchor": "2026-01-01T00:00:00Z", "timeZone": "UTC"},
        "measureUsageFrom": "NOW", "issueAfterReset": 1, "issueAfterResetPriority": 1,
        "preserveOverageAtReset": True,
    },
    "/subjects/alice/entitlements/tokens/grants": {
        "amount": 1, "priority": 1, "effectiveAt": "2026-03-01T00:00:00Z",
        "expiration": {"duration": "DAY", "count": 1}, "minRolloverAmount": 1,
        "maxRolloverAmount": 1, "metadata": {"a": "b"},
        "recurrence": {"interval": "DAY", "anchor": "2026-03-01T00:00:00Z"},
    },
    "/subjects/alice/entitlements/tokens/reset": {
        "effectiveAt": "2026-03-01T12:00:00Z", "retainAnchor": True, "preserveOverage": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("path", BODIES)
async def test_bodies(bench: Bench, path: str) -> None:
    await bench.feature()
    await bench.entitle()
    body = BODIES[path]
    changed = [{**body, name: value} for name in body for value in NASTY]
    for name, inner in body.items():
        if isinstance(inner, dict):
            changed += [
                {**body, name: {**inner, within: value}} for within in inner for value in NASTY
            ]
    bad = 0
    for one in [*changed, *NASTY]:
        content = json.dumps(one)
        response = await bench.http.post(
            f"/api/v1{path}", content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code in (201, 204, 400, 404, 409), (content[:200], response.text)
        if response.status_code >= 400:
            bad += 1
            assert response.json()["detail"], content[:200]
    assert bad > len(changed) // 2


@pytest.mark.parametrize("body", [b"\xff\xfe", b"{", b'{"a": 1e', b"[" * 200_000, b'"' * 9])
@pytest.mark.parametrize("path", BODIES)
async def test_what_is_no_json(bench: Bench, path: str, body: bytes) -> None:
    for kind in ("application/json", "text/plain", "application/xml", ""):
        response = await bench.http.post(
            f"/api/v1{path}", content=body, headers={"content-type": kind}
        )
        assert response.status_code == 400, response.text


@pytest.mark.parametrize(
    "path",
    [
        "/features/{}", "/entitlements/{}", "/grants/{}", "/subjects/{}/entitlements",
        "/subjects/{}/access", "/subjects/{}/entitlements/tokens/value",
        "/subjects/alice/entitlements/{}", "/subjects/alice/entitlements/{}/value",
        "/subjects/alice/entitlements/{}/history", "/subjects/alice/entitlements/{}/grants",
    ],
)  # fmt: skip
async def test_names_in_addresses(bench: Bench, path: str) -> None:
    for value in NASTY:
        if isinstance(value, str):
            name = quote(value[:5000].encode("utf-8", "surrogatepass"), safe="")
            for method in ("GET", "DELETE"):
                response = await bench.http.request(method, "/api/v1" + path.format(name))
                assert response.status_code in (200, 400, 404, 405, 307), response.text


@pytest.mark.parametrize(
    "path",
    ["/features", "/entitlements", "/grants", "/subjects/alice/entitlements/tokens/history",
     "/subjects/alice/entitlements/tokens/value", "/subjects/alice/access"],
)  # fmt: skip
async def test_parameters(bench: Bench, path: str) -> None:
    await bench.feature()
    await bench.entitle()
    names = (
        "page", "pageSize", "limit", "offset", "order", "orderBy", "feature", "subject",
        "entitlementType", "meterSlug", "includeArchived", "from", "to", "windowSize",
        "windowTimeZone", "time", "wait", "at",
    )  # fmt: skip
    for name in names:
        for value in (str(one) for one in NASTY):
            query = f"{name}={quote(value[:5000].encode('utf-8', 'surrogatepass'), safe='')}"
            response = await bench.http.get(f"/api/v1{path}?{query}")
            assert response.status_code in (200, 400), (query[:100], response.text)


async def test_many_random_requests(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    chance = random.Random(3)
    parts = ["subjects", "alice", "entitlements", "tokens", "grants", "value", "history", "reset",
             "override", "access", "features", ULID, "", "%2F"]  # fmt: skip
    for _ in range(400):
        path = "/".join(chance.choices(parts, k=chance.randrange(1, 8)))
        method = chance.choice(["GET", "POST", "PUT", "DELETE"])
        content = "".join(chance.choices(string.printable, k=20)) if method[0] == "P" else None
        response = await bench.http.request(method, f"/api/v1/{path}", content=content)
        assert response.status_code < 500, (method, path, response.text)
