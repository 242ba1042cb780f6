"""A record as the data of its event. Pure.

Meters read the texts of numbers at the top: there, what nobody said is 0, because it adds nothing
to a sum. What was really said is in `usage`.
"""

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from entitlements.usage_records.model import RecordSpec
from meterline.kernel.instants import format_instant
from meterline.kernel.quantity import format_number
from meterline.pricing.book import Quote
from meterline.pricing.rates import Costed, PriceStamp, UnitPrice
from meterline.pricing.usage import COUNTS, TokenUsage, usage_of

_ZERO = Decimal(0)
_ALSO = ("reasoning_tokens", "cache_write_tokens", "images", "characters")


def camel(name: str) -> str:
    """A name as JSON has it."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def with_json_names(text: str) -> str:
    """A text for people with the units as JSON has them."""
    for key in sorted(COUNTS, key=len, reverse=True):
        text = text.replace(key, camel(key))
    return text


UNIT_OF = {camel(key): key for key in COUNTS}
"""The key of a unit, by its name in JSON."""


def event_data(spec: RecordSpec, quote: Quote) -> dict[str, Any]:
    """The data of the event that a call becomes. What is not known is not there."""
    usage = spec.usage
    counts = {name: format_number(count) for name, count in usage.counts().items()}
    data: dict[str, Any] = {
        "provider": quote.provider,
        "model": spec.model or None,
        "usageType": spec.usage_type.value,
        "context": spec.context.value,
        "inputTokens": format_number(usage.input_tokens or _ZERO),
        "outputTokens": format_number(usage.output_tokens or _ZERO),
        "cachedTokens": format_number(usage.cached_tokens or _ZERO),
        "totalTokens": format_number(usage.total_tokens),
        **{camel(name): counts[name] for name in _ALSO if name in counts},
        "audioDurationSeconds": counts.get("audio_seconds"),
        "usage": {camel(name): text for name, text in counts.items()},
        "priced": str(quote.state),
        **_price(quote),
        "terms": dict(spec.terms) or None,
        "key": spec.key,
        "tags": list(spec.tags) or None,
        "tagSet": tag_set(spec.tags),
        "conversationId": spec.conversation,
        "transactionId": spec.transaction_id,
        "estimated": spec.estimated or None,
        "query": spec.query,
        "description": spec.description,
        "metadata": dict(spec.metadata) or None,
    }
    return {name: value for name, value in data.items() if value is not None}


def tag_set(tags: tuple[str, ...]) -> str | None:
    """The tags of a call as one text: a JSON array of them in order, each once."""
    return msgspec.json.encode(sorted(set(tags))).decode() if tags else None


def tags_of(text: str) -> tuple[str, ...]:
    """The tags in such a text; none in the empty one."""
    return tuple(msgspec.json.decode(text, type=list[str])) if text else ()


def usage_of_data(data: Mapping[str, Any]) -> TokenUsage:
    """The usage that a record's data says."""
    said: Mapping[str, str] = data.get("usage", {})
    return usage_of({UNIT_OF[name]: Decimal(text) for name, text in said.items()})


def stamp_json(stamp: PriceStamp) -> dict[str, Any]:
    """Which price was applied."""
    told = {
        "id": stamp.id,
        "source": stamp.source.value,
        "provider": stamp.provider,
        "model": stamp.model,
        "catalogue": stamp.catalogue,
        "validFrom": None if stamp.valid_from is None else format_instant(stamp.valid_from),
        "rates": {camel(key): _unit_price(one) for key, one in stamp.unit_prices.items()},
    }
    return {name: value for name, value in told.items() if value is not None}


def fingerprint(spec: RecordSpec) -> bytes:
    """What two reports under one id must agree on: all that the caller said."""
    told = [
        spec.model,
        sorted((name, format_number(count)) for name, count in spec.usage.counts().items()),
        spec.context.value,
        spec.subject,
        spec.usage_type.value,
        None if spec.time is None else format_instant(spec.time),
        spec.provider,
        sorted(spec.terms.items()),
        spec.key,
        sorted(spec.tags),
        spec.conversation,
        spec.transaction_id,
        spec.estimated,
        spec.query,
        spec.description,
        sorted(spec.metadata.items()),
    ]
    return hashlib.sha256(msgspec.json.encode(told)).digest()


def _price(quote: Quote) -> dict[str, Any]:
    if isinstance(quote.outcome, Costed):
        cost = format_number(quote.outcome.cost_usd)
        return {"costUsd": cost, "price": stamp_json(quote.outcome.stamp)}
    return {"unpricedReason": with_json_names(quote.outcome.reason)}


def _unit_price(price: UnitPrice) -> dict[str, Any]:
    return {"price": format_number(price.price), "per": price.per}
