# Written by sdk/unasync.py from _async/tracked.py: change that file.
"""A provider's own client that asks before each call, and records afterwards what it used.

The caller sees exactly what the provider's client gives; each method that costs takes `user_id=`
(the subject) and may take `track=` (`tags`, `conversation_id`, `estimate`) on top. Public methods
are wrapped, not the transport. What was used is recorded in the background, so that nobody waits
for it.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from meterline_sdk._request import idempotency_key
from meterline_sdk._sync._meterline import Meterline
from meterline_sdk.models import Decision
from meterline_sdk.providers.bounds import bound_of
from meterline_sdk.providers.shape import Body, Kwargs, Method, Methods, Seen

_COPIES = ("with_options", "copy")
_ESTIMATES = ("tokens", "cost_usd", "credits")


@dataclass(slots=True)
class Call:
    """One call of a provider on behalf of a subject; `allowed` is what the check answered."""

    id: str
    subject: str
    track: Mapping[str, Any]
    kwargs: Kwargs
    injected: bool
    method: Method
    allowed: Decision | None = None


class Tracker:
    """Asks Meterline before calls, and tells it afterwards. See `TrackedOpenAI`."""

    def __init__(
        self,
        meterline: Meterline,
        provider: str,
        *,
        check: bool = True,
        reserve: bool = False,
        hold_seconds: int = 900,
        output_tokens: int = 4_096,
    ) -> None:
        if reserve and not check:
            raise ValueError("reserve needs check: the check is what sets something aside")
        self._meterline = meterline
        self._provider = provider
        self._check = check
        self._reserve = reserve
        self._hold_seconds = hold_seconds
        self._output_tokens = output_tokens

    def before(self, call: Call) -> None:
        """Raises `UsageLimitError`, `RateLimitError`, `BannedError` when it must not be made."""
        if not self._check:
            return
        estimate = dict(call.track.get("estimate") or {})
        unknown = set(estimate).difference(_ESTIMATES)
        if unknown:
            raise TypeError(f"an estimate has {', '.join(_ESTIMATES)}, not {', '.join(unknown)}")
        if self._reserve:
            estimate = self._most(call, estimate)
        call.allowed = self._meterline.require(
            call.subject,
            model=call.kwargs.get("model"),
            hold_seconds=self._hold_seconds if self._reserve else None,
            **estimate,
        )

    def _most(self, call: Call, estimate: dict[str, Any]) -> dict[str, Any]:
        """What to set aside: the caller's estimate, or the most that the call can use."""
        if "credits" in estimate:
            raise ValueError("credits are reserved and charged by capture_usage, not by reserve")
        bound = bound_of(call.kwargs, self._output_tokens if call.method.answers else 0)
        model = call.kwargs.get("model")
        if "cost_usd" not in estimate and isinstance(model, str):
            cost = self._meterline.estimate_cost(
                model,
                provider=self._provider,
                input_tokens=bound.input,
                output_tokens=bound.output,
            )
            if cost is not None:
                estimate["cost_usd"] = cost
        return {"tokens": bound.tokens, **estimate}

    def unused(self, call: Call) -> None:
        """The call failed: give back what was set aside; returns at once."""
        if call.allowed is not None and call.allowed.holds:
            self._meterline.give_back(call.subject, call.allowed.holds)

    def after(self, call: Call, body: Body, *, estimated: bool) -> None:
        """Record what was used; returns at once."""
        self._meterline.record_response(
            call.subject,
            body,
            provider=self._provider,
            model_id=_asked_model(call, body),
            estimated=estimated,
            id=call.id,
            tags=call.track.get("tags"),
            conversation_id=call.track.get("conversation_id"),
            check_id=None if call.allowed is None else call.allowed.check_id,
        )


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
        value = getattr(self._inner, name)
        path = self._path + name
        method = self._methods.get(path)
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


