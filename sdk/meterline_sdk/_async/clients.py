"""The tracked clients. A provider's package is imported when its client is made.

All of them take your own `client`, or the options of the provider's, and on top:

`check=False`    only records: nothing is asked, and nothing refused.
`reserve=True`   the check sets the most that the call can use aside (or `track={"estimate": …}`)
                 and the record gives it back, so that parallel calls cannot pass a hard limit.
`hold_seconds`   how long that is at most: longer than your longest call.
`output_tokens`  what is set aside for an answer whose maximum the call does not say.
`provider`       whose prices count, where another one answers in the format of the client's.
"""

from typing import Any

from meterline_sdk._async._meterline import AsyncMeterline
from meterline_sdk._async.tracked import AsyncTracked
from meterline_sdk._async.tracking import AsyncTracker
from meterline_sdk.providers import anthropic, cohere, google, openai

_OURS = ("check", "reserve", "hold_seconds", "output_tokens")


class AsyncTrackedOpenAI(AsyncTracked):
    """OpenAI's client with `user_id=` on chat completions, responses and embeddings.

    Give it your own `client`, or the options of `openai.AsyncOpenAI`, and how to track: `check`,
    `reserve`, `hold_seconds`, `output_tokens`.
    """

    def __init__(self, meterline: AsyncMeterline, client: Any = None, **options: Any) -> None:
        tracker = _tracker(meterline, "openai", options)
        if client is None:
            from openai import AsyncOpenAI

            client = AsyncOpenAI(**options)
        super().__init__(client, openai.METHODS, tracker)


class AsyncTrackedAnthropic(AsyncTracked):
    """Anthropic's client with `user_id=` on messages.

    Give it your own `client`, or the options of `anthropic.AsyncAnthropic`, and how to track.
    """

    def __init__(self, meterline: AsyncMeterline, client: Any = None, **options: Any) -> None:
        tracker = _tracker(meterline, "anthropic", options)
        if client is None:
            from anthropic import AsyncAnthropic

            client = AsyncAnthropic(**options)
        super().__init__(client, anthropic.METHODS, tracker)


class AsyncTrackedCohere(AsyncTracked):
    """Cohere's second client with `user_id=` on chat, embed and rerank.

    Give it your own `client`, or the options of `cohere.AsyncClientV2`, and how to track.
    """

    def __init__(self, meterline: AsyncMeterline, client: Any = None, **options: Any) -> None:
        tracker = _tracker(meterline, "cohere", options)
        if client is None:
            from cohere import AsyncClientV2

            client = AsyncClientV2(**options)
        super().__init__(client, cohere.METHODS, tracker)


class AsyncTrackedGoogle(AsyncTracked):
    """Google's client with `user_id=` on generated content and embeddings.

    Give it your own `google.genai.Client`, or its options, and how to track.
    """

    def __init__(self, meterline: AsyncMeterline, client: Any = None, **options: Any) -> None:
        tracker = _tracker(meterline, "google", options)
        if client is None:
            from google.genai import Client

            client = Client(**options)
        # A client that is forgotten closes its connections, also those of its parts.
        self._client = client
        super().__init__(client.aio, google.METHODS, tracker)


def _tracker(meterline: AsyncMeterline, provider: str, options: dict[str, Any]) -> AsyncTracker:
    """Takes its options out of those of the provider's client."""
    ours = {name: options.pop(name) for name in _OURS if name in options}
    return AsyncTracker(meterline, options.pop("provider", provider), **ours)
