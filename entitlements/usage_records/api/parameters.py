"""The parameters of listings and summaries."""

from typing import Literal, cast

from pydantic import BaseModel, Field

from entitlements.api.wire import Instant, Text
from entitlements.specs import fault
from entitlements.usage_records.model import Position, RecordFilter, UsageContext
from entitlements.usage_records.options import UsageLimits
from entitlements.usage_records.summary import SummaryQuery, TrackedBy
from meterline.web.paging import decode_cursor


class SpanParameters(BaseModel):
    """A range of time, and whether to wait."""

    begin: Instant | None = Field(None, alias="from", description="Included.")
    end: Instant | None = Field(None, alias="to", description="Not included.")
    wait: bool = Field(False, description="Wait until records acknowledged before are counted.")

    def check_span(self) -> None:
        """Refuse an empty range."""
        if self.begin is not None and self.end is not None and self.begin >= self.end:
            raise fault("from", "must be before to")


class RecordParameters(SpanParameters):
    """Which records."""

    account_id: Text | None = Field(None, alias="accountId")
    external_id: Text | None = Field(None, alias="externalId", description="As accountId.")
    subject: Text | None = Field(None, description="As accountId.")
    model_id: Text | None = Field(None, alias="modelId")
    provider: Text | None = None
    context: UsageContext | None = None
    key: Text | None = None
    conversation_id: Text | None = Field(None, alias="conversationId")

    @property
    def whose(self) -> str | None:
        return self.account_id or self.external_id or self.subject

    def members(self) -> dict[str, str]:
        """Texts that the data of a record must have."""
        given = {
            "model": self.model_id,
            "provider": self.provider,
            "context": self.context,
            "key": self.key,
            "conversationId": self.conversation_id,
        }
        return {name: str(text) for name, text in given.items() if text is not None}


class ListingParameters(RecordParameters):
    """Which records, and how many."""

    limit: int | None = Field(None, ge=1, le=2**31)
    cursor: str | None = Field(None, description="`nextCursor` of the page before.")

    def filter(self) -> RecordFilter:
        """The meaning."""
        self.check_span()
        before = None
        if self.cursor is not None:
            micros, part, offset, index = decode_cursor(self.cursor, [int, int, int, int])
            before = Position(*(cast(int, one) for one in (micros, part, offset, index)))
            if not _is_place(before):
                raise fault("cursor", "is not one that this server gave")
        return RecordFilter(self.begin, self.end, self.whose, self.members(), before)

    def size(self, limits: UsageLimits) -> int:
        """How many at most."""
        if self.limit is not None and self.limit > limits.max_page:
            raise fault("limit", f"must be at most {limits.max_page}")
        return self.limit or limits.default_page


class SummaryParameters(RecordParameters):
    """Which records a summary is about."""

    tag: Text | None = None

    def query(self) -> SummaryQuery:
        """The meaning."""
        self.check_span()
        return SummaryQuery(
            begin=self.begin,
            end=self.end,
            subject=self.whose,
            model=self.model_id,
            provider=self.provider,
            context=self.context,
            key=self.key,
            tag=self.tag,
            conversation=self.conversation_id,
        )


class TrackSummaryParameters(SummaryParameters):
    """Which tracked calls, and what tells them apart."""

    by: TrackedBy = TrackedBy.KEY


class ModelParameters(BaseModel):
    """Which models."""

    provider: Text | None = None
    model_id: Text | None = Field(None, alias="modelId", description="Part of a model's id.")
    limit: int = Field(500, ge=1, le=5_000)
    cursor: str | None = None
    own: Literal["true", "false"] = Field("true", description="Own prices in place of others'.")

    def start(self) -> int:
        """How many to pass over."""
        return 0 if self.cursor is None else max(int(decode_cursor(self.cursor, [int])[0]), 0)


def _is_place(one: Position) -> bool:
    return (
        abs(one.micros) < 2**62
        and 0 <= one.part < 2**16
        and 0 <= one.offset < 2**63
        and 0 <= one.index < 2**32
    )
