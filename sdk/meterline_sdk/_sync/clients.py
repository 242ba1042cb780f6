# Written by sdk/unasync.py from _async/clients.py: change that file.
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

from meterline_sdk._sync._meterline import Meterline
from meterline_sdk._sync.tracked import Tracked
from meterline_sdk._sync.tracking import Tracker
from meterline_sdk.providers import anthropic, cohere, google, openai

_OURS = ("check", "reserve", "hold_seconds", "output_tokens")


class TrackedOpenAI(Tracked):
    """OpenAI's client with `user_id=` on chat completions, responses and embeddings.

    Give it your own `client`, or the options of `openai.OpenAI`, and how to track: `check`,
    `reserve`, `hold_seconds`, `output_tokens`.
    """

    def __init__(self, meterline: Meterline, client: Any = None, **options: Any) -> None:
        tracker = _tracker(meterline, "openai", options)
        if client is None:
            from openai import OpenAI

            client = OpenAI(**options)
        super().__init__(client, openai.METHODS, tracker)


class TrackedAnthropic(Tracked):
    """Anthropic's client with `user_id=` on messages.

    Give it your own `client`, or the options of `anthropic.Anthropic`, and how to track.
    """

    def __init__(self, meterline: Meterline, client: Any = None, **options: Any) -> None:
        tracker = _tracker(meterline, "anthropic", options)
        if client is None:
            from anthropic import Anthropic

            client = Anthropic(**options)
        super().__init__(client, anthropic.METHODS, tracker)


class TrackedCohere(Tracked):
    """Cohere's second client with `user_id=` on chat, embed and rerank.

    Give it your own `client`, or the options of `cohere.ClientV2`, and how to track.
    """

    def __init__(self, meterline: Meterline, client: Any = None, **options: Any) -> None:
        tracker = _tracker(meterline, "cohere", options)
        if client is None:
            from cohere import ClientV2

            client = ClientV2(**options)
        super().__init__(client, cohere.METHODS, tracker)


class TrackedGoogle(Tracked):
    """Google's client with `user_id=` on generated content and embeddings.

    Give it your own `google.genai.Client`, or its options, and how to track.
    """

    def __init__(self, meterline: Meterline, client: Any = None, **options: Any) -> None:
        tracker = _tracker(meterline, "google", options)
        if client is None:
            from google.genai import Client

            client = Client(**options)
        # A client that is forgotten closes its connections, also those of its parts.
        self._client = client
        super().__init__(client, google.METHODS, tracker)


def _tracker(meterline: Meterline, provider: str, options: dict[str, Any]) -> Tracker:
    """Takes its options out of those of the provider's client."""
    ours = {name: options.pop(name) for name in _OURS if name in options}
    return Tracker(meterline, options.pop("provider", provider), **ours)
