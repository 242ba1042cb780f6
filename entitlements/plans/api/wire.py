"""The bodies that callers send about plans, and what they mean."""

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any

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

from entitlements.api.exact import JsonText, read_amount
from entitlements.api.wire import Metadata, Text, check_config
from entitlements.balance.exact import ZERO
from entitlements.limits import EntitlementLimits
from entitlements.model import EntitlementType
from entitlements.plans.api.encode import WIRE_NAMES
from entitlements.plans.model import (
    CreditAllocation,
    Overrides,
    PlanFeature,
    PlanSpec,
)
from entitlements.plans.options import PlanOptions
from entitlements.plans.refills import MONTH
from entitlements.specs import check_interval, fault
from meterline.kernel.errors import ValidationError
from meterline.kernel.periods import Interval, parse_interval
from meterline.kernel.quantity import FRACTION_DIGITS, INTEGER_DIGITS, ValueFault, parse_value
from meterline.kernel.text import TEXT_PATTERN, is_text

PLAN_ADDRESS = "(?!.+/subjects$).+"
"""What a key in an address may be: what is below a plan is not another plan."""
KEY_PATTERN = TEXT_PATTERN.replace("^", "^(?!.+/subjects$)", 1)
_MAX_KEY = 128
_MAX_NAME = 256
_MAX_DESCRIPTION = 4_096


def _money(value: Any) -> Decimal:
    """An amount as a number, or as a text with one: not every client has decimals."""
    if isinstance(value, str) and type(value) is str:
        parsed = parse_value(value)
        if isinstance(parsed, ValueFault):
            raise PydanticCustomError("amount", "must be a number, or a text with one")
        value = parsed
    amount = read_amount(value)
    if amount < 0:
        raise PydanticCustomError("amount", "must not be negative")
    return amount


MONEY_SCHEMA = {
    "type": ["number", "string"],
    "minimum": 0,
    "exclusiveMaximum": 10**INTEGER_DIGITS,
    "pattern": f"^[0-9]{{1,{INTEGER_DIGITS}}}(\\.[0-9]{{1,{FRACTION_DIGITS}}})?$",
}
Money = Annotated[Decimal, BeforeValidator(_money), WithJsonSchema(MONEY_SCHEMA)]
Count = Annotated[StrictInt, Field(ge=0, le=10**15)]


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class LimitsBody(_Wire):
    """Limits; one that is absent or null does not limit."""

    monthly_token_limit: Count | None = Field(None, description="In a calendar month of UTC.")
    monthly_cost_limit_usd: Money | None = Field(None, description="In a calendar month of UTC.")
    requests_per_minute: Count | None = None
    requests_per_hour: Count | None = None
    requests_per_day: Count | None = None
    tokens_per_minute: Count | None = None

    def given(self, options: PlanOptions) -> Overrides:
        """The limits that the caller named, null ones included."""
        found: dict[str, Decimal | int | None] = {}
        for name, wire in WIRE_NAMES.items():
            attribute = _ATTRIBUTES[wire]
            if attribute not in self.model_fields_set:
                continue
            value = getattr(self, attribute)
            if name.startswith("requests") and value is not None and value > options.max_rate:
                raise fault(wire, f"must be at most {options.max_rate}")
            found[name] = (
                Decimal(value) if name == "monthly_tokens" and value is not None else value
            )
        return found


_ATTRIBUTES: Mapping[str, str] = {to_camel(name): name for name in LimitsBody.model_fields}


class AllocationBody(_Wire):
    """Credits that are refilled by themselves."""

    interval: Text = Field(
        description="DAY, WEEK, MONTH, YEAR or an ISO 8601 duration.", examples=["MONTH"]
    )
    amount: Money = Field(description="What there is at the start and after each interval.")
    max_rollover: Money | None = Field(
        None,
        description="How much of what is left is kept for one interval more; 0 if absent. For the"
        " interval MONTH only.",
    )
    priority: StrictInt = Field(1, ge=0, le=255, description="Lower numbers burn first.")

    def allocation(self, limits: EntitlementLimits) -> CreditAllocation:
        """The meaning."""
        interval = _interval("creditAllocation.interval", self.interval, limits)
        if not self.amount:
            raise fault("creditAllocation.amount", "must be positive")
        rollover = self.max_rollover or ZERO
        if rollover and interval != MONTH:
            raise fault("creditAllocation.maxRollover", "needs the interval MONTH")
        return CreditAllocation(interval, self.amount, rollover, self.priority)


class PlanFeatureBody(_Wire):
    """A feature that a plan entitles to."""

    feature_key: Text
    type: EntitlementType = EntitlementType.BOOLEAN
    config: Text | None = Field(None, description="static: a text with a JSON object.")
    interval: Text | None = Field(
        None, description="metered: its usage period, on the calendar of UTC; MONTH if absent."
    )
    amount: Money | None = Field(
        None, description="metered: what there is in each usage period; nothing if absent."
    )
    is_soft_limit: StrictBool = Field(
        False, description="metered: access stays when the amount is used up."
    )

    def feature(self, where: str, limits: EntitlementLimits) -> PlanFeature:
        """The meaning."""
        metered = self.type is EntitlementType.METERED
        if not metered and (self.interval or self.amount is not None or self.is_soft_limit):
            raise fault(where, f"interval, amount and isSoftLimit are not for {self.type} features")
        if self.type is EntitlementType.STATIC:
            check_config(self.config, limits)
        elif self.config is not None:
            raise fault(f"{where}.config", f"is for static features, not {self.type}")
        interval = None
        if metered:
            interval = _interval(f"{where}.interval", self.interval or "MONTH", limits)
        amount = self.amount or None
        return PlanFeature(
            self.feature_key, self.type, self.config, interval, amount, self.is_soft_limit
        )


