"""What was used, in all and this month: queries of the built-in meters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from entitlements.balance.exact import ROOM, ZERO
from entitlements.builtin import (
    CACHED_TOKENS,
    COST,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REQUESTS,
    TOKENS,
    BuiltIns,
)
from entitlements.plans.api.encode import number
from entitlements.plans.decide import month_of
from entitlements.plans.options import PlanOptions
from entitlements.services.means import Means
from entitlements.usage_records.ports import TotalsQuery, UsageMeters
from meterline.kernel.instants import format_instant
from meterline.pricing.rates import UNPRICED

_NAMES: Mapping[str, str] = {
    COST: "costUsd",
    REQUESTS: "requests",
    TOKENS: "tokens",
    INPUT_TOKENS: "inputTokens",
    OUTPUT_TOKENS: "outputTokens",
    CACHED_TOKENS: "cachedTokens",
}


@dataclass(slots=True)
class Stretch:
    """What was used in a stretch of time."""

    models: dict[str, dict[str, Decimal]] = field(default_factory=dict)
    unpriced: Decimal = ZERO
    """Requests whose price is not known; they are not part of the cost."""

    def add(self, model: str, slug: str, value: Decimal) -> None:
        """Count more of a meter."""
        figures = self.models.setdefault(model, {})
        figures[slug] = ROOM.add(figures.get(slug, ZERO), value)

    def total(self, slug: str) -> Decimal:
        """Over all models."""
        result = ZERO
        for figures in self.models.values():
            result = ROOM.add(result, figures.get(slug, ZERO))
        return result

    def json(self) -> dict[str, Any]:
        """As callers see it."""
        return {
            **{name: number(self.total(slug)) for slug, name in _NAMES.items()},
            "unpricedRequests": number(self.unpriced),
            "byModel": [
                {
                    "model": model,
                    **{name: number(figures.get(slug, ZERO)) for slug, name in _NAMES.items()},
                }
                for model, figures in sorted(self.models.items())
            ],
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """What one subject, or all of them, have used."""

    subject: str | None
    month_start: datetime
    total: Stretch
    month: Stretch
    as_of: datetime

    def json(self) -> dict[str, Any]:
        """As callers see it."""
        subject = {} if self.subject is None else {"subject": self.subject}
        return {
            **subject,
            "total": self.total.json(),
            "currentMonth": {"from": format_instant(self.month_start), **self.month.json()},
            "asOf": format_instant(self.as_of),
        }


class SummaryService:
    """Reads summaries."""

    def __init__(
        self, means: Means, meters: UsageMeters, built_ins: BuiltIns, options: PlanOptions
    ) -> None:
        self._means = means
        self._meters = meters
        self._built_ins = built_ins
        self._options = options

    async def read(self, namespace: str, subject: str | None, *, wait: bool = False) -> Summary:
        """The summary; with `wait`, of everything that was acknowledged before."""
        await self._built_ins.ensure(namespace)
        if wait:
            await self._means.usage.wait(self._options.wait_seconds)
        now = self._means.now()
        as_of = min(now, await self._means.usage.as_of())
        start = month_of(now).start
        return Summary(
            subject,
            start,
            await self._stretch(namespace, subject, None),
            await self._stretch(namespace, subject, start),
            as_of,
        )

    async def _stretch(
        self, namespace: str, subject: str | None, since: datetime | None
    ) -> Stretch:
        asked = TotalsQuery(("model", "priced"), begin=since, subject=subject)
        stretch = Stretch()
        for slug in _NAMES:
            for group, value in await self._meters.totals(namespace, slug, asked):
                stretch.add(group["model"], slug, value)
                if slug == REQUESTS and group["priced"] == UNPRICED:
                    stretch.unpriced = ROOM.add(stretch.unpriced, value)
        return stretch
