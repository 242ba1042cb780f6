"""The tracked clients. A provider's package is imported when its client is made."""

from typing import Any

from meterline_sdk._async._meterline import AsyncMeterline
from meterline_sdk._async.tracked import AsyncTracked, AsyncTracker
from meterline_sdk.providers import anthropic, cohere, google, openai


class AsyncTrackedOpenAI(AsyncTracked):
    """OpenAI's client with `user_id=` on chat completions, responses and embeddings.

    Give it your own `client`, or the options of `openai.AsyncOpenAI`. `check=False` only records.
    """

    def __init__(
        self, meterline: AsyncMeterline, client: Any = None, *, check: bool = True, **options: Any
    ) -> None:
        if client is None:
            from openai import AsyncOpenAI

            client = AsyncOpenAI(**options)
        super().__init__(client, openai.METHODS, AsyncTracker(meterline, "openai", check=check))


class AsyncTrackedAnthropic(AsyncTracked):
    """Anthropic's client with `user_id=` on messages.

    Give it your own `client`, or the options of `anthropic.AsyncAnthropic`.
    """

    def __init__(
        self, meterline: AsyncMeterline, client: Any = None, *, check: bool = True, **options: Any
    ) -> None:
        if client is None:
            from anthropic import AsyncAnthropic

            client = AsyncAnthropic(**options)
        tracker = AsyncTracker(meterline, "anthropic", check=check)
        super().__init__(client, anthropic.METHODS, tracker)


class AsyncTrackedCohere(AsyncTracked):
    """Cohere's second client with `user_id=` on chat, embed and rerank.

    Give it your own `client`, or the options of `cohere.AsyncClientV2`.
    """

    def __init__(
        self, meterline: AsyncMeterline, client: Any = None, *, check: bool = True, **options: Any
    ) -> None:
        if client is None:
            from cohere import AsyncClientV2

            client = AsyncClientV2(**options)
        super().__init__(client, cohere.METHODS, AsyncTracker(meterline, "cohere", check=check))


class AsyncTrackedGoogle(AsyncTracked):
    """Google's client with `user_id=` on generated content and embeddings.

    Give it your own `google.genai.Client`, or its options.
    """

    def __init__(
        self, meterline: AsyncMeterline, client: Any = None, *, check: bool = True, **options: Any
    ) -> None:
        if client is None:
            from google.genai import Client

            client = Client(**options)
        tracker = AsyncTracker(meterline, "google", check=check)
        # A client that is forgotten closes its connections, also those of its parts.
        self._client = client
        super().__init__(client.aio, google.METHODS, tracker)
