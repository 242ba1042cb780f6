"""The bodies that callers send, and what they mean."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool
from pydantic.alias_generators import to_camel

from entitlements.api.exact import Amount, JsonText
from entitlements.api.wire import Metadata, Text
from entitlements.notifications.model import EventType, RuleSpec, Threshold, ThresholdType
from entitlements.notifications.service import ChannelSpec
from entitlements.notifications.signing import SECRET_PATTERN
from meterline.kernel.errors import FieldError, ValidationError
from meterline.kernel.periods import Interval, parse_interval
from meterline.kernel.text import TEXT_PATTERN

Id = Annotated[
    JsonText, Field(pattern="^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$", description="A ULID.")
]
Name = Annotated[
    Text, Field(min_length=1, max_length=256, json_schema_extra={"pattern": TEXT_PATTERN})
]


class _Wire(BaseModel):
    # A misspelt `disabled` or `features` must not send more than was meant.
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class ChannelBody(_Wire):
    """A webhook."""

    type: Literal["WEBHOOK"]
    name: Name
    url: Text = Field(
        min_length=1, description="Where to POST to: http or https, on the public internet."
    )
    disabled: StrictBool = False
    custom_headers: dict[JsonText, JsonText] | None = Field(
        None, description="Headers to send besides; ours cannot be replaced."
    )
    signing_secret: Text | None = Field(
        None,
        description="base64, perhaps after `whsec_`. Made when absent; another one takes over"
        " within a day, during which messages are signed with both.",
        json_schema_extra={"pattern": SECRET_PATTERN},
    )
    metadata: Metadata | None = None

    def spec(self) -> ChannelSpec:
        """The meaning."""
        return ChannelSpec(
            name=self.name,
            url=self.url,
            disabled=self.disabled,
            headers=self.custom_headers or {},
            secret=self.signing_secret,
            metadata=self.metadata or {},
        )


class ThresholdBody(_Wire):
    """A value to reach: usage rises to it, a balance falls to it."""

    type: ThresholdType
    value: Amount


class _RuleBody(_Wire):
    name: Name
    disabled: StrictBool = False
    channels: list[Id] = Field(min_length=1, max_length=5, description="Ids of channels.")
    metadata: Metadata | None = None

    def _spec(
        self, kind: EventType, thresholds: tuple[Threshold, ...] = (), lead: Interval | None = None
    ) -> RuleSpec:
        return RuleSpec(
            type=kind,
            name=self.name,
            channels=tuple(self.channels),
            disabled=self.disabled,
            thresholds=thresholds,
            lead_time=lead,
            metadata=self.metadata or {},
        )


class _FeaturesBody(_RuleBody):
    features: list[Name] | None = Field(
        None, max_length=100, description="Ids or keys of features; without any, every feature."
    )


class ThresholdRuleBody(_FeaturesBody):
    """Tells, once per usage period, that a balance or usage reached a threshold."""

    type: Literal["entitlements.balance.threshold"]
    thresholds: list[ThresholdBody] = Field(min_length=1, max_length=10)

    def spec(self) -> RuleSpec:
        """The meaning."""
        thresholds = tuple(Threshold(one.type, one.value) for one in self.thresholds)
        return self._spec(EventType.BALANCE_THRESHOLD, thresholds)


class PeriodRuleBody(_FeaturesBody):
    """Tells of each usage period that starts, or that nothing is left in one."""

    type: Literal["entitlements.reset", "entitlements.exhausted"]

    def spec(self) -> RuleSpec:
        """The meaning."""
        return self._spec(EventType(self.type))


class ExpiringRuleBody(_FeaturesBody):
    """Tells of a grant that will expire while something is left of it."""

    type: Literal["grants.expiring"]
    lead_time: Text = Field(
        "P7D", description="How long before: DAY, WEEK, MONTH or an ISO 8601 duration."
    )

    def spec(self) -> RuleSpec:
        """The meaning."""
        try:
            lead = parse_interval(self.lead_time)
        except ValidationError as error:
            fault = FieldError("leadTime", error.detail)
            raise ValidationError(f"leadTime: {error.detail}", errors=[fault]) from None
        return self._spec(EventType.GRANTS_EXPIRING, lead=lead)


class RejectedRuleBody(_RuleBody):
    """Tells of events that were accepted and that a meter cannot use."""

    type: Literal["events.rejected"]

    features: list[Name] | None = Field(None, max_length=0, description="None: it has none.")

    def spec(self) -> RuleSpec:
        """The meaning."""
        return self._spec(EventType.EVENTS_REJECTED)


RuleBody = Annotated[
    ThresholdRuleBody | PeriodRuleBody | ExpiringRuleBody | RejectedRuleBody,
    Field(discriminator="type"),
]


class ResendBody(_Wire):
    """Where to send an event again."""

    channels: list[Id] | None = Field(
        None, max_length=100, description="Ids of channels; without any, all of its rule."
    )
