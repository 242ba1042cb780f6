"""python flows.py sync|aio BASE_URL [API_KEY]: metering and entitlements by PyPI's openmeter.

It runs in an environment of its own, which has the SDK and not this project.
"""

import asyncio
import inspect
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import openmeter
import openmeter.aio
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from cloudevents.conversion import to_dict
from cloudevents.http import CloudEvent

_PATIENCE_SECONDS = 15.0


class Sdk:
    """Either client: each call's answer, awaited if it must be."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def __call__(self, method: str, *arguments: Any, **options: Any) -> Any:
        answer = getattr(self._client, method)(*arguments, **options)
        return await answer if inspect.isawaitable(answer) else answer

    async def refusal(self, method: str, *arguments: Any) -> HttpResponseError:
        """The error of a call that must be refused."""
        try:
            await self(method, *arguments)
        except HttpResponseError as error:
            return error
        raise AssertionError(f"{method} was not refused")

    async def until(self, fits: Callable[[Any], bool], method: str, *arguments: Any) -> Any:
        """The first answer that fits."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not fits(answer := await self(method, *arguments)):
            assert time.monotonic() < deadline, answer
            await asyncio.sleep(0.02)
        return answer


def items(listing: Any) -> Any:
    """The items of a listing: this SDK always asks for a page of features and grants."""
    return listing["items"]


async def metering(sdk: Sdk, name: str) -> None:
    """A meter, events, a query."""
    meter = {"slug": name, "eventType": name, "aggregation": "SUM", "valueProperty": "$.tokens"}
    assert (await sdk("create_meter", {**meter, "groupBy": {"model": "$.model"}}))["slug"] == name
    attributes = {"type": name, "source": "openmeter-python", "subject": name}
    for tokens in (0.1, 0.2):
        data = {"tokens": tokens, "model": "gpt-3.5-turbo"}
        await sdk("ingest_events", to_dict(CloudEvent(attributes=attributes, data=data)))

    def counted(answer: Any) -> bool:
        return bool(answer["data"]) and answer["data"][0]["value"] == 0.3

    await sdk.until(counted, "query_meter", name)
    assert name in [one["slug"] for one in await sdk("list_meters")]
    assert isinstance(await sdk.refusal("get_meter", "none"), ResourceNotFoundError)
    assert len(await sdk("list_events")) >= 2
    assert (await sdk("create_portal_token", {"subject": name}))["subject"] == name


async def entitlements(sdk: Sdk, name: str) -> None:
    """A feature, a monthly entitlement, grants, a reset, an override and an end."""
    key = f"feature_{name}"
    feature = await sdk("create_feature", {"key": key, "name": "AI Tokens", "meterSlug": name})
    assert (await sdk("get_feature", key))["id"] == feature["id"]
    assert key in [one["key"] for one in items(await sdk("list_features"))]
    monthly = {
        "type": "metered",
        "featureKey": key,
        "usagePeriod": {"interval": "MONTH", "anchor": "2024-01-31T00:00:00Z"},
        "measureUsageFrom": "CURRENT_PERIOD_START",
        "issueAfterReset": 1000,
    }
    made = await sdk("create_entitlement", name, monthly)
    # This SDK answers a conflict instead of raising it.
    conflict = await sdk("create_entitlement", name, monthly)
    assert conflict["status"] == 409
    assert conflict["extensions"]["conflictingEntityId"] == made["id"]
    assert [one["id"] for one in await sdk("list_subject_entitlements", name)] == [made["id"]]
    assert (await sdk("get_entitlement", name, made["id"]))["featureKey"] == key
    assert (await sdk("get_entitlement_by_id", made["id"]))["subjectKey"] == name

    value = await sdk("get_entitlement_value", name, key)
    assert (value["hasAccess"], value["usage"], value["balance"]) == (True, 0.3, 999.7)
    grant = await sdk(
        "create_grant",
        name,
        key,
        {
            "amount": 100,
            "priority": 9,
            "effectiveAt": "2023-01-01T00:00:00Z",
            "expiration": {"duration": "YEAR", "count": 100},
        },
    )
    assert [one["amount"] for one in await sdk("list_entitlement_grants", name, key)] == [1000, 100]
    assert len(items(await sdk("list_grants"))) >= 2
    assert (await sdk("get_entitlement_value", name, key))["balance"] == 1099.7
    await sdk("void_grant", grant["id"])
    assert (await sdk("get_entitlement_value", name, made["id"]))["balance"] == 999.7

    told = await sdk("get_entitlement_history", name, key, window_size="DAY")
    assert told["burndownHistory"][-1]["balanceAtEnd"] == 999.7
    await sdk("reset_entitlement_usage", name, key, {"retainAnchor": True})
    assert (await sdk("get_entitlement_value", name, key))["usage"] == 0
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    refused = await sdk.refusal("reset_entitlement_usage", name, key, {"effectiveAt": future})
    assert "future" in str(refused)

    other = await sdk("override_entitlement", name, key, {**monthly, "issueAfterReset": 7})
    assert other["id"] != made["id"]
    assert (await sdk("get_entitlement_value", name, key))["totalAvailableGrantAmount"] == 7
    await sdk("delete_entitlement", name, key)
    assert (await sdk("get_entitlement_value", name, other["id"])) == {"hasAccess": False}
    await sdk("delete_feature", key)


async def main(kind: str, url: str, key: str | None = None) -> None:
    """Run every flow with one of the two clients."""
    headers = {"Accept": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    async with AsyncExitStack() as stack:
        if kind == "aio":
            client = openmeter.aio.Client(endpoint=url, headers=headers)
            await stack.enter_async_context(client)
        else:
            client = openmeter.Client(endpoint=url, headers=headers)
            stack.callback(client.close)
        for flow in (metering, entitlements):
            await flow(Sdk(client), f"py_{kind}")
            print(kind, flow.__name__)


asyncio.run(main(*sys.argv[1:]))
