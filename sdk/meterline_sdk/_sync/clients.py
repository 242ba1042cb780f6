# Written by sdk/unasync.py from _async/clients.py: change that file.
"""The tracked clients. A provider's package is imported when its client is made."""

from typing import Any

from meterline_sdk._sync._meterline import Meterline
from meterline_sdk._sync.tracked import Tracked, Tracker
from meterline_sdk.providers import anthropic, cohere, google, openai


class TrackedOpenAI(Tracked):
    """OpenAI's client with `user_id=` on chat completions, responses and embeddings.

    Give it your own `client`, or the options of `openai.OpenAI`. `check=False` only records.
    """

    def __init__(
        self, meterline: Meterline, client: Any = None, *, check: bool = True, **options: Any
    ) -> None:
        if client is None:
            from openai import OpenAI

            client = OpenAI(**options)
        super().__init__(client, openai.METHODS, Tracker(meterline, "openai", check=check))


class TrackedAnthropic(Tracked):
    """Anthropic's client with `user_id=` on messages.

    Give it your own `client`, or the options of `anthropic.Anthropic`.
    """

    def __init__(
        self, meterline: Meterline, client: Any = None, *, check: bool = True, **options: Any
    ) -> None:
        if client is None:
            from anthropic import Anthropic

            client = Anthropic(**options)
        tracker = Tracker(meterline, "anthropic", check=check)
        super().__init__(client, anthropic.METHODS, tracker)


class TrackedCohere(Tracked):
    """Cohere's second client with `user_id=` on chat, embed and rerank.

    Give it your own `client`, or the options of `cohere.ClientV2`.
    """

    def __init__(
        self, meterline: Meterline, client: Any = None, *, check: bool = True, **options: Any
    ) -> None:
        if client is None:
            from cohere import ClientV2

            client = ClientV2(**options)
        super().__init__(client, cohere.METHODS, Tracker(meterline, "cohere", check=check))


class TrackedGoogle(Tracked):
    """Google's client with `user_id=` on generated content and embeddings.

    Give it your own `google.genai.Client`, or its options.
    """

    def __init__(
        self, meterline: Meterline, client: Any = None, *, check: bool = True, **options: Any
    ) -> None:
        if client is None:
            from google.genai import Client

            client = Client(**options)
        tracker = Tracker(meterline, "google", check=check)
        # A client that is forgotten closes its connections, also those of its parts.
        self._client = client
        super().__init__(client, google.METHODS, tracker)
