"""A namespace's own prices, and the price book that they head."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from entitlements.specs import fault
from entitlements.usage_records.options import UsageLimits
from entitlements.usage_records.stores import prices as store
from entitlements.usage_records.stores.prices import OwnPrice
from meterline.db.engine import Database
from meterline.kernel.clock import Clock
from meterline.kernel.errors import NotFoundError
from meterline.kernel.ids import new_ulid
from meterline.pricing.book import Asked, Override, PriceBook, Quote
from meterline.pricing.catalogue import GenaiCatalogue
from meterline.pricing.rates import KnownModel, Rate
from meterline.pricing.usage import TokenUsage

_MAX_STARS = 3


@dataclass(frozen=True, slots=True)
class PriceSpec:
    """A price to keep: see `Override`."""

    model: str
    rates: Mapping[str, Rate]
    provider: str | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    note: str | None = None


class PriceService:
    """Keeps prices, and quotes by them and the catalogue."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        limits: UsageLimits | None = None,
        catalogue: GenaiCatalogue | None = None,
    ) -> None:
        self.limits = limits or UsageLimits()
        self.catalogue = catalogue or GenaiCatalogue()
        self._database = database
        self._clock = clock
        self._remembered: dict[str, tuple[datetime, PriceBook]] = {}

    async def book(self, namespace: str) -> PriceBook:
        """The prices of a namespace, as they were at most a moment ago."""
        now = self._clock()
        known = self._remembered.get(namespace)
        if known is not None and now < known[0]:
            return known[1]
        async with self._database.read() as conn:
            own = await store.listing(conn, namespace)
        book = PriceBook(self.catalogue, tuple(one.price for one in own))
        until = now + timedelta(seconds=self.limits.remember_prices_seconds)
        self._remembered[namespace] = (until, book)
        return book

    async def quote(self, namespace: str, asked: Asked, usage: TokenUsage) -> Quote:
        """What usage costs."""
        return (await self.book(namespace)).quote(asked, usage)

    def models(self, provider: str | None) -> Iterator[KnownModel]:
        """The models that the catalogue knows, with their prices of now."""
        return self.catalogue.models(provider, self._clock())

    async def list(self, namespace: str) -> Sequence[OwnPrice]:
        """The prices of a namespace, oldest first."""
        async with self._database.read() as conn:
            return await store.listing(conn, namespace)

    async def get(self, namespace: str, price_id: str) -> OwnPrice:
        """One of them."""
        async with self._database.read() as conn:
            found = await store.find(conn, namespace, price_id)
        if found is None:
            raise NotFoundError("there is no such price")
        return found

    async def create(
        self, namespace: str, spec: PriceSpec, price_id: str | None = None
    ) -> OwnPrice:
        """Keep a price; one that is there by that id is answered as it is."""
        now = self._clock()
        made = self._made(price_id or new_ulid(now), spec, now)
        async with self._database.transaction() as conn:
            if price_id is not None and (found := await store.find(conn, namespace, price_id)):
                return found
            most = self.limits.max_prices
            if await store.count(conn, namespace) >= most:
                raise fault("prices", f"a namespace has at most {most}")
            await store.add(conn, namespace, made)
        self._remembered.pop(namespace, None)
        return made

    async def replace(self, namespace: str, price_id: str, spec: PriceSpec) -> OwnPrice:
        """Change a price. Records that have been priced stay as they are."""
        before = await self.get(namespace, price_id)
        after = replace(self._made(before.price.id, spec, self._clock()), made_at=before.made_at)
        async with self._database.transaction() as conn:
            if not await store.replace(conn, namespace, after):
                raise NotFoundError("there is no such price")
        self._remembered.pop(namespace, None)
        return after

    async def delete(self, namespace: str, price_id: str) -> None:
        """Forget a price."""
        async with self._database.transaction() as conn:
            if not await store.remove(conn, namespace, price_id):
                raise NotFoundError("there is no such price")
        self._remembered.pop(namespace, None)

    def _made(self, price_id: str, spec: PriceSpec, now: datetime) -> OwnPrice:
        if not spec.rates:
            raise fault("rates", "must have at least one rate")
        if spec.model.count("*") > _MAX_STARS:
            raise fault("model", f"must have at most {_MAX_STARS} *")
        if spec.valid_from and spec.valid_until and spec.valid_until <= spec.valid_from:
            raise fault("validUntil", "must be after validFrom")
        provider = spec.provider
        if provider is not None:
            provider = self.catalogue.provider_id(provider) or provider.strip().lower()
        price = Override(
            price_id, spec.model, spec.rates, provider, spec.valid_from, spec.valid_until
        )
        return OwnPrice(price, spec.note, now, now)
