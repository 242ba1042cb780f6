"""The hot reads, in front of the framework: a value, or all values of a subject, from live rows.

What they cannot answer goes on to the ordinary routes, which give the same answers and all errors.
"""

from datetime import datetime
from urllib.parse import unquote_to_bytes

from entitlements.access import Access
from entitlements.api.encode import access_json
from entitlements.services.live import LiveEntitlements
from entitlements.services.means import Means
from meterline.kernel.errors import ForbiddenError, UnauthorizedError
from meterline.web.asgi import ASGIApp, Receive, Scope, Send, header, send_response
from meterline.web.auth import Authenticator
from meterline.web.json import encode

_PREFIX = "/api/v1/subjects/"
_VALUE_ROUTE = "/api/v1/subjects/{subject}/entitlements/{entitlement}/value"
_ACCESS_ROUTE = "/api/v1/subjects/{subject}/access"
_TYPE = (b"content-type", b"application/json")


class FastValues:
    """Answers `GET …/value` and `GET …/access` without parameters; `otherwise` does the rest."""

    def __init__(
        self,
        live: LiveEntitlements,
        means: Means,
        authenticator: Authenticator,
        otherwise: ASGIApp,
    ) -> None:
        self._live = live
        self._means = means
        self._authenticator = authenticator
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the others answer."""
        body = await self._answer(scope) if _may_fit(scope) else None
        if body is None:
            await self._otherwise(scope, receive, send)
        else:
            length = (b"content-length", b"%d" % len(body))
            await send_response(send, 200, [_TYPE, length], body)

    async def _answer(self, scope: Scope) -> bytes | None:
        parts = scope["raw_path"].split(b"/")
        names = [_name(part) for part in parts[4:]]
        try:
            sent = header(scope, b"authorization")
            text = None if sent is None else sent.decode("latin-1")
            principal = await self._authenticator.authenticate(text)
            principal.require("read")
        except (UnauthorizedError, ForbiddenError):
            return None
        now = self._means.reading_time()
        match names:
            case [str(subject), "entitlements", str(key), "value"]:
                found = self._live.look_up(principal.namespace, subject, key, now)
                if found is None:
                    return None
                scope["meterline.route"] = _VALUE_ROUTE
                return encode(access_json(await self._live.dated(found, now)))
            case [str(subject), "access"]:
                return await self._all(scope, principal.namespace, subject, now)
        return None

    async def _all(self, scope: Scope, namespace: str, subject: str, now: datetime) -> bytes | None:
        answers = self._live.look_up_all(namespace, subject, now)
        if not answers:
            return None
        scope["meterline.route"] = _ACCESS_ROUTE
        dated: dict[str, Access] = {
            key: await self._live.dated(answer, now) for key, answer in answers.items()
        }
        return encode({"entitlements": {key: access_json(one) for key, one in dated.items()}})


def _may_fit(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and scope["path"].startswith(_PREFIX)
        and not scope["query_string"]
        and scope["path"].endswith(("/value", "/access"))
        and header(scope, b"prefer") is None
    )


def _name(part: bytes) -> str | None:
    try:
        return unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError:
        return None
