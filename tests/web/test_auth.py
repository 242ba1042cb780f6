"""Who calls: keys, scopes, the open mode, and how soon a revocation holds."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.kernel.access import SCOPES, ApiKey, make_key
from meterline.kernel.errors import ForbiddenError, UnauthorizedError, ValidationError
from meterline.web.auth import OPEN, Authenticator, AuthLimits, Principal
from tests.support.clock import FixedClock
from tests.web.keys import MemoryKeys


class World:
    def __init__(self) -> None:
        self.clock = FixedClock()
        self.keys = MemoryKeys()
        self.authenticator = Authenticator(self.keys, monotonic=self.clock.monotonic)

    async def key(self, namespace: str = "acme", *scopes: str) -> tuple[ApiKey, str]:
        key, text = make_key(namespace, "", scopes or ("read",), self.clock())
        await self.keys.add(key)
        return key, f"Bearer {text}"


class SlowKeys(MemoryKeys):
    """Lets others run between the question and the answer."""

    async def find(self, prefix: str) -> ApiKey | None:
        found = await super().find(prefix)
        await asyncio.sleep(0)
        return found


async def refused(authenticator: Authenticator, header: str | None) -> None:
    with pytest.raises(UnauthorizedError):
        await authenticator.authenticate(header)


async def test_a_key_tells_its_namespace_and_scopes() -> None:
    world = World()
    key, header = await world.key("acme", "ingest", "read")
    expected = Principal("acme", frozenset({"ingest", "read"}), key.id)
    assert await world.authenticator.authenticate(header) == expected
    assert await world.authenticator.authenticate(header.replace("Bearer", "bearer")) == expected


async def test_a_wrong_key_is_refused() -> None:
    world = World()
    _, header = await world.key()
    other = make_key("acme", "", ["admin"], world.clock())[1]
    for wrong in (
        None,
        "",
        "Bearer",
        "Bearer ",
        header[:-1],
        header + "A",
        header.replace("Bearer", "Basic"),
        header.swapcase(),
        header[:-43] + other[-43:],  # a known prefix with another secret
        f"Bearer {other}",
        "Bearer \udcff",
        "Bearer a.b.c",
    ):
        await refused(world.authenticator, wrong)


async def test_open_until_the_first_key_and_never_again() -> None:
    world = World()
    assert await world.authenticator.is_open()
    for header in (None, "Bearer anything", "Basic eDp5"):
        assert await world.authenticator.authenticate(header) == OPEN
    key, header = await world.key()
    world.clock.advance(1)
    await refused(world.authenticator, None)
    await refused(world.authenticator, "Bearer anything")
    await world.authenticator.authenticate(header)
    await world.keys.revoke(None, key.id, world.clock())
    world.clock.advance(1)
    assert not await world.authenticator.is_open()
    restarted = Authenticator(world.keys, monotonic=world.clock.monotonic)
    for authenticator in (world.authenticator, restarted):
        await refused(authenticator, header)
        await refused(authenticator, None)


async def test_a_portal_token_opens_nothing_even_in_the_open_mode() -> None:
    world = World()
    await world.authenticator.authenticate(None)
    await refused(world.authenticator, "Bearer eyJ.eyJ.sig")


@pytest.mark.parametrize("step", [0.05, 0.3, 0.6])
async def test_a_revocation_holds_within_a_second(step: float) -> None:
    """However often the key is used meanwhile, by however many at once."""
    world = World()
    key, header = await world.key()
    await world.authenticator.authenticate(header)
    await world.keys.revoke("acme", key.id, world.clock())
    waited = 0.0
    while waited + step < 1.0:
        world.clock.advance(step)
        waited += step
        await asyncio.gather(
            *(world.authenticator.authenticate(header) for _ in range(3)), return_exceptions=True
        )
    world.clock.advance(1.0 - waited)
    await refused(world.authenticator, header)


async def test_a_key_that_rested_is_looked_up_before_anyone_uses_it() -> None:
    world = World()
    key, header = await world.key()
    await world.authenticator.authenticate(header)
    await world.keys.revoke("acme", key.id, world.clock())
    world.clock.advance(60)
    world.authenticator._keys = SlowKeys(world.keys.kept)
    answers = await asyncio.gather(
        *(world.authenticator.authenticate(header) for _ in range(5)), return_exceptions=True
    )
    assert all(isinstance(answer, UnauthorizedError) for answer in answers)


async def test_a_revocation_here_holds_at_once() -> None:
    world = World()
    key, header = await world.key()
    await world.authenticator.authenticate(header)
    await world.keys.revoke("acme", key.id, world.clock())
    world.authenticator.forget()
    await refused(world.authenticator, header)


async def test_a_known_key_is_not_looked_up_again() -> None:
    world = World()
    _, header = await world.key()
    for _ in range(100):
        await world.authenticator.authenticate(header)
    assert world.keys.finds == 1


async def test_a_burst_at_expiry_asks_once() -> None:
    world = World()
    _, header = await world.key()
    await world.authenticator.authenticate(header)
    world.clock.advance(0.51)

    slow = SlowKeys(world.keys.kept)
    world.authenticator._keys = slow
    await asyncio.gather(*(world.authenticator.authenticate(header) for _ in range(50)))
    assert slow.finds == 1


async def test_memory_is_bounded() -> None:
    keys = MemoryKeys()
    clock = FixedClock()
    authenticator = Authenticator(keys, AuthLimits(remembered_keys=3), clock.monotonic)
    for _ in range(10):
        key, text = make_key("a", "", ["read"], clock())
        await keys.add(key)
        await authenticator.authenticate(f"Bearer {text}")
        await refused(authenticator, f"Bearer {text}x")
    assert len(authenticator._remembered) == 3


async def test_a_remembered_key_costs_microseconds() -> None:
    world = World()
    authenticator = Authenticator(world.keys)
    _, header = await world.key()
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(500):
            await authenticator.authenticate(header)
        best = min(best, (time.perf_counter() - start) / 500)
    assert best < 10e-6  # about 1 µs on an idle machine


@pytest.mark.parametrize("scope", SCOPES)
def test_scopes(scope: str) -> None:
    Principal("a", frozenset({scope})).require(scope)
    Principal("a", frozenset({"admin"})).require(scope)
    for other in set(SCOPES) - {scope, "admin"}:
        with pytest.raises(ForbiddenError, match="scope"):
            Principal("a", frozenset({other})).require(scope)


@given(st.text(max_size=80))
def test_no_guess_is_a_key(guess: str) -> None:
    async def run() -> None:
        world = World()
        await world.key()
        await refused(world.authenticator, f"Bearer {guess}")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"scopes": ["root"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"namespace": ""}, "namespace"),
        ({"namespace": "A"}, "namespace"),
        ({"namespace": "a/b"}, "namespace"),
        ({"namespace": "a" * 65}, "namespace"),
        ({"namespace": "a\n"}, "namespace"),
        ({"name": "x" * 257}, "name"),
        ({"name": "x\n"}, "name"),
    ],
)
def test_what_a_key_cannot_be(change: dict[str, Any], where: str) -> None:
    values: dict[str, Any] = {"namespace": "a-1_b", "name": "x", "scopes": ["read"], **change}
    with pytest.raises(ValidationError) as caught:
        make_key(now=FixedClock()(), **values)
    assert [fault.where for fault in caught.value.errors] == [where]
