"""CORS for what end users' browsers ask of the portal.

No cookie or other ambient credential opens anything here, only the token that the page itself
holds. So any origin may ask by default.
"""

from collections.abc import Sequence

from meterline.web.asgi import ASGIApp, Message, Receive, Scope, Send, header, send_response

_PREFIXES = ("/api/v1/portal/meters/", "/api/v1/portal/entitlements")
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, OPTIONS"),
    (b"access-control-allow-headers", b"Authorization, Accept, Content-Type"),
    (b"access-control-max-age", b"86400"),
]
_EXPOSED = (b"access-control-expose-headers", b"Content-Disposition, Retry-After")


class PortalCors:
    """Around the whole application, so that errors can be read by the page as well."""

    def __init__(self, app: ASGIApp, origins: Sequence[str] = ("*",)) -> None:
        self._app = app
        self._origins = {origin.encode("latin-1") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer preflights; add the headers to other answers."""
        if scope["type"] != "http" or not scope["path"].startswith(_PREFIXES):
            await self._app(scope, receive, send)
            return
        allowed = self._allowed(header(scope, b"origin"))
        if scope["method"] == "OPTIONS":
            await send_response(send, 204, [*allowed, *_PREFLIGHT])
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *allowed, _EXPOSED]}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _allowed(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        if b"*" in self._origins:
            return [(b"access-control-allow-origin", b"*")]
        vary = (b"vary", b"Origin")
        if origin is None or origin not in self._origins:
            return [vary]
        return [(b"access-control-allow-origin", origin), vary]
