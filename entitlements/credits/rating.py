"""What models cost in credits: rates of one's own, else price times markup."""

from collections.abc import Sequence
from decimal import Decimal

from entitlements.credits import store
from entitlements.credits.ports import Prices
from entitlements.credits.rates import CreditOptions, Rate, Tokens, credits_at, credits_for
from entitlements.holds.shape import TOO_MUCH
from entitlements.services.means import Means
from entitlements.specs import fault
from meterline.kernel.errors import NotFoundError
from meterline.kernel.quantity import format_number


class RateService:
    """Keeps rates, and says what tokens cost."""

    def __init__(self, means: Means, prices: Prices, options: CreditOptions) -> None:
        self._means = means
        self._prices = prices
        self._options = options

    async def credits(
        self, namespace: str, model: str, tokens: Tokens, where: str = "tokens"
    ) -> Decimal:
        """What tokens of a model cost.

        `ValidationError` when nothing says so, or when they (`where` in the body) cost more than
        a meter can count.
        """
        cost = await self._credits(namespace, model, tokens)
        if cost >= TOO_MUCH:
            raise fault(where, f"would cost {format_number(cost)} credits: no meter counts so many")
        return cost

    async def _credits(self, namespace: str, model: str, tokens: Tokens) -> Decimal:
        async with self._means.database.read() as conn:
            rate = await store.find_rate(conn, namespace, model)
        if rate is not None:
            return credits_at(rate, tokens)
        cost = await self._prices.cost_usd(namespace, model, tokens, self._means.clock())
        if cost is None:
            reason = f"{model} has neither a credit rate nor a price: set one of them"
            raise fault("model", reason)
        return credits_for(cost, self._options)

    async def put(self, namespace: str, rate: Rate) -> Rate:
        """Set the rate of a model."""
        async with self._means.database.transaction() as conn:
            await store.put_rate(conn, namespace, rate, self._means.clock())
        return rate

    async def get(self, namespace: str, model: str) -> Rate:
        """The rate of a model, or `NotFoundError`."""
        async with self._means.database.read() as conn:
            rate = await store.find_rate(conn, namespace, model)
        if rate is None:
            raise NotFoundError("the model has no credit rate of its own")
        return rate

    async def list(self, namespace: str, after: str | None, limit: int) -> Sequence[Rate]:
        """Rates by model."""
        async with self._means.database.read() as conn:
            return await store.list_rates(conn, namespace, after, limit)

    async def delete(self, namespace: str, model: str) -> None:
        """Forget the rate of a model; then its price counts again."""
        async with self._means.database.transaction() as conn:
            if not await store.delete_rate(conn, namespace, model):
                raise NotFoundError("the model has no credit rate of its own")
