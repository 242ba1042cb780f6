"""One attempt: an HTTP POST that is guarded, bounded in time and size, and never redirected."""

import asyncio
import ssl
from collections.abc import Mapping
from time import perf_counter
from typing import Protocol

import httpcore

from entitlements.notifications.guard import GuardedBackend, RefusedAddressError, Resolver
from entitlements.notifications.schedule import Answer

_SHOWN_BYTES = 1_024


class Sender(Protocol):
    """Sends a message once."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What came of it. Never raises but for a cancellation."""
        ...


class HttpSender:
    """Sends over the network. Enter it once, on the loop that uses it."""

    def __init__(
        self,
        *,
        timeout_seconds: float = 20.0,
        allow_private: bool = False,
        resolver: Resolver | None = None,
        dialler: httpcore.AsyncNetworkBackend | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        guard = (
            GuardedBackend(allow_private=allow_private, resolver=resolver, dialler=dialler)
            if resolver
            else GuardedBackend(allow_private=allow_private, dialler=dialler)
        )
        self._timeout_seconds = timeout_seconds
        # Nothing is kept alive: a connection is as old as the judgement on its address.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or ssl.create_default_context(),
            max_connections=1_000,
            max_keepalive_connections=0,
            network_backend=guard,
        )

    async def close(self) -> None:
        """Drop what is open."""
        await self._pool.aclose()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post, and read the beginning of the answer."""
        started = perf_counter()

        def answer(
            status: int | None, text: str, retry_after: str | None = None, refused: bool = False
        ) -> Answer:
            took = round((perf_counter() - started) * 1000)
            return Answer(status, text, took, retry_after, refused)

        try:
            async with asyncio.timeout(self._timeout_seconds):
                status, retry_after, text = await self._post(url, headers, body)
        except TimeoutError:
            return answer(None, f"no answer within {self._timeout_seconds:g} s")
        except RefusedAddressError as error:
            return answer(None, f"refused: {error}", refused=True)
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            return answer(None, f"{_name(error)}: {error}"[:200])
        except Exception as error:
            # A URL or an answer that the client cannot handle must not stop the others.
            return answer(None, f"{type(error).__name__}: {error}"[:200])
        return answer(status, text, retry_after)

    async def _post(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, str | None, str]:
        raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
        timeout = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_seconds)
        async with self._pool.stream(
            "POST", url, headers=raw, content=body, extensions={"timeout": timeout}
        ) as response:
            retry_after = next(
                (
                    value.decode("latin-1")
                    for name, value in response.headers
                    if name.lower() == b"retry-after"
                ),
                None,
            )
            shown = b""
            async for chunk in response.aiter_stream():
                shown += chunk[: _SHOWN_BYTES - len(shown)]
                if len(shown) >= _SHOWN_BYTES:
                    break
            return response.status, retry_after, shown.decode("utf-8", "replace")


def _name(error: Exception) -> str:
    if isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout):
        return "cannot connect"
    return "connection broke"