def _asked_model(call: Call, body: Body) -> str | None:
    """The model that was asked for, where the answer does not say which one it was."""
    asked = call.kwargs.get("model")
    said = call.method.names_model or "modelVersion" in body
    return None if said or not isinstance(asked, str) else asked


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
        except BaseException:
            tracker.unused(call)
            raise
        if raw:
            return TrackedRaw(result, method, tracker, call)
        return _result(result, method, tracker, call)

    def streamed(
        *args: Any, user_id: str, track: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        call = call_of(kwargs, user_id, track)
        stream = TrackedStream(None, method, tracker, call, lambda: value(*args, **call.kwargs))
        stream.open()
        return stream  # noqa: RET504

    def managed(
        *args: Any, user_id: str, track: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        call = call_of(kwargs, user_id, track)
        return TrackedManager(value(*args, **call.kwargs), method, tracker, call)

    if method.kind == "manager":
        return managed
    return streamed if method.kind == "stream" else called


def _result(result: Any, method: Method, tracker: Tracker, call: Call) -> Any:
    """A result whose use is recorded now, or a stream that will say it."""
    if call.kwargs.get("stream"):
        return TrackedStream(result, method, tracker, call)
    body = method.body(result, call.kwargs)
    if body is None:
        tracker.unused(call)
    else:
        tracker.after(call, body, estimated=False)
    return result


class TrackedStream:
    """A provider's stream. What was used is recorded at its end, or when it is dropped.

    With `begin` the call is still to be made: at the first step, or when it is awaited.
    """

    def __init__(
        self,
        inner: Any,
        method: Method,
        tracker: Tracker,
        call: Call,
        begin: Callable[[], Any] | None = None,
    ) -> None:
        self._inner = inner
        self._iterator: Any = None
        self._method = method
        self._tracker = tracker
        self._call = call
        self._begin = begin
        self._seen = Seen()
        self._ended = False

    def open(self) -> Self:
        """Make the call, if it is still to be made."""
        begin, self._begin = self._begin, None
        if begin is not None:
            self._ended = True  # nothing is used if this fails
            self._tracker.before(self._call)
            try:
                inner = begin()
                self._inner = (inner) if inspect.isawaitable(inner) else inner
            except BaseException:
                self._tracker.unused(self._call)
                raise
            self._ended = False
        return self

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name.startswith("get_final_") and callable(value):
            return self._final(value)
        return value

    def _final(self, value: Any) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            result = value(*args, **kwargs)
            body = self._method.body(result, self._call.kwargs)
            if body is not None:
                self._seen.body, self._seen.final = body, True
            return result

        return run

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        self.open()
        if self._iterator is None:
            self._iterator = iter(self._inner)
        while True:
            try:
                chunk = next(self._iterator)
            except StopIteration:
                self._end()
                raise
            except BaseException:
                self._end()
                raise
            self._method.watch(self._seen, chunk)
            if not (self._call.injected and self._method.hidden(chunk)):
                return chunk

    def _end(self) -> None:
        if self._ended or self._begin is not None:
            return
        self._ended = True
        if not self._seen.final:
            self._method.gather(self._seen, self._inner)
        body = self._seen.body
        if not self._seen.final:
            body = self._method.guess(self._seen, self._call.kwargs)
        self._tracker.after(self._call, body, estimated=not self._seen.final)

    def close(self) -> None:
        """Close the stream, and record what was used of it."""
        close = getattr(self._inner, "close", None) or getattr(self._inner, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self._end()

    def __enter__(self) -> Self:
        enter = getattr(self._inner, "__enter__", None)
        if enter is not None:
            enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            leave = getattr(self._inner, "__exit__", None)
            if leave is not None:
                leave(kind, error, traceback)
        finally:
            self._end()

    def __del__(self) -> None:
        if "_ended" in self.__dict__:
            self._end()


class TrackedManager:
    """A provider's helper that reads a stream inside a `with` block."""

    def __init__(self, inner: Any, method: Method, tracker: Tracker, call: Call) -> None:
        self._inner = inner
        self._method = method
        self._tracker = tracker
        self._call = call
        self._stream: TrackedStream | None = None

    def __enter__(self) -> TrackedStream:
        self._tracker.before(self._call)
        try:
            stream = self._inner.__enter__()
        except BaseException:
            self._tracker.unused(self._call)
            raise
        self._stream = TrackedStream(stream, self._method, self._tracker, self._call)
        return self._stream

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._inner.__exit__(kind, error, traceback)
        finally:
            if self._stream is not None:
                self._stream._end()


class TrackedRaw:
    """A provider's raw response; its content is recorded like that of an ordinary one."""

    def __init__(self, inner: Any, method: Method, tracker: Tracker, call: Call) -> None:
        self._inner = inner
        self._stream: TrackedStream | None = None
        parsed = _result(inner.parse(), method, tracker, call)
        if isinstance(parsed, TrackedStream):
            self._stream = parsed

    def parse(self, *args: Any, **kwargs: Any) -> Any:
        """The content."""
        return self._inner.parse(*args, **kwargs) if self._stream is None else self._stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
