"""The hot reads answer what the ordinary routes answer, or leave it to them."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from entitlements.api.encode import access_json
from entitlements.api.fast import FastValues
from entitlements.limits import EntitlementLimits
from entitlements.model import EntitlementType
from entitlements.services.means import Means
from entitlements.specs import EntitlementSpec, FeatureSpec, GrantSpec, RecurrenceSpec
from meterline.db.hot import HotReads, open_hot_reads
from meterline.db.keys import SqlKeyStore
from meterline.kernel.meters import Aggregation, MeterSpec
from meterline.kernel.periods import parse_interval
from meterline.server.usage import MeterUsage
from meterline.web.asgi import Receive, Scope, Send, send_response
from meterline.web.auth import Authenticator
from meterline.web.json import encode
from tests.support.clock import FixedClock
from tests.support.entitled import Entitled, entitled
from tests.support.usage import canonical, send

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKENS = MeterSpec("tokens", "tokens", None, Aggregation.SUM, "llm.usage", "$.n", {}, None, {})
TEAPOT = 418


async def _left_to_others(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send_response(send, TEAPOT, [])


def _client(on: Entitled, path: Path) -> tuple[httpx.AsyncClient, HotReads]:
    hot = open_hot_reads(f"sqlite:///{path}/state.db")
    sink = on.rig.sink
    usage = MeterUsage(on.meters, sink.registry, sink.freshness, on.rig.engine)
    means = Means(on.rig.database, usage, on.clock, EntitlementLimits())
    authenticator = Authenticator(SqlKeyStore(on.rig.database))
    app = FastValues(hot, usage, means, authenticator, _left_to_others)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test"), hot


async def _set_up(on: Entitled) -> None:
    month = RecurrenceSpec(parse_interval("MONTH"))
    specs = [
        EntitlementSpec(EntitlementType.METERED, "tokens", usage_period=month),
        EntitlementSpec(EntitlementType.STATIC, "models", config='{"a": ["b"]}'),
        EntitlementSpec(EntitlementType.BOOLEAN, "portal"),
    ]
    for spec in specs:
        slug = "tokens" if spec.feature == "tokens" else None
        await on.features.create("default", FeatureSpec(spec.feature, spec.feature, slug))
        await on.entitlements.create("default", "a/ü b", spec)
    await on.grants.create("default", "a/ü b", "tokens", GrantSpec(Decimal("1e3"), START))
    on.clock.advance(60)
    await send(
        on.rig.log, [canonical("1", '{"n": 0.10}', subject="a/ü b", time="2026-03-01T12:00:30Z")]
    )
    await on.rig.settle()


def _plain(answer: Any) -> Any:
    """Without its date, which a live row knows better."""
    return {key: value for key, value in answer.items() if key != "asOf"}


async def test_hot_reads_agree_with_the_services(tmp_path: Path) -> None:
    async with entitled(tmp_path, [TOKENS], FixedClock(START)) as on:
        await _set_up(on)
        client, hot = _client(on, tmp_path)
        root = "/api/v1/subjects/a%2F%C3%BC%20b"
        async with client:
            first = await client.get(f"{root}/access")
            assert first.status_code == TEAPOT
            expected = {
                key: json.loads(encode(access_json(access)))
                for key, access in (await on.values.access("default", "a/ü b")).items()
            }
            everything = (await client.get(f"{root}/access")).json()["entitlements"]
            for key, answer in expected.items():
                one = await client.get(f"{root}/entitlements/{key}/value")
                assert one.headers["content-type"] == "application/json"
                assert _plain(one.json()) == _plain(everything[key]) == _plain(answer)
            assert expected["tokens"]["balance"] == 999.9
            # What the rows do not know is left to the ordinary routes.
            for path in ("entitlements/nothing/value", "entitlements/tokens/value?time=x"):
                assert (await client.get(f"{root}/{path}")).status_code == TEAPOT
            on.clock.now += timedelta(days=40)
            assert (await client.get(f"{root}/entitlements/tokens/value")).status_code == TEAPOT
        await hot.close()


async def test_a_new_event_changes_a_remembered_answer(tmp_path: Path) -> None:
    async with entitled(tmp_path, [TOKENS], FixedClock(START)) as on:
        await _set_up(on)
        await on.values.access("default", "a/ü b")
        client, hot = _client(on, tmp_path)
        async with client:
            path = "/api/v1/subjects/a%2F%C3%BC%20b/entitlements/tokens/value"
            assert (await client.get(path)).json()["usage"] == 0.1
            event = canonical("2", '{"n": 2}', subject="a/ü b", time="2026-03-01T12:00:40Z")
            await send(on.rig.log, [event])
            await on.rig.settle()
            assert (await client.get(path)).json()["usage"] == 2.1
        await hot.close()
