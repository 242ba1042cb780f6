"""Credits around any function: as a call, as a decorator, as a `with` block."""

from meterline_sdk._async.capture import (
    AsyncCapture,
    AsyncCaptured,
    async_capture_usage,
    async_captured,
)
from meterline_sdk._sync.capture import Capture, Captured, capture_usage, captured
from meterline_sdk.tokens import Tokens

__all__ = [
    "AsyncCapture",
    "AsyncCaptured",
    "Capture",
    "Captured",
    "Tokens",
    "async_capture_usage",
    "async_captured",
    "capture_usage",
    "captured",
]
