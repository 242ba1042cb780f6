"""Everything that this package raises.

MeterlineError
├── ConnectionFailedError          no answer: refused, cut off, or too late
├── BufferFullError                the event buffer has no room
└── APIError                       an answer that says no: status, title, detail, type
    ├── ValidationError      400
    ├── UnauthorizedError    401
    ├── UsageLimitError      402   current, limit, limit_type
    ├── ForbiddenError       403
    │   └── BannedError            the subject is banned: reason
    ├── NotFoundError        404
    ├── ConflictError        409
    ├── RateLimitError       429   retry_after, current, limit, limit_type
    └── ServerError          5xx
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any


class MeterlineError(Exception):
    """The base of all errors."""


class ConnectionFailedError(MeterlineError):
    """The server could not be reached, or did not answer in time; the request may have arrived."""


class BufferFullError(MeterlineError):
    """Too many events wait to be sent, and the policy says to raise."""


class APIError(MeterlineError):
    """The server refused: RFC 9457 problem details.

    `body` is the whole problem, with its members beyond the standard ones.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        type: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(f"{status} {title}: {detail}" if detail else f"{status} {title}")
        self.status = status
        self.title = title
        self.detail = detail
        self.type = type
        self.body = body
        self.headers = headers

    def said(self, name: str) -> Any:
        """A member beyond the standard ones, at the top or among the `extensions`."""
        return _said(self.body, name)


class ValidationError(APIError):
    """The request is wrong, and will stay wrong. `faults` lists where, and why."""

    @property
    def faults(self) -> list[Mapping[str, Any]]:
        """Every fault that the server found: `where` and `reason`."""
        return list(self.said("validationErrors") or ())


class UnauthorizedError(APIError):
    """No key, or none that is valid."""


class _LimitError(APIError):
    @property
    def limit_type(self) -> str | None:
        """Which limit bit: `monthlyTokenLimit`, `requestsPerMinute`, …, or a feature's key."""
        value = self.said("limitType")
        return None if value is None else str(value)

    @property
    def current(self) -> Decimal | None:
        """What is used."""
        return _decimal(self.said("current"))

    @property
    def limit(self) -> Decimal | None:
        """What may be used."""
        return _decimal(self.said("limit"))


class UsageLimitError(_LimitError):
    """A usage limit, a credit or an entitlement is used up."""


class ForbiddenError(APIError):
    """The key, or the subject, may not do this."""


class BannedError(ForbiddenError):
    """The subject is banned."""

    @property
    def reason(self) -> str | None:
        """Why."""
        value = self.said("reason") or self.detail.partition(": ")[2]
        return str(value) if value else None


class NotFoundError(APIError):
    """It is not there, in this namespace."""


class ConflictError(APIError):
    """It exists already, or an idempotency key came back with another request."""


class RateLimitError(_LimitError):
    """Too much in too little time. `retry_after` says how many seconds to wait."""

    @property
    def retry_after(self) -> float | None:
        """Seconds until it may work."""
        value = self.said("retryAfter") or self.headers.get("retry-after")
        try:
            return None if value is None else float(value)
        except (TypeError, ValueError):
            return None


class ServerError(APIError):
    """The server failed, or cannot answer now."""


_BY_STATUS: dict[int, type[APIError]] = {
    400: ValidationError,
    401: UnauthorizedError,
    402: UsageLimitError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitError,
}


def api_error(status: int, body: Any, headers: Mapping[str, str]) -> APIError:
    """The error of an answer whose JSON is `body` (anything, when it was no problem+json)."""
    problem: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else APIError)
    if kind is ForbiddenError and _said(problem, "limitType") == "banned":
        kind = BannedError
    return kind(
        status,
        str(problem.get("title", "") or f"HTTP {status}"),
        str(problem.get("detail", "")),
        str(problem.get("type", "about:blank")),
        problem,
        {name.lower(): value for name, value in headers.items()},
    )


def _said(problem: Mapping[str, Any], name: str) -> Any:
    inner = problem.get("extensions")
    return problem.get(name, inner.get(name) if isinstance(inner, Mapping) else None)


def _decimal(value: Any) -> Decimal | None:
    try:
        return None if value is None else Decimal(str(value))
    except InvalidOperation:
        return None
