"""What credits need of others. The server fills it."""

from datetime import datetime
from decimal import Decimal
from typing import Protocol

from entitlements.credits.rates import Tokens


class Prices(Protocol):
    """What models cost."""

    async def cost_usd(
        self, namespace: str, model: str, tokens: Tokens, at: datetime
    ) -> Decimal | None:
        """US dollars for tokens of a model at an instant; None when there is no price."""
        ...
