"""The bodies and parameters that callers send, and what they mean."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from entitlements.api.exact import Amount, with_decimals
from entitlements.api.wire import Instant, Metadata, Text
from entitlements.specs import fault
from entitlements.usage_records.model import (
    SYSTEM_SUBJECT,
    RecordSpec,
    UsageContext,
    UsageType,
)
from entitlements.usage_records.options import UsageLimits
from entitlements.usage_records.shape import camel, with_json_names
from meterline.kernel.errors import ValidationError
from meterline.kernel.text import is_text
from meterline.pricing.bodies import BodyError
from meterline.pricing.book import Asked
from meterline.pricing.extract import extract
from meterline.pricing.extracted import Extracted
from meterline.pricing.usage import COUNTS, InvalidUsageError, TokenUsage, usage_of


class Wire(BaseModel):
    """A misspelt member must not be silently without effect."""

    model_config = ConfigDict(alias_generator=camel, populate_by_name=True, extra="forbid")


def _body(value: Any) -> Any:
    if not isinstance(value, dict | list):
        raise PydanticCustomError("body", "must be an object or an array of objects")
    return value


Body = Annotated[
    Any,
    BeforeValidator(_body),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]}),
]
"""What a provider answered."""


def _stripped(value: Any) -> Any:
    # Only what was a text in the body: a number must stay one, and be refused.
    return value.strip() if type(value) is str else value


Model = Annotated[
    Text,
    BeforeValidator(_stripped),
    Field(json_schema_extra={"pattern": r"^[^\u0000]*[^\u0000\s][^\u0000]*$"}),
]
"""The name of a model, or a pattern of names: not blank, without blanks around it."""

_SHOWN_ID = 128
_DIGITS = 32
"""Of the digest in the name of an answer: 128 bits."""

_CHECK_ID = (
    "The `checkId` of the check that allowed the call: what it set aside goes back when this usage"
    " is counted."
)


class TermsBody(Wire):
    """Terms of a price beside the standard ones."""

    service_tier: Text | None = Field(None, max_length=64, description="As `flex`, `priority`.")
    processing: Text | None = Field(None, max_length=64, description="`batch`.")
    speed: Text | None = Field(None, max_length=64, description="`fast`.")

    def terms(self) -> dict[str, str]:
        """Those that are given."""
        given = {
            "service_tier": self.service_tier,
            "processing": self.processing,
            "speed": self.speed,
        }
        return {name: text for name, text in given.items() if text}


class CountsBody(TermsBody):
    """What a call used. Parts are in their whole: cached tokens are input tokens, too."""

    input_tokens: Amount | None = Field(None, description="All of them, cached ones included.")
    output_tokens: Amount | None = Field(None, description="All of them, reasoning included.")
    cached_tokens: Amount | None = Field(None, description="Input tokens read from a cache.")
    cache_write_tokens: Amount | None = None
    cache_write_5m_tokens: Amount | None = None
    cache_write_1h_tokens: Amount | None = None
    reasoning_tokens: Amount | None = None
    input_audio_tokens: Amount | None = None
    output_audio_tokens: Amount | None = None
    cached_audio_tokens: Amount | None = None
    input_image_tokens: Amount | None = None
    output_image_tokens: Amount | None = None
    cached_image_tokens: Amount | None = None
    input_video_tokens: Amount | None = None
    output_video_tokens: Amount | None = None
    characters: Amount | None = None
    audio_duration_seconds: Amount | None = None
    images: Amount | None = None
    web_searches: Amount | None = None
    rerank_searches: Amount | None = None

    def usage(self) -> TokenUsage:
        """The counts; at least one is needed."""
        given = {key: getattr(self, key, None) for key in COUNTS}
        given["audio_seconds"] = self.audio_duration_seconds
        if not any(count is not None for count in given.values()):
            raise fault("inputTokens", "at least one count is needed")
        return checked_usage({**given, "requests": Decimal(1)})


class UsageBody(CountsBody):
    """A call to record."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "context": "customer",
                    "modelId": "gpt-4o",
                    "transactionId": "transaction-1",
                    "accountId": "customer-1",
                    "inputTokens": 10,
                    "outputTokens": 5,
                }
            ]
        }
    )

    context: UsageContext
    model_id: Model = Field(min_length=1)
    transaction_id: Text | None = Field(None, description="Needed when the context is customer.")
    account_id: Text | None = Field(None, description="Whose usage it is: a subject.")
    external_id: Text | None = Field(None, description="The same, by another name.")
    provider: Text | None = None
    usage_type: UsageType = UsageType.TEXT
    id: Text | None = Field(None, min_length=1, description="Sent again, it counts once.")
    time: Instant | None = Field(None, description="When the call was; now if absent.")
    estimated: StrictBool = Field(False, description="The counts are not exact.")
    description: Text | None = None
    metadata: Metadata | None = None
    check_id: Text | None = Field(None, description=_CHECK_ID)

    def spec(self, limits: UsageLimits, effect_id: str | None) -> RecordSpec:
        """The meaning. `effect_id` is the id when the body has none."""
        check_texts(self, limits, ("model_id", "transaction_id", "account_id", "external_id",
                                    "provider", "id", "check_id"))  # fmt: skip
        check_length("description", self.description, limits.max_description_length)
        return RecordSpec(
            model=self.model_id,
            usage=self.usage(),
            context=self.context,
            subject=self._subject(),
            usage_type=self.usage_type,
            id=self.id or effect_id,
            time=self.time,
            provider=self.provider,
            terms=self.terms(),
            transaction_id=self.transaction_id,
            estimated=self.estimated,
            description=self.description,
            metadata=self.metadata or {},
            check_id=self.check_id,
        )

    def _subject(self) -> str:
        if self.account_id and self.external_id and self.account_id != self.external_id:
            raise fault("externalId", "must be absent, or the same as accountId")
        subject = self.account_id or self.external_id
        if subject:
            return subject
        if self.context is UsageContext.CUSTOMER:
            raise fault("accountId", "accountId or externalId is needed for a customer's usage")
        return SYSTEM_SUBJECT