PriceId = Annotated[Text, Field(min_length=1, max_length=255)]
Key = Annotated[
    JsonText,
    Field(min_length=1, max_length=_MAX_KEY, json_schema_extra={"pattern": KEY_PATTERN}),
]


class PlanBody(LimitsBody):
    """A plan. What is absent is not limited and not given."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"key": "pro", "monthlyTokenLimit": 1000000, "requestsPerMinute": 60}]
        }
    )

    key: Key | None = Field(None, description="Its name in URLs; `name` if absent.")
    name: Text | None = Field(
        None, min_length=1, max_length=_MAX_NAME, description="`key` if absent."
    )
    description: Text | None = Field(None, max_length=_MAX_DESCRIPTION)
    credit_allocation: AllocationBody | None = None
    features: list[PlanFeatureBody] | None = None
    stripe_price_ids: list[PriceId] | None = Field(
        None, description="Stripe prices whose payment gives this plan; each belongs to one plan."
    )
    credits_per_payment: Money | None = Field(
        None, description="Credits that each payment adds, which stay until they are used."
    )
    metadata: Metadata | None = None

    def spec(self, options: PlanOptions, limits: EntitlementLimits) -> PlanSpec:
        """A new plan, or all of an old one."""
        key = self.key or self.name
        if key is None:
            raise fault("key", "key or name is required")
        if len(key) > _MAX_KEY or not is_text(key):
            raise fault("key", f"has at most {_MAX_KEY} characters, and no control characters")
        if not re.fullmatch(PLAN_ADDRESS, key):
            raise fault("key", "must not end like an address below a plan: /subjects")
        return self.changed(PlanSpec(key=key, name=self.name or key), options, limits)

    def changed(
        self, before: PlanSpec, options: PlanOptions, limits: EntitlementLimits
    ) -> PlanSpec:
        """`before` with what the caller named."""
        if self.key is not None and self.key != before.key:
            raise fault("key", "cannot be changed: make another plan")
        given = self.model_fields_set
        values: dict[str, Any] = {"limits": before.limits.overridden(self.given(options))}
        if self.name is not None:
            values["name"] = self.name
        if "description" in given:
            values["description"] = self.description
        if "credit_allocation" in given:
            one = self.credit_allocation
            values["credits"] = None if one is None else one.allocation(limits)
        if "features" in given:
            values["features"] = self._features(options, limits)
        if "stripe_price_ids" in given:
            values["stripe_price_ids"] = self._prices(options)
        if "credits_per_payment" in given:
            values["credits_per_payment"] = self.credits_per_payment or None
        if "metadata" in given:
            values["metadata"] = self.metadata or {}
        return replace(before, **values)

    def _features(self, options: PlanOptions, limits: EntitlementLimits) -> tuple[PlanFeature, ...]:
        given = self.features or []
        if len(given) > options.max_features:
            raise fault("features", f"more than {options.max_features}")
        found = tuple(one.feature(f"features[{n}]", limits) for n, one in enumerate(given))
        reserved = {"credits", *_RESERVED}
        keys = [one.key for one in found]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise fault(f"features[{number}].featureKey", f"{key} is there twice")
            if key in reserved:
                raise fault(f"features[{number}].featureKey", f"{key} is given by the plan itself")
        return found

    def _prices(self, options: PlanOptions) -> tuple[str, ...]:
        given = tuple(dict.fromkeys(self.stripe_price_ids or ()))
        if len(given) > options.max_prices:
            raise fault("stripePriceIds", f"more than {options.max_prices}")
        return given


_RESERVED = ("meterline_tokens", "meterline_cost_usd")


def _plain(value: str) -> str:
    if not is_text(value):
        raise PydanticCustomError("text", "must not hold a control character")
    return value


Reason = Annotated[
    JsonText,
    AfterValidator(_plain),
    Field(max_length=1_024, json_schema_extra={"pattern": TEXT_PATTERN}),
]


class AssignmentBody(_Wire):
    """A subject's plan and overrides."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"plan": "pro", "overrides": {"requestsPerMinute": 100}}]}
    )

    plan: Text | None = Field(
        None, description="Key of the plan; the one that the subject has if absent."
    )
    overrides: LimitsBody | None = Field(
        None,
        description="Limits of this subject in place of the plan's; null takes one away. Replaces"
        " those that were there; absent keeps them.",
    )
    reset_balance: StrictBool = Field(
        False,
        description="Start credits afresh: a new period begins with all of the plan's credits."
        " Else what was used of this period's credits stays used.",
    )
    reason: Reason | None = None


class ReasonBody(_Wire):
    """Why."""

    reason: Reason = ""


def _interval(where: str, text: str, limits: EntitlementLimits) -> Interval:
    try:
        interval = parse_interval(text)
    except ValidationError as error:
        raise fault(where, error.detail) from None
    check_interval(where, interval, limits)
    return interval
