"""OpenAI's bodies, which many others answer as well. Pure."""

from collections.abc import Sequence
from decimal import Decimal

from meterline.pricing.bodies import Part
from meterline.pricing.extracted import Extracted, counted, first_known, terms
from meterline.pricing.usage import TokenUsage

_CHAT = ("chat.completion", "chat.completion.chunk", "text_completion")
_RESPONSE_EVENTS = ("response.completed", "response.incomplete", "response.failed")


def openai(events: Sequence[Part]) -> Extracted | None:
    """Chat and text completions, responses, embeddings, audio, images, realtime."""
    for event in reversed(events):
        found = _event(event)
        if found is not None:
            return found
    return None


def _event(body: Part) -> Extracted | None:
    kind, event = body["object"].text, body["type"].text
    if kind in _CHAT:
        return _chat(body) if body["usage"] else None
    if event in _RESPONSE_EVENTS:
        return _response(body["response"])
    if event == "response.done":
        return _realtime(body["response"])
    if kind == "response":
        return _response(body)
    usage = body["usage"]
    if not usage or event in ("message", "message_delta"):
        return None
    if kind == "list":
        return _embeddings(body)
    if usage["type"].text in ("tokens", "duration"):
        return _transcription(body)
    if usage["prompt_tokens"]:
        return _chat(body)
    if usage["input_tokens_details"] and (body["data"] or (event or "").startswith("image_")):
        return _images(body)
    return None


def _chat(body: Part) -> Extracted:
    usage = body["usage"]
    inputs, outputs = usage["prompt_tokens_details"], usage["completion_tokens_details"]
    reasoning = outputs["reasoning_tokens"].count
    output = usage["completion_tokens"].count
    prompt, whole = usage["prompt_tokens"].needed, usage["total_tokens"].count
    if whole is not None and whole > prompt + (output or 0):
        # Some count reasoning beside the completion, not in it, and not all say how much it is.
        output = whole - prompt
    counts = counted(
        input_tokens=prompt,
        # DeepSeek and Moonshot spell it in their own way.
        cached_tokens=first_known(
            inputs["cached_tokens"].count,
            usage["prompt_cache_hit_tokens"].count,
            usage["cached_tokens"].count,
        ),
        cache_write_tokens=inputs["cache_write_tokens"].count,
        input_audio_tokens=inputs["audio_tokens"].count,
        input_image_tokens=inputs["image_tokens"].count,
        output_tokens=output,
        reasoning_tokens=reasoning,
        output_audio_tokens=outputs["audio_tokens"].count,
    )
    return _told(body, counts, "embedding" if output is None else "text")


def _response(body: Part) -> Extracted | None:
    usage = body["usage"]
    if not usage:
        return None
    counts = counted(
        input_tokens=usage["input_tokens"].needed,
        cached_tokens=usage["input_tokens_details"]["cached_tokens"].count,
        cache_write_tokens=usage["input_tokens_details"]["cache_write_tokens"].count,
        output_tokens=usage["output_tokens"].needed,
        reasoning_tokens=usage["output_tokens_details"]["reasoning_tokens"].count,
        web_searches=_web_searches(body),
    )
    return _told(body, counts, "text")


def _web_searches(body: Part) -> Decimal | None:
    return body["tool_usage"]["web_search"]["num_requests"].count


def _realtime(body: Part) -> Extracted | None:
    usage = body["usage"]
    if not usage:
        return None
    inputs, outputs = usage["input_token_details"], usage["output_token_details"]
    cached = inputs["cached_tokens_details"]
    counts = counted(
        input_tokens=usage["input_tokens"].needed,
        cached_tokens=inputs["cached_tokens"].count,
        input_audio_tokens=inputs["audio_tokens"].count,
        cached_audio_tokens=cached["audio_tokens"].count,
        input_image_tokens=inputs["image_tokens"].count,
        cached_image_tokens=cached["image_tokens"].count,
        output_tokens=usage["output_tokens"].needed,
        output_audio_tokens=outputs["audio_tokens"].count,
    )
    return _told(body, counts, "text")


def _embeddings(body: Part) -> Extracted | None:
    prompt = body["usage"]["prompt_tokens"]
    if not prompt:
        return None
    return _told(body, counted(input_tokens=prompt.needed), "embedding")


def _transcription(body: Part) -> Extracted:
    usage = body["usage"]
    if usage["type"].text == "duration":
        return _told(body, counted(audio_seconds=usage["seconds"].needed), "audio_stt")
    counts = counted(
        input_tokens=usage["input_tokens"].needed,
        input_audio_tokens=usage["input_token_details"]["audio_tokens"].count,
        output_tokens=usage["output_tokens"].needed,
    )
    return _told(body, counts, "audio_stt")


def _images(body: Part) -> Extracted:
    usage = body["usage"]
    counts = counted(
        input_tokens=usage["input_tokens"].needed,
        input_image_tokens=usage["input_tokens_details"]["image_tokens"].count,
        cached_tokens=usage["input_tokens_details"]["cached_tokens"].count,
        output_tokens=usage["output_tokens"].needed,
        output_image_tokens=usage["output_tokens_details"]["image_tokens"].count,
    )
    return _told(body, counts, "image")


def _told(body: Part, counts: TokenUsage, usage_type: str) -> Extracted:
    return Extracted(
        provider="openai",
        usage=counts,
        model=body["model"].name,
        response_id=body["id"].text,
        usage_type=usage_type,
        context=terms(service_tier=body["service_tier"].name),
        created=body.either("created", "created_at").instant,
    )
