"""What other prices would make of recorded calls. Pure: it reports, and changes nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from entitlements.balance.exact import ROOM
from entitlements.usage_records.shape import UNIT_OF
from meterline.kernel.instants import parse_instant
from meterline.pricing.book import Asked, PriceBook
from meterline.pricing.rates import UNPRICED
from meterline.pricing.usage import InvalidUsageError, TokenUsage, usage_of

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Repriced:
    """Calls of one model that are priced in the same way, before and after.

    `changed` of them cost something else. What has no price adds nothing to a cost.
    """

    calls: int = 0
    changed: int = 0
    before_usd: Decimal = _ZERO
    after_usd: Decimal = _ZERO

    @property
    def difference(self) -> Decimal:
        """How much more the new prices make of it."""
        return ROOM.subtract(self.after_usd, self.before_usd)

    def plus(self, before: Decimal | None, after: Decimal | None) -> "Repriced":
        """The same with one call more."""
        return replace(
            self,
            calls=self.calls + 1,
            changed=self.changed + (before != after),
            before_usd=ROOM.add(self.before_usd, before or _ZERO),
            after_usd=ROOM.add(self.after_usd, after or _ZERO),
        )


Kind = tuple[str, str, str, str]
"""Provider and model, the state of the price before, and after."""
UNREADABLE = "unreadable"
"""The state after, of calls whose counts nothing can have. They count, and stay as they are."""


def reprice(records: Iterable[Mapping[str, Any]], book: PriceBook) -> Mapping[Kind, Repriced]:
    """Recorded calls, as the API lists them, under the prices of `book` at their own times."""
    found: dict[Kind, Repriced] = {}
    for record in records:
        model, provider = record.get("modelId") or "", record.get("provider")
        terms = record.get("terms") or {}
        asked = Asked(model, parse_instant(record["time"]), provider, terms)
        told = record.get("costUsd")
        before = None if told is None else Decimal(told)
        usage = _usage(record["usage"])
        if usage is None:
            state, after = UNREADABLE, before
        else:
            quote = book.quote(asked, usage)
            state, after = str(quote.state), quote.cost_usd
        kind = (provider or "", model, record.get("priced", UNPRICED), state)
        found[kind] = found.get(kind, Repriced()).plus(before, after)
    return found


def _usage(said: Mapping[str, Any]) -> TokenUsage | None:
    """The counts of a record; None when they break rules that were made after it."""
    try:
        return usage_of({UNIT_OF[name]: Decimal(count) for name, count in said.items()})
    except (InvalidUsageError, KeyError):
        return None


def together(parts: Iterable[Repriced]) -> Repriced:
    """All of them."""
    whole = Repriced()
    for one in parts:
        whole = Repriced(
            whole.calls + one.calls,
            whole.changed + one.changed,
            ROOM.add(whole.before_usd, one.before_usd),
            ROOM.add(whole.after_usd, one.after_usd),
        )
    return whole
