"""Usage from what providers answer, streamed or not. Pure: decoded JSON in, one form out."""

from collections.abc import Mapping, Sequence

from meterline.pricing.bodies import BodyError, Json, Part
from meterline.pricing.extract_openai import openai
from meterline.pricing.extract_others import anthropic, cohere, google
from meterline.pricing.extracted import Extracted, Reader
from meterline.pricing.usage import InvalidUsageError

READERS: Mapping[str, Reader] = {
    "openai": openai,
    "anthropic": anthropic,
    "cohere": cohere,
    "google": google,
}
"""By the provider whose format it is. Others answer in the format of one of them."""

_FORMATS = {"azure": "openai", "gemini": "google", "vertex": "google"}


def extract(body: Json, provider: str | None = None) -> Extracted:
    """The usage in a body: an answer, its last streamed event, or the array of all events.

    `provider` says whose format it is; without it, or when it is one that has no format of its
    own, the body's shape decides. `BodyError` says what is missing or wrong, and where.
    """
    events = body if isinstance(body, Sequence) and not isinstance(body, str) else [body]
    if not events:
        raise BodyError("body", "holds no events")
    for index, event in enumerate(events):
        if not isinstance(event, Mapping):
            where = "body" if event is body else f"[{index}]"
            raise BodyError(where, "must be an object")
    name = (provider or "").strip().lower()
    name = _FORMATS.get(name, name)
    readers = [READERS[name]] if name in READERS else list(READERS.values())
    parts = [Part(one, "" if one is body else f"[{n}]") for n, one in enumerate(events)]
    for read in readers:
        try:
            found = read(parts)
        except InvalidUsageError as error:
            raise BodyError("body", str(error)) from None
        if found is not None:
            return found
    known = ", ".join(READERS) if len(readers) > 1 else name
    raise BodyError("body", f"has no usage that is known of {known}")