class UsageBatchBody(Wire):
    """Calls to record."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"items": [{"context": "system", "modelId": "gpt-4o", "inputTokens": 10}]}]
        }
    )

    items: list[UsageBody] = Field(min_length=1)

    def specs(self, limits: UsageLimits, effect_id: str | None) -> list[RecordSpec]:
        """The meanings."""
        if len(self.items) > limits.max_batch:
            raise fault("items", f"more than {limits.max_batch} records")
        specs = []
        for index, item in enumerate(self.items):
            effect = None if effect_id is None else f"{effect_id}:{index}"
            try:
                specs.append(item.spec(limits, effect))
            except ValidationError as error:
                one = error.errors[0]
                raise fault(f"items[{index}].{one.where}", one.reason) from None
        return specs


class TrackBody(TermsBody):
    """A call to track: what its provider answered, or its counts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "key": "customer-1",
                    "modelId": "gpt-4o",
                    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
                }
            ]
        }
    )

    key: Text = Field(min_length=1, description="What the call belongs to.")
    query: Text | None = Field(None, description="What was asked.")
    tags: list[Text] = Field([], description="A call with several counts for each of them.")
    conversation_id: Text | None = None
    open_ai_response: Body | None = Field(
        None, description="Any body of OpenAI that has usage, or the array of its events."
    )
    response: Body | None = Field(
        None, description="A body of any provider, or the array of its events."
    )
    usage: dict[str, Any] | None = Field(
        None, description="`prompt_tokens, completion_tokens, total_tokens`, as OpenAI has it."
    )
    provider: Text | None = Field(None, description="Whose format `response` has.")
    model_id: Text | None = Field(None, description="When the body does not say it.")
    subject: Text | None = Field(None, min_length=1, description="Whose usage; the key if absent.")
    id: Text | None = Field(None, min_length=1, description="Sent again, it counts once.")
    time: Instant | None = None
    estimated: StrictBool = False
    transaction_id: Text | None = None
    metadata: Metadata | None = None
    check_id: Text | None = Field(None, description=_CHECK_ID)

    def spec(self, limits: UsageLimits, effect_id: str | None) -> RecordSpec:
        """The meaning."""
        check_texts(self, limits, ("key", "conversation_id", "provider", "model_id", "subject",
                                    "id", "transaction_id", "check_id"))  # fmt: skip
        check_length("query", self.query, limits.max_query_length)
        self._check_tags(limits)
        found = self._extracted()
        subject = self.subject or self.key
        return RecordSpec(
            model=(self.model_id or found.model or "").strip(),
            usage=found.usage,
            context=UsageContext.CUSTOMER,
            subject=subject,
            usage_type=UsageType(found.usage_type),
            # The answer's own name comes first: a request of its own does not make it another call.
            id=self.id or _response_name(found, subject) or effect_id,
            time=self.time,
            provider=self.provider or self._maker(found),
            terms={**found.context, **self.terms()},
            key=self.key,
            tags=tuple(sorted(set(self.tags))),
            conversation=self.conversation_id,
            transaction_id=self.transaction_id,
            estimated=self.estimated,
            query=self.query,
            metadata=self.metadata or {},
            check_id=self.check_id,
        )

    def _check_tags(self, limits: UsageLimits) -> None:
        if len(self.tags) > limits.max_tags:
            raise fault("tags", f"more than {limits.max_tags} tags")
        for index, tag in enumerate(self.tags):
            if not tag or not is_text(tag):
                raise fault(f"tags[{index}]", "must not be empty, or hold a control character")
            check_length(f"tags[{index}]", tag, limits.max_tag_length)

    def _extracted(self) -> Extracted:
        given = {
            "openAiResponse": self.open_ai_response,
            "response": self.response,
            "usage": self.usage,
        }
        names = [name for name, body in given.items() if body is not None]
        if len(names) != 1:
            raise fault("response", "give one of openAiResponse, response and usage")
        name = names[0]
        body = with_decimals(given[name])
        provider = self.provider if name == "response" else "openai"
        try:
            return extract({"usage": body} if name == "usage" else body, provider)
        except BodyError as error:
            where = error.where.removeprefix("usage.") if name == "usage" else error.where
            path = name if where in ("body", "") else f"{name}.{where}"
            raise fault(path.replace(".[", "["), with_json_names(error.reason)) from None

    def _maker(self, found: Extracted) -> str | None:
        """Many answer in OpenAI's format: then the model says whose it is."""
        return None if found.provider == "openai" else found.provider


