"""The two buffers of a client, and how they send."""

import logging
from collections.abc import Sequence
from typing import Any

import httpx2

from meterline_sdk import _json
from meterline_sdk._async._client import AsyncTransport
from meterline_sdk._request import Request
from meterline_sdk._sync._client import Transport
from meterline_sdk._sync._resource import JSON
from meterline_sdk._sync.resources.events import BATCH
from meterline_sdk.buffer import EventBuffer, Waiting
from meterline_sdk.errors import ConflictError, NotFoundError

logger = logging.getLogger("meterline_sdk")


def buffer_to(
    server: Transport | AsyncTransport, *, http_client: httpx2.Client | None = None, **options: Any
) -> EventBuffer:
    """A buffer of events, which sends them as `server` would."""
    transport = _like(server, http_client)

    def send(batch: Sequence[Waiting]) -> None:
        content = b"[" + b",".join(one.content for one in batch) + b"]"
        transport.send(Request("POST", "/api/v1/events", {}, content, {"content-type": BATCH}))

    return EventBuffer(send, on_close=transport.close, **options)


def records_to(
    server: Transport | AsyncTransport, *, http_client: httpx2.Client | None = None, **options: Any
) -> EventBuffer:
    """A buffer of requests (`path` and `body`), which are sent one by one, at once.

    Records name themselves, so that one which is sent again counts once; as none waits for another,
    a few are under way at the same time. What is given back may have expired, or have been closed
    otherwise: then there is nothing to do (`lost`).
    """
    transport = _like(server, http_client)

    def send(requests: Sequence[Waiting]) -> None:
        for one in requests:
            try:
                path = one.event["path"]
                transport.send(Request("POST", path, {}, one.content, JSON))
            except (ConflictError, NotFoundError):
                if not one.event.get("lost"):
                    raise

    return EventBuffer(
        send,
        write=lambda event: _json.dumps(event["body"]),
        on_close=transport.close,
        **{"senders": 4, **options, "batch_events": 1},
    )


def _like(server: Transport | AsyncTransport, http_client: httpx2.Client | None) -> Transport:
    """A way to the same server for threads of a buffer.

    It has connections of its own, unless the caller gave a client, which knows of proxies and
    certificates: that one is used. An asynchronous client works in its event loop only.
    """
    given: object = http_client or server.given
    if given is not None and not isinstance(given, httpx2.Client):
        logger.warning(
            "the buffers cannot send through an asynchronous http_client, and make connections of"
            " their own: give buffer={'http_client': httpx2.Client(...)} as well"
        )
        given = None
    return Transport(
        server.base_url,
        server.api_key,
        timeout_seconds=server.timeout_seconds,
        retries=server.retries,
        http_client=given,
    )
