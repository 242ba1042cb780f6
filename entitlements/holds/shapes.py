"""Which events count as use of a feature, looked up and remembered for a moment."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

import sqlalchemy as sa

from entitlements.holds.book import words_of
from entitlements.holds.model import Opening, Place
from entitlements.holds.shape import Shape, check_amount, check_shape
from entitlements.stores import entitlements as entitlement_store
from entitlements.stores.features import features
from entitlements.usage import UsageReader
from meterline.db.engine import Database
from meterline.kernel.errors import ConflictError, NotFoundError, ValidationError
from meterline.kernel.sharing import Sharing

_REMEMBERED_SECONDS = 1.0
_MOST = 10_000
_MOST_CHECKED = 1_000


@dataclass(slots=True)
class _Known:
    """The shapes of the features that have or had a key, and until when that is believed."""

    shapes: dict[str, Shape]
    until: float
    checked: set[tuple[str, ...]] = field(default_factory=set)


class Shapes:
    """Finds the shape of a balance's feature. A feature never changes, but its meter may."""

    def __init__(
        self,
        database: Database,
        usage: UsageReader,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._usage = usage
        self._monotonic = monotonic
        self._known: dict[tuple[str, str], _Known] = {}
        self._loading = Sharing[tuple[str, str], _Known]()

    async def get(self, place: Place) -> Shape:
        """The shape; `NotFoundError` when there can be no such entitlement."""
        return await self._choose(await self._find(place), place)

    async def check(self, opening: Opening, amount: Decimal, now: int) -> None:
        """`ValidationError` when no event can stand for such a hold."""
        known = await self._find(opening.place)
        shape = await self._choose(known, opening.place)
        words = words_of(opening)
        key = (shape.feature_id, *words.values())
        if key not in known.checked:
            check_shape(shape, words, now)
            if len(known.checked) < _MOST_CHECKED:
                known.checked.add(key)
        if amount:
            check_amount(shape, amount)

    async def _find(self, place: Place) -> _Known:
        """What is known, looked up again when it is old: by one caller, and the others wait."""
        key = (place.namespace, place.feature_key)
        known = self._known.get(key)
        if known is not None and self._monotonic() < known.until:
            return known
        return await self._loading.do(key, lambda: self._look_up(key, place))

    async def _look_up(self, key: tuple[str, str], place: Place) -> _Known:
        until = self._monotonic() + _REMEMBERED_SECONDS
        known = _Known(await self._load(place), until)
        while len(self._known) >= _MOST:
            self._known.pop(next(iter(self._known)))
        self._known[key] = known
        return known

    async def _choose(self, known: _Known, place: Place) -> Shape:
        if len(known.shapes) == 1:
            return next(iter(known.shapes.values()))
        # A feature was archived and another one has its key: the entitlement says which it is of.
        async with self._database.read() as conn:
            active = await entitlement_store.active(conn, *place)
        if active is None:
            raise NotFoundError("the subject has no such entitlement")
        if active.feature_id not in known.shapes:
            raise ConflictError(f"the meter of the feature {place.feature_key} is gone")
        return known.shapes[active.feature_id]

    async def _load(self, place: Place) -> dict[str, Shape]:
        query = sa.select(features.c.id, features.c.meter_slug, features.c.filters).where(
            features.c.namespace == place.namespace, features.c.key == place.feature_key
        )
        async with self._database.read() as conn:
            found = (await conn.execute(query)).all()
        shapes: dict[str, Shape] = {}
        for feature_id, slug, filters in found:
            meter = await self._usage.meter(place.namespace, slug) if slug else None
            if meter is not None:
                texts = {key: tuple(values) for key, values in filters.items()}
                shapes[feature_id] = Shape(feature_id, meter, texts)
            elif len(found) == 1:
                raise _without_meter(place, slug)
        return shapes


def _without_meter(place: Place, slug: str | None) -> Exception:
    if slug is None:
        return ValidationError("holds are for metered entitlements: this one has no balance")
    return ConflictError(f"the meter {slug} of the feature {place.feature_key} is gone")
