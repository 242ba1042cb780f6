"""What usage adds up to, by model, context, key, tag and conversation: queries of meters."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from entitlements.balance.exact import ROOM
from entitlements.builtin import CACHED_TOKENS, COST, INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS
from entitlements.usage_records.ports import TotalsQuery, UsageMeters
from entitlements.usage_records.shape import tags_of
from meterline.kernel.errors import NotFoundError
from meterline.pricing.rates import UNPRICED

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over calls. `unpriced` of the requests have no price, so no part in the cost."""

    cost_usd: Decimal = _ZERO
    input_tokens: Decimal = _ZERO
    output_tokens: Decimal = _ZERO
    cached_tokens: Decimal = _ZERO
    requests: Decimal = _ZERO
    unpriced: Decimal = _ZERO

    def plus(self, name: str, value: Decimal) -> "Figures":
        """The same with more of one of them."""
        return replace(self, **{name: ROOM.add(getattr(self, name), value)})

    @property
    def total_tokens(self) -> Decimal:
        """Input and output."""
        return ROOM.add(self.input_tokens, self.output_tokens)


@dataclass(frozen=True, slots=True)
class SummaryQuery:
    """Which calls. What is None does not matter."""

    begin: datetime | None = None
    end: datetime | None = None
    subject: str | None = None
    model: str | None = None
    provider: str | None = None
    context: str | None = None
    key: str | None = None
    tag: str | None = None
    conversation: str | None = None

    def filters(self) -> Mapping[str, Any]:
        """As a meter query has them."""
        texts = {
            "model": self.model,
            "provider": self.provider,
            "context": self.context,
            "key": self.key,
            "conversation": self.conversation,
        }
        given: dict[str, Any] = {name: text for name, text in texts.items() if text is not None}
        if self.tag is not None:
            tag = _escaped(self.tag)
            # Its quotation marks are those of the array: the first in it, or after another one.
            given["tags"] = {"$or": [{"$like": f"[{tag}%"}, {"$like": f'%",{tag}%'}]}
        return given


@dataclass(frozen=True, slots=True)
class Summary:
    """All calls together, and apart. Models are named with their provider."""

    total: Figures = field(default_factory=Figures)
    by_model: Mapping[tuple[str, str], Figures] = field(default_factory=dict)
    by_context: Mapping[str, Figures] = field(default_factory=dict)


class TrackedBy(StrEnum):
    """How tracked calls can be told apart."""

    KEY = "key"
    TAG = "tag"
    CONVERSATION = "conversation"


_METERS: Mapping[str, str] = {
    "cost_usd": COST,
    "input_tokens": INPUT_TOKENS,
    "output_tokens": OUTPUT_TOKENS,
    "cached_tokens": CACHED_TOKENS,
    "requests": REQUESTS,
}
_GROUP = {TrackedBy.KEY: "key", TrackedBy.TAG: "tags", TrackedBy.CONVERSATION: "conversation"}


class SummaryService:
    """Answers summaries."""

    def __init__(self, meters: UsageMeters) -> None:
        self._meters = meters

    async def summary(self, namespace: str, query: SummaryQuery) -> Summary:
        """What the calls of a query add up to."""
        cells = await self._cells(namespace, query, ("model", "provider", "context", "priced"))
        return Summary(
            total=_sum(cells, lambda _group: [()]).get((), Figures()),
            by_model=_sum(cells, lambda group: [(group["provider"], group["model"])]),
            by_context=_sum(cells, lambda group: [group["context"]]),
        )

    async def tracked(
        self, namespace: str, query: SummaryQuery, by: TrackedBy
    ) -> Mapping[str, Figures]:
        """What tracked calls add up to, by one of their properties; those without it are left out.

        A call with several tags counts for each of them.
        """
        cells = await self._cells(namespace, query, (_GROUP[by], "priced"), tracked=True)
        if by is TrackedBy.TAG:
            found = _sum(cells, lambda group: tags_of(group["tags"]))
            return found if query.tag is None else {query.tag: found.get(query.tag, Figures())}
        return _sum(cells, lambda group: [group[_GROUP[by]]] if group[_GROUP[by]] else [])

    async def _cells(
        self,
        namespace: str,
        query: SummaryQuery,
        groups: tuple[str, ...],
        *,
        tracked: bool = False,
    ) -> Sequence["_Cell"]:
        filters = query.filters()
        if tracked:
            filters = {"key": {"$ne": ""}, **filters}
        asked = TotalsQuery(groups, query.begin, query.end, query.subject, filters)
        try:
            answers = await asyncio.gather(
                *(self._meters.totals(namespace, slug, asked) for slug in _METERS.values())
            )
        except NotFoundError:
            # The meters come with the first record.
            return ()
        return [
            _Cell(name, group, value)
            for name, rows in zip(_METERS, answers, strict=True)
            for group, value in rows
        ]


@dataclass(frozen=True, slots=True)
class _Cell:
    name: str
    group: Mapping[str, str]
    value: Decimal


def _sum(
    cells: Iterable[_Cell], places: Callable[[Mapping[str, str]], Iterable[Any]]
) -> dict[Any, Figures]:
    """Figures by the places that each group belongs to."""
    found: dict[Any, Figures] = {}
    for cell in cells:
        for place in places(cell.group):
            figures = found.get(place, Figures()).plus(cell.name, cell.value)
            if cell.name == "requests" and cell.group["priced"] == UNPRICED:
                figures = figures.plus("unpriced", cell.value)
            found[place] = figures
    return found


def _escaped(tag: str) -> str:
    """A tag within the JSON of a set of tags, as the pattern of a `$like` has it."""
    text = msgspec.json.encode(tag).decode()
    return "".join(f"\\{one}" if one in "\\%_" else one for one in text)
