"""The Python client of Meterline.

`Meterline` and `AsyncMeterline` have the whole API; `event` makes a usage event; the errors are in
`meterline_sdk.errors`, what answers look like in `meterline_sdk.models`.
"""

from meterline_sdk._async._meterline import AsyncMeterline
from meterline_sdk._events import event
from meterline_sdk._request import RetryPolicy
from meterline_sdk._sync._meterline import Meterline
from meterline_sdk.buffer import EventBuffer
from meterline_sdk.errors import (
    APIError,
    BannedError,
    BufferFullError,
    ConflictError,
    ConnectionFailedError,
    ForbiddenError,
    MeterlineError,
    NotFoundError,
    RateLimitError,
    ServerError,
    UnauthorizedError,
    UsageLimitError,
    ValidationError,
)
from meterline_sdk.version import __version__

__all__ = [
    "APIError",
    "AsyncMeterline",
    "BannedError",
    "BufferFullError",
    "ConflictError",
    "ConnectionFailedError",
    "EventBuffer",
    "ForbiddenError",
    "Meterline",
    "MeterlineError",
    "NotFoundError",
    "RateLimitError",
    "RetryPolicy",
    "ServerError",
    "UnauthorizedError",
    "UsageLimitError",
    "ValidationError",
    "__version__",
    "event",
]