class CostBody(CountsBody):
    """A call to estimate."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"modelId": "gpt-4o", "inputTokens": 1000, "outputTokens": 100}]
        }
    )

    model_id: Model = Field(min_length=1)
    provider: Text | None = None
    time: Instant | None = Field(None, description="When the call is; now if absent.")

    def asked(self, limits: UsageLimits, now: datetime) -> Asked:
        """Which price is wanted."""
        check_texts(self, limits, ("model_id", "provider"))
        return Asked(self.model_id, self.time or now, self.provider, self.terms())


def checked_usage(counts: Mapping[str, Decimal | None]) -> TokenUsage:
    """Usage of these counts, by the keys of units."""
    try:
        return usage_of(counts)
    except InvalidUsageError as error:
        name = "audioDurationSeconds" if error.field == "audio_seconds" else camel(error.field)
        raise fault(name, with_json_names(error.reason)) from None


def _response_name(found: Extracted, subject: str) -> str | None:
    """Every provider names its answers: one that is tracked twice for a subject counts once.

    Some number them by chance, from 0 to 998 even, so the id alone does not name an answer.
    """
    if found.response_id is None:
        return None
    told = [subject, found.response_id, found.model, found.created]
    digest = hashlib.sha256(msgspec.json.encode(told)).hexdigest()
    return f"{found.provider}:{found.response_id[:_SHOWN_ID]}:{digest[:_DIGITS]}"


def check_texts(body: BaseModel, limits: UsageLimits, names: tuple[str, ...]) -> None:
    """Refuse members that are too long or hold controls."""
    for name in names:
        text = getattr(body, name)
        if text is not None and not is_text(text):
            raise fault(camel(name), "must not hold a control character")
        check_length(camel(name), text, limits.max_text_length)


def check_length(where: str, text: str | None, most: int) -> None:
    """Refuse a text that is too long."""
    if text is not None and len(text) > most:
        raise fault(where, f"must have at most {most} characters")
