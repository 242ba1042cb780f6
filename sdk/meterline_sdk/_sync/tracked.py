# Written by sdk/unasync.py from _async/tracked.py: change that file.
"""A provider's own client that asks before each call, and records afterwards what it used.

The caller sees exactly what the provider's client gives; each method that costs takes `user_id=`
(the subject) and may take `track=` (`tags`, `conversation_id`, `estimate`) on top. Public methods
are wrapped, not the transport. What was used is recorded in the background, so that nobody waits
for it.
"""

import inspect
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from meterline_sdk._request import idempotency_key
from meterline_sdk._sync.streams import (
    TrackedManager,
    TrackedStream,
    tracked_raw,
    tracked_result,
)
from meterline_sdk._sync.tracking import Call, Tracker
from meterline_sdk.providers.shape import Method, Methods
from meterline_sdk.providers.sizes import Kwargs

_COPIES = ("with_options", "copy")


class Tracked:
    """A provider's client, or a part of it."""

    def __init__(
        self,
        inner: Any,
        methods: Methods,
        tracker: Tracker,
        path: str = "",
        raw: bool = False,
    ) -> None:
        self._inner = inner
        self._methods = methods
        self._tracker = tracker
        self._path = path
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":
            raise AttributeError(name)  # a copy has no members yet
        value = getattr(self._inner, name)
        path = self._path + name
        method = self._methods.get(path)
        if method is not None and method.parses and not self._raw:
            # The raw response says what was used, also if its content cannot be read.
            raw = getattr(getattr(self._inner, "with_raw_response", None), name, None)
            if raw is not None:
                return _parsing(_wrapped(raw, method, self._tracker, True))
        if method is not None:
            return _wrapped(value, method, self._tracker, self._raw)
        if name == "with_raw_response":
            return Tracked(value, self._methods, self._tracker, self._path, True)
        if name in _COPIES and not self._path:
            return self._copying(value)
        if any(known.startswith(f"{path}.") for known in self._methods):
            return Tracked(value, self._methods, self._tracker, f"{path}.", self._raw)
        return value

    def _copying(self, copy: Callable[..., Any]) -> Callable[..., "Tracked"]:
        def run(*args: Any, **kwargs: Any) -> Tracked:
            return Tracked(copy(*args, **kwargs), self._methods, self._tracker)

        return run

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._inner.__exit__(kind, error, traceback)


def _wrapped(value: Any, method: Method, tracker: Tracker, raw: bool) -> Callable[..., Any]:
    def call_of(kwargs: Kwargs, user_id: str, track: Mapping[str, Any] | None) -> Call:
        prepared, injected = method.prepare(kwargs)
        return Call(idempotency_key(), user_id, track or {}, prepared, injected, method)

    def called(
        *args: Any, user_id: str, track: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        call = call_of(kwargs, user_id, track)
        tracker.before(call)
        try:
            result = value(*args, **call.kwargs)
        except BaseException as error:
            tracker.failed(call, error)
            raise
        if raw:
            return tracked_raw(result, tracker, call)
        return tracked_result(result, tracker, call)

    def streamed(
        *args: Any, user_id: str, track: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        call = call_of(kwargs, user_id, track)
        stream = TrackedStream(None, tracker, call, lambda: value(*args, **call.kwargs))
        stream.open()
        return stream  # noqa: RET504

    def managed(
        *args: Any, user_id: str, track: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        call = call_of(kwargs, user_id, track)
        return TrackedManager(value(*args, **call.kwargs), tracker, call, raw)

    if method.kind == "manager" or (raw and method.kind == "stream"):
        return managed
    return streamed if method.kind == "stream" else called


def _parsing(raw: Callable[..., Any]) -> Callable[..., Any]:
    def parsed(*args: Any, **kwargs: Any) -> Any:
        content = (raw(*args, **kwargs)).parse()
        return (content) if inspect.isawaitable(content) else content

    return parsed
