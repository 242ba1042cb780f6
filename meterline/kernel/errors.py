"""The error tree. Every error that reaches a caller is one of these, as RFC 9457 problem details.

MeterlineError
├── ValidationError        400  input that can never succeed; `errors` says what and where
├── UnauthorizedError      401
├── UsageLimitError        402  an allowance does not suffice
├── ForbiddenError         403
├── NotFoundError          404
├── ConflictError          409
├── PayloadTooLargeError   413
├── UnsupportedMediaError  415
├── TooManyRequestsError   429  retry after `retry_after_seconds`
└── UnavailableError       503  retry after `retry_after_seconds`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault in the input: where it is (`events[3].time`) and what is wrong with it."""

    where: str
    reason: str


class MeterlineError(Exception):
    """Base of all errors shown to callers. `detail` is for people; `extensions` for programs."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal Server Error"
    retry_after_seconds: int | None = None
    """After how many seconds the same request may succeed, where that is known."""

    def __init__(self, detail: str = "", *, extensions: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.extensions: dict[str, Any] = dict(extensions or {})


class ValidationError(MeterlineError):
    """The request is wrong and will stay wrong; `errors` lists every fault."""

    status = 400
    title = "Bad Request"

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail, extensions=extensions)
        self.errors = tuple(errors)


class UnauthorizedError(MeterlineError):
    """No credential, or one that is unknown, expired, revoked or forged."""

    status = 401
    title = "Unauthorized"


class UsageLimitError(MeterlineError):
    """An allowance does not suffice. Its extensions have `limitType`, `limit` and `current`."""

    status = 402
    title = "Payment Required"


class ForbiddenError(MeterlineError):
    """A good credential that lacks the scope."""

    status = 403
    title = "Forbidden"


class NotFoundError(MeterlineError):
    """The thing named does not exist in the caller's namespace."""

    status = 404
    title = "Not Found"


class ConflictError(MeterlineError):
    """The thing exists already, or is in a state that forbids the change."""

    status = 409
    title = "Conflict"


class PayloadTooLargeError(MeterlineError):
    """The request passes a size limit of the settings."""

    status = 413
    title = "Content Too Large"


class UnsupportedMediaError(MeterlineError):
    """A media type or content coding that this endpoint does not read."""

    status = 415
    title = "Unsupported Media Type"


class _RetryLater(MeterlineError):
    def __init__(
        self,
        detail: str = "",
        *,
        retry_after_seconds: int = 1,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail, extensions=extensions)
        self.retry_after_seconds = retry_after_seconds


class TooManyRequestsError(_RetryLater):
    """A rate limit was reached."""

    status = 429
    title = "Too Many Requests"


class UnavailableError(_RetryLater):
    """The server cannot do it now; nothing was stored."""

    status = 503
    title = "Service Unavailable"
