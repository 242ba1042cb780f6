"""The prices that callers send, and what they mean."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from entitlements.api.wire import Instant, Text
from entitlements.specs import fault
from entitlements.usage_records.api.wire import Model, Wire, check_texts
from entitlements.usage_records.options import UsageLimits
from entitlements.usage_records.prices import PriceSpec
from entitlements.usage_records.shape import UNIT_OF
from meterline.kernel.quantity import FRACTION_DIGITS, ValueFault, parse_value
from meterline.pricing.rates import Rate, Tier
from meterline.pricing.units import UNITS

_MAX_PRICE = Decimal(10) ** 6
_MAX_PER = 10**9
_MAX_TIERS = 16


def _price(value: Any) -> Decimal:
    # A number with a fraction arrives as a text, too.
    known = isinstance(value, str | int) and not isinstance(value, bool)
    parsed = parse_value(str(value)) if known else None
    if not isinstance(parsed, Decimal) or not 0 <= parsed < _MAX_PRICE:
        reason = parsed.reason if isinstance(parsed, ValueFault) else "must be a number"
        if isinstance(parsed, Decimal):
            reason = f"must be at least 0 and less than {_MAX_PRICE:f}"
        raise PydanticCustomError("price", "{why}", {"why": reason})
    return parsed


UsDollars = Annotated[
    Decimal,
    BeforeValidator(_price),
    WithJsonSchema(
        {
            "type": ["number", "string"],
            "minimum": 0,
            "exclusiveMaximum": int(_MAX_PRICE),
            "pattern": f"^[0-9]{{1,6}}(\\.[0-9]{{1,{FRACTION_DIGITS}}})?$",
            "description": "US dollars.",
        }
    ),
]


class TierBody(Wire):
    """A price for all of a call with many input tokens."""

    above: Annotated[int, Field(strict=True, ge=0, lt=10**12)]
    price: UsDollars


class UnitRateBody(Wire):
    """A price for so many units."""

    price: UsDollars
    per: Annotated[int, Field(strict=True, ge=1, le=_MAX_PER)] | None = None
    tiers: list[TierBody] = Field([], max_length=_MAX_TIERS)


class PriceBody(Wire):
    """A price of one's own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "my-model",
                    "rates": {"inputTokens": 2.5, "outputTokens": {"price": "10"}},
                }
            ]
        }
    )

    model: Model = Field(min_length=1, description="Exact, or with `*` for any characters.")
    provider: Model | None = Field(None, min_length=1, description="For all of them if absent.")
    valid_from: Instant | None = None
    valid_until: Instant | None = Field(None, description="Not included.")
    rates: dict[str, UsDollars | UnitRateBody] = Field(
        min_length=1,
        json_schema_extra={"propertyNames": {"enum": [*sorted(UNIT_OF)]}},
        description="By unit: US dollars for a million tokens or characters, a second, an image,"
        " a thousand searches or requests; or an object that says for how many.",
    )
    note: Text | None = Field(None, max_length=1_024)

    def spec(self, limits: UsageLimits) -> PriceSpec:
        """The meaning."""
        check_texts(self, limits, ("model", "provider"))
        return PriceSpec(
            model=self.model,
            rates={_unit(name): _rate(name, one) for name, one in self.rates.items()},
            provider=self.provider,
            valid_from=self.valid_from,
            valid_until=self.valid_until,
            note=self.note,
        )


def _unit(name: str) -> str:
    if name not in UNIT_OF:
        known = ", ".join(sorted(UNIT_OF))
        raise fault(f"rates.{name[:64]}", f"is no unit; there are {known}")
    return UNIT_OF[name]


def _rate(name: str, given: Decimal | UnitRateBody) -> Rate:
    per = UNITS[_unit(name)].per
    if isinstance(given, Decimal):
        return Rate(given, per)
    above = [tier.above for tier in given.tiers]
    if sorted(set(above)) != above:
        raise fault(f"rates.{name}.tiers", "must ascend")
    return Rate(
        given.price, given.per or per, tuple(Tier(one.above, one.price) for one in given.tiers)
    )
