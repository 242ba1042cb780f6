"""What credits need of others. The server fills it."""

from datetime import datetime
from decimal import Decimal
from typing import Protocol

from entitlements.credits.rates import Tokens
from meterline.kernel.errors import ForbiddenError


class Prices(Protocol):
    """What models cost."""

    async def cost_usd(
        self, namespace: str, model: str, tokens: Tokens, at: datetime
    ) -> Decimal | None:
        """US dollars for tokens of a model at an instant; None when there is no price."""
        ...


class Bans(Protocol):
    """Who may use nothing."""

    async def refusal(self, namespace: str, subject: str) -> ForbiddenError | None:
        """What a banned subject is told, as by a check; None for one that is not banned."""
        ...
