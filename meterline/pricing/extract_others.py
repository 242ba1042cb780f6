"""Bodies of Anthropic, Cohere and Google. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from meterline.pricing.bodies import BodyError, Part
from meterline.pricing.extracted import Extracted, counted, terms, total
from meterline.pricing.usage import TokenUsage, add

_ANTHROPIC_BATCH = "batch"
_NONE = Decimal(0)


def anthropic(events: Sequence[Part]) -> Extracted | None:
    """Messages. Of a stream, the usage of its first event with what later ones add or replace.

    Later usage is cumulative; a member that is null there keeps its earlier value. The last event
    alone is enough when it repeats the input side, as newer versions of the API do.
    """
    message, usage = Part(None), dict[str, Any]()
    for event in events:
        kind = event["type"].text
        if kind == "message":
            message = event
            _merge(usage, event["usage"])
        elif kind == "message_start":
            message = event["message"]
            _merge(usage, message["usage"])
        elif kind == "message_delta":
            _merge(usage, event["usage"])
    if not usage or not ({"input_tokens", "output_tokens"} & usage.keys()):
        return None
    counts = _with_compaction(Part(usage, "usage"))
    tier = Part(usage, "usage")["service_tier"].name
    batch = tier == _ANTHROPIC_BATCH
    return Extracted(
        provider="anthropic",
        usage=counts,
        model=message["model"].name,
        response_id=message["id"].text,
        context=terms(
            service_tier=None if batch else tier,
            processing="batch" if batch else None,
            speed=Part(usage, "usage")["speed"].name,
        ),
    )


def _merge(usage: dict[str, Any], later: Part) -> None:
    if later and not isinstance(later.value, Mapping):
        raise BodyError(later.where, "must be an object")
    usage |= {name: value for name, value in (later.value or {}).items() if value is not None}


def _with_compaction(usage: Part) -> TokenUsage:
    """What is at the top, and the making of summaries, which is not in it; all else is."""
    counts = _anthropic_counts(usage)
    for part in usage["iterations"].items:
        if part["type"].text == "compaction":
            counts = add(counts, replace(_anthropic_counts(part), requests=None))
    return counts


def _anthropic_counts(usage: Part) -> TokenUsage:
    """`input_tokens` is what no cache had a part in: the three together are the input."""
    read = usage["cache_read_input_tokens"].count
    written = usage["cache_creation_input_tokens"].count
    split = usage["cache_creation"]
    five_minutes = split["ephemeral_5m_input_tokens"].count
    hour = split["ephemeral_1h_input_tokens"].count
    written = total(five_minutes, hour) if written is None else written
    return counted(
        input_tokens=total(usage["input_tokens"].needed, read, written),
        cached_tokens=read,
        cache_write_tokens=written,
        cache_write_5m_tokens=five_minutes,
        cache_write_1h_tokens=hour,
        output_tokens=usage["output_tokens"].needed,
        reasoning_tokens=usage["output_tokens_details"]["thinking_tokens"].count,
        web_searches=usage["server_tool_use"]["web_search_requests"].count,
    )


def cohere(events: Sequence[Part]) -> Extracted | None:
    """Chat, embed and rerank, by what is billed: that is less than the tokens that were read."""
    for event in reversed(events):
        usage = event["usage"]
        if event["type"].text == "message-end":
            usage = event["delta"]["usage"]
        elif not usage:
            usage = event["meta"]
        billed = usage["billed_units"] if isinstance(usage.value, Mapping) else Part(None)
        if billed:
            return _cohere(event, billed)
    return None


def _cohere(body: Part, billed: Part) -> Extracted:
    text, image = billed["text_tokens"].count, billed["image_tokens"].count
    read = billed["input_tokens"].count
    if image and (read is None or text is None or total(text, image) != read):
        # Those of images are beside the others, unless all of them are told apart.
        read = total(read, image)
    counts = counted(
        input_tokens=read,
        output_tokens=billed["output_tokens"].count,
        input_image_tokens=image,
        images=billed["images"].count,
        rerank_searches=billed["search_units"].count,
    )
    if len(counts.counts()) == 1:
        raise BodyError(billed.where, "has no count that can be priced")
    usage_type = "embedding" if body["embeddings"] else "text"
    return Extracted("cohere", counts, body["model"].name, body["id"].text, usage_type)


def google(events: Sequence[Part]) -> Extracted | None:
    """`generateContent` and the Live API; of a stream the last usage is that of all of it."""
    for event in reversed(events):
        usage = event.either("usageMetadata", "usage_metadata")
        if usage:
            return _google(event, usage)
    return None


def _google(body: Part, usage: Part) -> Extracted:
    prompt = _either(usage, "promptTokenCount")
    tools = _either(usage, "toolUsePromptTokenCount")
    candidates = total(_either(usage, "candidatesTokenCount"), _either(usage, "responseTokenCount"))
    thoughts = _either(usage, "thoughtsTokenCount")
    if prompt is None and candidates is None:
        raise BodyError(usage.where, "has neither promptTokenCount nor candidatesTokenCount")
    inputs = _modalities(usage, "promptTokensDetails", "toolUsePromptTokensDetails")
    outputs = _modalities(usage, "candidatesTokensDetails", "responseTokensDetails")
    cached = _modalities(usage, "cacheTokensDetails")
    counts = counted(
        input_tokens=total(prompt, tools),
        cached_tokens=_either(usage, "cachedContentTokenCount"),
        input_audio_tokens=inputs.get("AUDIO"),
        input_image_tokens=_images(inputs),
        input_video_tokens=inputs.get("VIDEO"),
        cached_audio_tokens=cached.get("AUDIO", _NONE if cached else None),
        cached_image_tokens=_images(cached) if _images(cached) or not cached else _NONE,
        output_tokens=total(candidates, thoughts),
        reasoning_tokens=thoughts,
        output_audio_tokens=outputs.get("AUDIO"),
        output_image_tokens=outputs.get("IMAGE"),
        output_video_tokens=outputs.get("VIDEO"),
    )
    return Extracted(
        provider="google",
        usage=counts,
        model=body.either("modelVersion", "model_version").name,
        response_id=body.either("responseId", "response_id").text,
        created=body.either("createTime", "create_time").instant,
    )


def _images(found: Mapping[str, Decimal]) -> Decimal | None:
    """Pages of documents are read as images."""
    return total(found.get("IMAGE"), found.get("DOCUMENT"))


def _either(usage: Part, name: str) -> Decimal | None:
    """A count in the spelling of the wire, or of the Python client."""
    return usage.either(name, _snake(name)).count


def _modalities(usage: Part, *names: str) -> Mapping[str, Decimal]:
    found: dict[str, Decimal] = {}
    for name in names:
        for item in usage.either(name, _snake(name)).items:
            count = item.either("tokenCount", "token_count").count
            modality = (item["modality"].text or "").upper()
            found[modality] = found.get(modality, Decimal(0)) + (count or Decimal(0))
    return found


def _snake(name: str) -> str:
    return "".join(f"_{one.lower()}" if one.isupper() else one for one in name)
