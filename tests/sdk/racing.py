"""Many tracked calls at once."""

import asyncio
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from meterline_sdk import AsyncMeterline, UsageLimitError
from meterline_sdk.tracked import AsyncTrackedOpenAI
from tests.sdk.providers import Stub
from tests.support.server import eventually

ASKED = [{"role": "user", "content": "Say hello to my friend"}]
CALL = 18
"""Tokens of a chat completion of the stub: 11, of which 4 were cached, and 7."""


def race(
    urls: Sequence[str],
    stub: Stub,
    subject: str,
    clients: int,
    *,
    key: str | None = None,
    **how: Any,
) -> int:
    """So many calls at once, none of which is answered before all were checked: how many were.

    They take turns with the servers.
    """
    return asyncio.run(_race(urls, stub, subject, clients, key, how))


async def _race(
    urls: Sequence[str],
    stub: Stub,
    subject: str,
    clients: int,
    key: str | None,
    how: dict[str, Any],
) -> int:
    stub.gate.clear()
    refused = 0

    async def one(openai: Any) -> None:
        nonlocal refused
        try:
            await openai.chat.completions.create(
                model="gpt-4o",
                messages=ASKED,
                user_id=subject,
                track={"estimate": {"tokens": CALL}},
            )
        except UsageLimitError:
            refused += 1

    def open_the_gate() -> None:
        try:
            eventually(lambda: refused + len(stub.calls) == clients, "all are checked", 60)
        finally:
            stub.gate.set()

    async with AsyncExitStack() as stack:
        meterlines = [
            await stack.enter_async_context(AsyncMeterline(url, key, timeout_seconds=60))
            for url in urls
        ]
        openais = [
            await stack.enter_async_context(
                AsyncTrackedOpenAI(
                    one, api_key="k", base_url=f"{stub.url}/v1", max_retries=0, **how
                )
            )
            for one in meterlines
        ]
        gate = threading.Thread(target=open_the_gate)
        gate.start()
        await asyncio.gather(*(one(openais[n % len(openais)]) for n in range(clients)))
        gate.join()
        for meterline in meterlines:
            assert await asyncio.to_thread(meterline.records.flush, 60)
    made = len(stub.calls)
    stub.calls.clear()
    return made
