"""The bodies that callers send, and what they mean."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from entitlements.api.exact import Amount, JsonText, PositiveAmount
from entitlements.balance.exact import ZERO
from entitlements.limits import EntitlementLimits
from entitlements.model import EntitlementType, Expiration
from entitlements.services.means import to_millisecond
from entitlements.specs import (
    EntitlementSpec,
    FeatureSpec,
    GrantSpec,
    MeasureFrom,
    RecurrenceSpec,
    ResetSpec,
    fault,
    parse_duration,
)
from meterline.kernel.errors import ValidationError
from meterline.kernel.ids import is_ulid
from meterline.kernel.instants import parse_instant
from meterline.kernel.meters import (
    MAX_METADATA,
    MAX_METADATA_KEY_LENGTH,
    MAX_METADATA_VALUE_LENGTH,
    MAX_NAME_LENGTH,
    is_storable,
)
from meterline.kernel.periods import parse_interval
from meterline.kernel.text import TEXT_PATTERN
from meterline.kernel.windows import load_zone

_KEY = "^[a-z0-9]+(?:_[a-z0-9]+)*$"


def _instant(value: Any) -> datetime:
    if not isinstance(value, str):
        raise PydanticCustomError("instant", "must be a text with an RFC 3339 time")
    try:
        return to_millisecond(parse_instant(value))
    except ValidationError as error:
        raise PydanticCustomError("instant", "{why}", {"why": error.detail}) from None


def _storable(value: str) -> str:
    if not is_storable(value):
        raise PydanticCustomError("text", "must not hold NUL or half a surrogate pair")
    return value


def _metadata(value: Mapping[str, str]) -> Mapping[str, str]:
    if len(value) > MAX_METADATA:
        reason = f"must have at most {MAX_METADATA} keys"
        raise PydanticCustomError("metadata", "{why}", {"why": reason})
    for key, text in value.items():
        if not 1 <= len(key) <= MAX_METADATA_KEY_LENGTH or len(text) > MAX_METADATA_VALUE_LENGTH:
            reason = (
                f"keys have 1 to {MAX_METADATA_KEY_LENGTH} characters, "
                f"values at most {MAX_METADATA_VALUE_LENGTH}"
            )
            raise PydanticCustomError("metadata", "{why}", {"why": reason})
        _storable(key + text)
    return value


Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
_NO_NUL = r"^[^\u0000]*$"
_STORABLE = Field(json_schema_extra={"pattern": _NO_NUL})
Text = Annotated[JsonText, AfterValidator(_storable), _STORABLE]
Name = Annotated[str, AfterValidator(_storable), _STORABLE]
"""Part of an address."""
Metadata = Annotated[
    dict[JsonText, JsonText],
    AfterValidator(_metadata),
    Field(
        json_schema_extra={
            "maxProperties": MAX_METADATA,
            "propertyNames": {
                "minLength": 1,
                "maxLength": MAX_METADATA_KEY_LENGTH,
                "pattern": _NO_NUL,
            },
            "additionalProperties": {
                "type": "string",
                "maxLength": MAX_METADATA_VALUE_LENGTH,
                "pattern": _NO_NUL,
            },
        }
    ),
]


class _Wire(BaseModel):
    # A misspelt `isSoftLimit` must not make a hard limit.
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class RecurrenceBody(_Wire):
    """How often something recurs."""

    interval: Text = Field(
        description="DAY, WEEK, MONTH, YEAR or an ISO 8601 duration.", examples=["MONTH", "P2W"]
    )
    anchor: Instant | None = Field(None, description="An instant at which it recurs.")
    time_zone: Text | None = Field(
        None, description="IANA zone of the calendar that days, months and years are counted on."
    )
    interval_iso: Text | None = Field(
        None, alias="intervalISO", description="Ignored: as answers have it."
    )

    def spec(self, where: str) -> RecurrenceSpec:
        """The meaning."""
        try:
            interval = parse_interval(self.interval)
        except ValidationError as error:
            raise fault(f"{where}.interval", error.detail) from None
        try:
            zone = None if self.time_zone is None else load_zone(self.time_zone)
        except ValidationError as error:
            raise fault(f"{where}.timeZone", error.detail) from None
        return RecurrenceSpec(interval, self.anchor, zone)


class FilterBody(_Wire):
    """Which values of a groupBy key count: one, or one of a list."""

    eq: Text | None = Field(None, alias="$eq")
    among: list[Text] | None = Field(None, alias="$in", min_length=1)


class FeatureBody(_Wire):
    """A feature to make."""

    key: Text = Field(min_length=1, max_length=64, pattern=_KEY, description="Its name in URLs.")
    name: Text | None = Field(
        None, min_length=1, max_length=MAX_NAME_LENGTH, description="The key if absent."
    )
    meter_slug: Text | None = Field(
        None, description="The meter of its usage: SUM, COUNT, UNIQUE_COUNT, LATEST or MAX."
    )
    meter_group_by_filters: dict[JsonText, Text] | None = Field(
        None, description="Only events with these groupBy values count, as `model: gpt-4`."
    )
    advanced_meter_group_by_filters: dict[JsonText, FilterBody] | None = Field(
        None, description="The same with `$eq` or `$in`."
    )
    metadata: Metadata | None = None

    def spec(self, limits: EntitlementLimits) -> FeatureSpec:
        """The meaning."""
        if is_ulid(self.key):
            raise fault("key", "must not look like an id")
        return FeatureSpec(
            key=self.key,
            name=self.name or self.key,
            meter_slug=self.meter_slug,
            filters=self._filters(limits),
            metadata=self.metadata or {},
        )

    def _filters(self, limits: EntitlementLimits) -> Mapping[str, tuple[str, ...]]:
        where = "advancedMeterGroupByFilters"
        if self.meter_group_by_filters and self.advanced_meter_group_by_filters:
            raise fault(where, "give filters here or in meterGroupByFilters, not in both")
        simple = self.meter_group_by_filters or {}
        filters: dict[str, tuple[str, ...]] = {key: (text,) for key, text in simple.items()}
        for key, given in (self.advanced_meter_group_by_filters or {}).items():
            if (given.eq is None) == (given.among is None):
                raise fault(f"{where}.{key}", "must have $eq or $in")
            texts = (given.eq,) if given.eq is not None else tuple(given.among or ())
            if len(texts) > limits.max_filter_values:
                raise fault(f"{where}.{key}", f"more than {limits.max_filter_values} values")
            filters[key] = tuple(dict.fromkeys(texts))
        return filters


class EntitlementBody(_Wire):
    """An entitlement to make. Which fields it may have depends on its type."""

    type: EntitlementType
    feature_key: Text | None = Field(None, description="This or `featureId`.")
    feature_id: Text | None = None
    metadata: Metadata | None = None
    usage_period: RecurrenceBody | None = Field(None, description="Required when metered.")
    measure_usage_from: Text | None = Field(
        None,
        description="metered: a time, CURRENT_PERIOD_START or NOW (default).",
        examples=["NOW", "2026-01-01T00:00:00Z"],
    )
    is_soft_limit: StrictBool | None = Field(
        None, description="metered: access stays when the balance is used up."
    )
    is_unlimited: StrictBool | None = Field(None, description="Ignored, as in OpenMeter.")
    issue_after_reset: PositiveAmount | None = Field(
        None, description="metered: the amount that is there at the start and after each reset."
    )
    issue_after_reset_priority: StrictInt | None = Field(None, ge=0, le=255)
    preserve_overage_at_reset: StrictBool | None = Field(
        None, description="metered: overage is not forgiven at a reset."
    )
    config: Text | None = Field(
        None, description="static: a text with a JSON object, answered as it is."
    )

    def spec(self, limits: EntitlementLimits) -> EntitlementSpec:
        """The meaning; fields that contradict each other are refused."""
        self._check_fields(limits)
        period = self.usage_period.spec("usagePeriod") if self.usage_period else None
        return EntitlementSpec(
            type=self.type,
            feature=self.feature_id or self.feature_key or "",
            feature_key=self.feature_key,
            usage_period=period,
            measure_from=self._measure_from(),
            is_soft_limit=self.is_soft_limit or False,
            preserve_overage_at_reset=self.preserve_overage_at_reset or False,
            issue_after_reset=self.issue_after_reset,
            issue_after_reset_priority=_or_one(self.issue_after_reset_priority),
            config=self.config,
            metadata=self.metadata or {},
        )

    def _check_fields(self, limits: EntitlementLimits) -> None:
        if not self.feature_id and not self.feature_key:
            raise fault("featureKey", "featureKey or featureId is required")
        if self.feature_id and not is_ulid(self.feature_id):
            raise fault("featureId", "is not an id")
        if self.type is not EntitlementType.METERED:
            for name in _ONLY_METERED:
                if getattr(self, name) not in (None, False):
                    raise fault(to_camel(name), f"is for metered entitlements, not {self.type}")
        if self.type is not EntitlementType.STATIC:
            if self.config is not None:
                raise fault("config", f"is for static entitlements, not {self.type}")
        else:
            check_config(self.config, limits)
        if self.issue_after_reset is None and self.issue_after_reset_priority is not None:
            raise fault("issueAfterResetPriority", "needs issueAfterReset")

    def _measure_from(self) -> datetime | MeasureFrom:
        text = self.measure_usage_from
        if text is None or text in MeasureFrom.__members__:
            return MeasureFrom(text or "NOW")
        try:
            return to_millisecond(parse_instant(text))
        except ValidationError as error:
            reason = f"must be CURRENT_PERIOD_START, NOW or a time: {error.detail}"
            raise fault("measureUsageFrom", reason) from None


_ONLY_METERED = (
    "measure_usage_from", "is_soft_limit", "issue_after_reset", "issue_after_reset_priority",
    "preserve_overage_at_reset",
)  # fmt: skip


class ExpirationBody(_Wire):
    """How long after its start a grant ends."""

    duration: Text = Field(
        description="HOUR, DAY, WEEK, MONTH, YEAR or an ISO 8601 duration.", examples=["MONTH"]
    )
    count: StrictInt = Field(1, ge=1, le=1000)


class GrantBody(_Wire):
    """A grant to make."""

    amount: PositiveAmount
    priority: StrictInt | None = Field(
        None, ge=0, le=255, description="Lower numbers burn first; 1 if absent."
    )
    effective_at: Instant | None = Field(
        None, description="When it starts, which may be in the past; now if absent."
    )
    expiration: ExpirationBody | None = Field(None, description="Without, it never ends.")
    expires_at: Instant | None = Field(None, description="Its end as an instant, instead.")
    min_rollover_amount: Amount | None = Field(None, description="0 if absent.")
    max_rollover_amount: Amount | None = Field(None, description="0 if absent.")
    recurrence: RecurrenceBody | None = Field(
        None, description="When it is set to its amount again; anchored at its start if not said."
    )
    metadata: Metadata | None = None

    def spec(self) -> GrantSpec:
        """The meaning."""
        if self.expiration is not None and self.expires_at is not None:
            raise fault("expiresAt", "give expiration or expiresAt, not both")
        expiration = None
        if self.expiration is not None:
            expiration = Expiration(self.expiration.duration, self.expiration.count)
            try:
                parse_duration(expiration.duration)
            except ValidationError as error:
                raise fault("expiration.duration", f"{error.detail}, or HOUR") from None
        return GrantSpec(
            amount=self.amount,
            effective_at=self.effective_at,
            priority=_or_one(self.priority),
            expiration=expiration,
            expires_at=self.expires_at,
            min_rollover=self.min_rollover_amount or ZERO,
            max_rollover=self.max_rollover_amount or ZERO,
            recurrence=self.recurrence.spec("recurrence") if self.recurrence else None,
            metadata=self.metadata or {},
        )


class ResetBody(_Wire):
    """A reset to do."""

    effective_at: Instant | None = Field(
        None, description="In the current usage period, not in the future; now if absent."
    )
    retain_anchor: StrictBool = Field(
        False, description="Keep the anchor of the usage period; else it moves to the reset."
    )
    preserve_overage: StrictBool | None = Field(
        None, description="As the entitlement says if absent."
    )

    def spec(self) -> ResetSpec:
        """The meaning."""
        return ResetSpec(self.effective_at, self.retain_anchor, self.preserve_overage)


def subject_path(most: int) -> Any:
    """What a subject in an address may be, when it has at most so many characters."""
    said = {"minLength": 1, "maxLength": most, "pattern": TEXT_PATTERN}
    return Path(json_schema_extra=said, examples=["customer-1"])


def example_path(example: str) -> Any:
    """An example of what stands in an address."""
    return Path(examples=[example])


def _or_one(priority: int | None) -> int:
    return 1 if priority is None else priority


def check_config(config: str | None, limits: EntitlementLimits) -> None:
    """Refuse what cannot be the configuration of a static entitlement."""
    if config is None:
        raise fault("config", "is required of a static entitlement")
    if len(config.encode()) > limits.max_config_bytes:
        raise fault("config", f"has more than {limits.max_config_bytes} bytes")
    try:
        value = json.loads(config, parse_float=str, parse_int=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise fault("config", "must be a text with a JSON object") from None
    if not isinstance(value, dict):
        raise fault("config", "must be a text with a JSON object")


def _refuse(text: str) -> None:
    raise ValueError(text)
