"""What a provider's client answers, watched: streams, helpers that read them, raw responses."""

import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from meterline_sdk._async.tracking import AsyncTracker, Call
from meterline_sdk.providers.shape import Seen


def tracked_result(result: Any, tracker: AsyncTracker, call: Call) -> Any:
    """A result whose use is recorded now, or a stream that will say it."""
    if call.kwargs.get("stream"):
        return AsyncTrackedStream(result, tracker, call)
    tracker.answered(call, result)
    return result


async def tracked_raw(raw: Any, tracker: AsyncTracker, call: Call) -> Any:
    """A raw response, likewise. Its JSON says what was used, before anybody can fail to read it."""
    if not call.kwargs.get("stream"):
        tracker.answered(call, _json_of(raw))
        return raw
    parsed = raw.parse()
    waits = inspect.isawaitable(parsed)
    stream = AsyncTrackedStream((await parsed) if waits else parsed, tracker, call)
    return AsyncTrackedRaw(raw, stream, waits)


def _json_of(raw: Any) -> Any:
    """What a raw response holds: Cohere's are read already."""
    response = getattr(raw, "http_response", None)
    if response is None:
        return raw.data
    try:
        return response.json()
    except ValueError:
        return None


class AsyncTrackedStream:
    """A provider's stream. What was used is recorded at its end, or when it is dropped.

    With `begin` the call is still to be made: at the first step, or when it is awaited.
    """

    def __init__(
        self,
        inner: Any,
        tracker: AsyncTracker,
        call: Call,
        begin: Callable[[], Any] | None = None,
    ) -> None:
        self._inner = inner
        self._iterator: Any = None
        self._method = call.method
        self._tracker = tracker
        self._call = call
        self._begin = begin
        self._seen = Seen()
        self._ended = False

    async def open(self) -> Self:
        """Make the call, if it is still to be made."""
        begin, self._begin = self._begin, None
        if begin is not None:
            self._ended = True  # nothing is used if this fails
            await self._tracker.before(self._call)
            try:
                inner = begin()
                self._inner = (await inner) if inspect.isawaitable(inner) else inner
            except BaseException:
                self._tracker.unused(self._call)
                raise
            self._ended = False
        return self

    def __await__(self) -> Any:
        return self.open().__await__()

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":
            raise AttributeError(name)  # a copy has no members yet
        value = getattr(self._inner, name)
        if (name.startswith("get_final_") or name == "until_done") and callable(value):
            return self._reading(value)
        return value

    def _reading(self, value: Any) -> Callable[..., Any]:
        async def run(*args: Any, **kwargs: Any) -> Any:
            async for _ in self:
                pass  # the helper would read by itself, where nobody watches
            result = await value(*args, **kwargs)
            if result is self._inner:
                return self
            if self._call.injected and hasattr(result, "usage"):
                result.usage = None  # only asked for here
            return result

        return run

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        await self.open()
        if self._iterator is None:
            self._iterator = aiter(self._inner)
        while True:
            try:
                chunk = await anext(self._iterator)
            except StopAsyncIteration:
                self._end()
                raise
            except BaseException as error:
                self._end(failed=isinstance(error, Exception))
                raise
            self._method.watch(self._seen, chunk)
            if not (self._call.injected and self._method.hidden(chunk)):
                return chunk

    def _end(self, failed: bool = False) -> None:
        if self._ended or self._begin is not None:
            return
        self._ended = True
        if not self._seen.final:
            self._method.gather(self._seen, self._inner)
        if failed and not self._seen.body and not self._seen.text:
            # Some clients send the request at the first step: it has been refused.
            self._tracker.unused(self._call)
        else:
            self._tracker.streamed(self._call, self._seen)

    async def close(self) -> None:
        """Close the stream, and record what was used of it."""
        close = getattr(self._inner, "close", None) or getattr(self._inner, "aclose", None)
        try:
            if close is not None:
                await close()
        finally:
            self._end()

    async def __aenter__(self) -> Self:
        enter = getattr(self._inner, "__aenter__", None)
        if enter is not None:
            await enter()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            leave = getattr(self._inner, "__aexit__", None)
            if leave is not None:
                await leave(kind, error, traceback)
        finally:
            self._end()

    def __del__(self) -> None:
        if "_ended" in self.__dict__:
            self._end()


class AsyncTrackedManager:
    """A provider's helper, or raw response, that reads a stream inside a `with` block."""

    def __init__(self, inner: Any, tracker: AsyncTracker, call: Call, raw: bool) -> None:
        self._inner = inner
        self._tracker = tracker
        self._call = call
        self._raw = raw
        self._stream: AsyncTrackedStream | None = None

    async def __aenter__(self) -> Any:
        await self._tracker.before(self._call)
        try:
            entered = await self._inner.__aenter__()
        except BaseException:
            self._tracker.unused(self._call)
            raise
        stream = entered.data if self._raw else entered
        self._stream = AsyncTrackedStream(stream, self._tracker, self._call)
        return AsyncTrackedRaw(entered, self._stream) if self._raw else self._stream

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._inner.__aexit__(kind, error, traceback)
        finally:
            if self._stream is not None:
                self._stream._end()


class AsyncTrackedRaw:
    """A provider's raw response to a call that answers with a stream."""

    def __init__(self, inner: Any, stream: AsyncTrackedStream, waits: bool = False) -> None:
        self._inner = inner
        self._stream = stream
        self._waits = waits
        """Whether `parse` is to be awaited."""

    def parse(self, *_args: Any, **_kwargs: Any) -> Any:
        """The stream, in the way of OpenAI's and Anthropic's packages."""
        return _ready(self._stream) if self._waits else self._stream

    @property
    def data(self) -> AsyncTrackedStream:
        """The stream, in the way of Cohere's package."""
        return self._stream

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":
            raise AttributeError(name)  # a copy has no members yet
        return getattr(self._inner, name)


async def _ready(stream: AsyncTrackedStream) -> AsyncTrackedStream:
    return stream
