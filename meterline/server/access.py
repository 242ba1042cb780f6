"""API keys of a server: who is asked for them, and the first one."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

from meterline.db.engine import Database
from meterline.db.keys import SqlKeyStore
from meterline.kernel.access import ApiKey, given_key
from meterline.kernel.clock import Clock
from meterline.kernel.errors import UnavailableError
from meterline.server.sections import AuthSettings
from meterline.web.auth import Authenticator, AuthLimits, KeyLookup

T = TypeVar("T")
logger = logging.getLogger(__name__)


class PromptKeys:
    """A `KeyLookup` that gives up soon: a request should not hang on who sends it."""

    def __init__(self, keys: KeyLookup, wait_seconds: float) -> None:
        self._keys = keys
        self._wait_seconds = wait_seconds

    async def find(self, prefix: str) -> ApiKey | None:
        """See `KeyLookup.find`."""
        return await self._soon(self._keys.find(prefix))

    async def any_exists(self) -> bool:
        """See `KeyLookup.any_exists`."""
        return await self._soon(self._keys.any_exists())

    async def _soon(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._wait_seconds):
                return await answer
        except TimeoutError:
            raise UnavailableError("the database does not tell who calls; try again") from None


def authenticator_of(settings: AuthSettings, database: Database) -> Authenticator:
    """Turns keys of this database into callers."""
    keys = PromptKeys(SqlKeyStore(database), settings.wait_seconds)
    return Authenticator(keys, AuthLimits(remember_seconds=settings.remember_seconds))


async def make_first_key(settings: AuthSettings, database: Database, clock: Clock) -> bool:
    """Make the key that the settings give, unless a key was ever made; whether it was made now."""
    if settings.first_key is None:
        return False
    store = SqlKeyStore(database)
    key = given_key(settings.first_key.get_secret_value(), "the first key", clock())
    if await store.any_exists():
        return False
    try:
        await store.add(key)
    except Exception:
        # Another process started at the same time.
        if await store.find(key.prefix) is None:
            raise
        return False
    logger.info("made the first API key", extra={"prefix": key.prefix})
    return True
