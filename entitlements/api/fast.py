"""The hot reads, in front of the framework: a value, or all values of a subject, from live rows.

A row's answer depends on the row alone, but for its date, so it is worked out once and remembered.
What rows cannot answer goes on to the ordinary routes, which give the same answers and all errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Protocol
from urllib.parse import unquote_to_bytes

from entitlements.access import Access
from entitlements.api.encode import access_json
from entitlements.services.means import Means
from entitlements.stores import live
from entitlements.stores.live import Stored
from meterline.db.hot import HotReads
from meterline.kernel.errors import ForbiddenError, UnauthorizedError
from meterline.kernel.instants import format_instant, to_micros
from meterline.kernel.periods import NEVER
from meterline.web.asgi import ASGIApp, Receive, Scope, Send, header, send_response
from meterline.web.auth import Authenticator
from meterline.web.json import encode

REMEMBERED_ANSWERS = 50_000
"""How many rows' answers are remembered, of a few hundred bytes each."""

_PREFIX = "/api/v1/subjects/"
_VALUE_ROUTE = "/api/v1/subjects/{subject}/entitlements/{entitlement}/value"
_ACCESS_ROUTE = "/api/v1/subjects/{subject}/access"
_TYPE = (b"content-type", b"application/json")


class Tracking(Protocol):
    """The sink's side of live rows."""

    def is_tracked(self, series: int) -> bool:
        """Whether a series is still the sink's."""
        ...

    async def as_of(self) -> datetime:
        """Up to when acknowledged events are in live rows."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a row says at every instant in [start, until): JSON around the date of the answer."""

    feature_key: str
    start: datetime
    until: datetime
    head: bytes
    tail: bytes | None
    """None when nothing is dated: `head` is all."""

    def dated(self, as_of: bytes) -> bytes:
        """The JSON of the answer."""
        return self.head if self.tail is None else b"%b%b%b" % (self.head, as_of, self.tail)


def answer_of(
    usage: str, state: bytes, held: str | None = None, pending: str | None = None
) -> Answer:
    """The answer of a row that knows of no usage ahead."""
    row = live.decode(Stored("", None, usage, "", state, held, pending))
    kept = row.state
    until = kept.end or NEVER
    start = kept.start
    if kept.standing is not None:
        start, until = max(kept.standing.opening.at, start), min(until, kept.standing.until)
    access = live.answer(row, start)
    assert access is not None, "a row answers from its start on"
    if access.metered is None:
        return Answer(kept.feature_key, start, until, encode(access_json(access)), None)
    head, tail = _around_date(access, start)
    return Answer(kept.feature_key, start, until, head, tail)


def _around_date(access: Access, at: datetime) -> tuple[bytes, bytes]:
    date = encode(format_instant(at))
    head, _, tail = encode(access_json(access)).partition(b'"asOf":%b' % date)
    return head + b'"asOf":', tail


class FastValues:
    """Answers `GET …/value` and `GET …/access` without parameters; `otherwise` does the rest."""

    def __init__(
        self,
        hot: HotReads,
        tracking: Tracking,
        means: Means,
        authenticator: Authenticator,
        otherwise: ASGIApp,
    ) -> None:
        self._hot = hot
        self._tracking = tracking
        self._means = means
        self._authenticator = authenticator
        self._otherwise = otherwise
        self._answer_of = lru_cache(REMEMBERED_ANSWERS)(answer_of)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the others answer."""
        body = await self._body(scope) if _may_fit(scope) else None
        if body is None:
            await self._otherwise(scope, receive, send)
        else:
            length = (b"content-length", b"%d" % len(body))
            await send_response(send, 200, [_TYPE, length], body)

    async def _body(self, scope: Scope) -> bytes | None:
        names = [_name(part) for part in scope["raw_path"].split(b"/")[4:]]
        try:
            sent = header(scope, b"authorization")
            text = None if sent is None else sent.decode("latin-1")
            principal = await self._authenticator.authenticate(text)
            principal.require("read")
        except (UnauthorizedError, ForbiddenError):
            return None
        match names:
            case [str(subject), "entitlements", str(key), "value"]:
                row = await live.stored(self._hot, principal.namespace, subject, key)
                answers = None if row is None else self._answers([row])
                if not answers:
                    return None
                scope["meterline.route"] = _VALUE_ROUTE
                return answers[0].dated(await self._as_of())
            case [str(subject), "access"]:
                rows = await live.all_stored(self._hot, principal.namespace, subject)
                active = await live.count_active(self._hot, principal.namespace, subject)
                answers = self._answers(rows) if len(rows) == active else None
                if not answers:
                    return None
                scope["meterline.route"] = _ACCESS_ROUTE
                return _together(answers, await self._as_of())
        return None

    def _answers(self, rows: Sequence[Stored]) -> list[Answer] | None:
        """The answers of rows, if each of them has one now."""
        now = self._means.reading_time()
        micros = to_micros(now)
        answers = []
        for row in rows:
            if row.next_expiry is not None and row.next_expiry <= micros:
                return None
            if row.due or (row.series is not None and not self._tracking.is_tracked(row.series)):
                return None
            answer = self._answer_of(row.usage, row.state, row.held, row.pending)
            if not answer.start <= now < answer.until:
                return None
            answers.append(answer)
        return answers

    async def _as_of(self) -> bytes:
        as_of = min(self._means.reading_time(), await self._tracking.as_of())
        return b'"%b"' % format_instant(as_of).encode()


def _together(answers: Sequence[Answer], as_of: bytes) -> bytes:
    parts = [
        b"%b:%b" % (encode(answer.feature_key), answer.dated(as_of))
        for answer in sorted(answers, key=lambda answer: answer.feature_key)
    ]
    return b'{"entitlements":{%b}}' % b",".join(parts)


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
