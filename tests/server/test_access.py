"""Who calls, and the key that a deployment begins with."""

import asyncio
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from meterline.db.engine import Database
from meterline.db.keys import SqlKeyStore
from meterline.kernel.access import ApiKey
from meterline.kernel.errors import UnauthorizedError, UnavailableError, ValidationError
from meterline.server.access import PromptKeys, authenticator_of, make_first_key
from meterline.server.sections import AuthSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = "ml_0123456789ab_" + 43 * "x"
OTHER = "ml_0123456789cd_" + 43 * "y"


def settings(key: str | None) -> AuthSettings:
    return AuthSettings(first_key=SecretStr(key) if key else None)


def clock() -> datetime:
    return NOW


async def test_the_first_key_is_an_administrator_s(any_database: Database) -> None:
    assert await make_first_key(settings(FIRST), any_database, clock)
    caller = await authenticator_of(settings(None), any_database).authenticate(f"Bearer {FIRST}")
    caller.require("portal:issue")
    assert caller.namespace == "default"


async def test_it_is_made_once_and_stays_revoked(any_database: Database) -> None:
    assert await make_first_key(settings(FIRST), any_database, clock)
    assert not await make_first_key(settings(FIRST), any_database, clock)
    store = SqlKeyStore(any_database)
    (key,) = await store.list(None)
    await store.revoke(None, key.id, NOW)
    for given in (FIRST, OTHER):
        assert not await make_first_key(settings(given), any_database, clock)
    authenticator = authenticator_of(settings(None), any_database)
    for given in (FIRST, OTHER):
        with pytest.raises(UnauthorizedError):
            await authenticator.authenticate(f"Bearer {given}")


async def test_processes_that_start_together_make_one(any_database: Database) -> None:
    made = await asyncio.gather(
        *(make_first_key(settings(FIRST), any_database, clock) for _ in range(8))
    )
    assert sum(made) == 1
    assert len(await SqlKeyStore(any_database).list(None)) == 1


async def test_none_is_made_unless_it_is_given(any_database: Database) -> None:
    assert not await make_first_key(settings(None), any_database, clock)
    assert not await SqlKeyStore(any_database).any_exists()


@pytest.mark.parametrize("text", ["", "change-me", FIRST[:-1], FIRST.upper()])
async def test_what_is_no_key_is_refused(any_database: Database, text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        await make_first_key(AuthSettings(first_key=SecretStr(text)), any_database, clock)
    assert not text or text not in str(refused.value)


class _Silent:
    async def find(self, prefix: str) -> ApiKey | None:
        await asyncio.Event().wait()
        return None

    async def any_exists(self) -> bool:
        await asyncio.Event().wait()
        return False


async def test_a_silent_database_is_not_waited_for() -> None:
    keys = PromptKeys(_Silent(), 0.01)
    with pytest.raises(UnavailableError):
        await keys.find("ml_0123456789ab")
    with pytest.raises(UnavailableError):
        await keys.any_exists()
