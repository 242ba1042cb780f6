"""API keys of a server: who is asked for them, and the first one."""

import logging

from meterline.db.engine import Database
from meterline.db.keys import SqlKeyStore
from meterline.kernel.access import given_key
from meterline.kernel.clock import Clock
from meterline.server.sections import AuthSettings
from meterline.web.auth import Authenticator, AuthLimits

logger = logging.getLogger(__name__)


def authenticator_of(settings: AuthSettings, database: Database) -> Authenticator:
    """Turns keys of this database into callers."""
    limits = AuthLimits(remember_seconds=settings.remember_seconds)
    return Authenticator(SqlKeyStore(database), limits)


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
