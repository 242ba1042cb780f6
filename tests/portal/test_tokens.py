"""Tokens: a genuine one speaks for its subject, and nothing else is one."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.db.engine import Database
from meterline.kernel.errors import UnauthorizedError, ValidationError
from portal.store import PortalToken, SqlTokenStore
from portal.tokens import AUDIENCE, ISSUER, Claims, PortalLimits, PortalService, sign, verify
from tests.support.clock import FixedClock

SECRET = "a secret of more than thirty-two bytes"
OTHER_SECRET = "another secret of more than 32 bytes!"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CLAIMS = Claims("01ARZ3NDEKTSV4RRFFQ69G5FAV", "acme", "customer-1", NOW, NOW + timedelta(hours=1))
PAYLOAD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "jti": CLAIMS.id,
    "ns": CLAIMS.namespace,
    "sub": CLAIMS.subject,
    "iat": int(NOW.timestamp()),
    "exp": int(CLAIMS.expires_at.timestamp()),
}
HEADER = {"alg": "HS256", "typ": "JWT"}
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def b64(data: bytes | Any) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(payload: Any = PAYLOAD, header: Any = HEADER, secret: str = SECRET) -> str:
    """A token made by hand, so that no library refuses to make it."""
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


def refused(token: str, now: datetime = NOW) -> None:
    with pytest.raises(UnauthorizedError):
        verify(token, SECRET, now)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in PAYLOAD.items() if key != name}


def test_the_forge_can_make_a_good_token() -> None:
    """The control of every test below: only the one fault makes the difference."""
    assert verify(forge(), SECRET, NOW) == CLAIMS


@given(texts, texts, st.integers(1, 86_400))
def test_a_genuine_token_says_what_was_signed(subject: str, namespace: str, life: int) -> None:
    claims = replace(
        CLAIMS, subject=subject, namespace=namespace, expires_at=NOW + timedelta(seconds=life)
    )
    token = sign(claims, SECRET)
    assert token.isascii()
    assert verify(token, SECRET, NOW) == claims
    assert verify(token, SECRET, claims.expires_at - timedelta(microseconds=1)) == claims
    refused(token, claims.expires_at)
    refused(token, claims.expires_at + timedelta(days=400))


FORGERIES: dict[str, Callable[[], str]] = {
    "other key": lambda: sign(CLAIMS, OTHER_SECRET),
    "empty key": lambda: forge(secret=""),
    "alg none": lambda: f"{b64({'alg': 'none'})}.{b64(PAYLOAD)}.",
    "alg none, signed": lambda: forge(header={"alg": "none"}),
    "alg None in other case": lambda: f"{b64({'alg': 'nOnE'})}.{b64(PAYLOAD)}.",
    "alg HS384": lambda: jwt.encode(PAYLOAD, SECRET + OTHER_SECRET, algorithm="HS384"),
    "alg HS512 named": lambda: forge(header={"alg": "HS512"}),
    "alg RS256 named": lambda: forge(header={"alg": "RS256"}),
    "no alg": lambda: forge(header={"typ": "JWT"}),
    "alg is a list": lambda: forge(header={"alg": ["HS256"]}),
    "header is no object": lambda: forge(header=["HS256"]),
    "header is no JSON": lambda: forge(header=b"{"),
    "header nests deeply": lambda: forge(header=b"[" * 5_000),
    "critical extension": lambda: forge(header={**HEADER, "crit": ["x"], "x": 1}),
    "detached payload": lambda: forge(header={**HEADER, "b64": False, "crit": ["b64"]}),
    "no signature": lambda: sign(CLAIMS, SECRET).rpartition(".")[0] + ".",
    "two parts": lambda: sign(CLAIMS, SECRET).rpartition(".")[0],
    "four parts": lambda: sign(CLAIMS, SECRET) + ".x",
    "padding": lambda: sign(CLAIMS, SECRET) + "=",
    "trailing newline": lambda: sign(CLAIMS, SECRET) + "\n",
    "no audience": lambda: forge(without("aud")),
    "other audience": lambda: forge({**PAYLOAD, "aud": "meterline:admin"}),
    "audience among others": lambda: forge({**PAYLOAD, "aud": [AUDIENCE, "x"]}),
    "no issuer": lambda: forge(without("iss")),
    "other issuer": lambda: forge({**PAYLOAD, "iss": "openmeter"}),
    "no expiry": lambda: forge(without("exp")),
    "expiry a text": lambda: forge({**PAYLOAD, "exp": "9999999999"}),
    "expiry a fraction": lambda: forge({**PAYLOAD, "exp": 9999999999.5}),
    "expiry true": lambda: forge({**PAYLOAD, "exp": True}),
    "expiry beyond the calendar": lambda: forge({**PAYLOAD, "exp": 10**30}),
    "expiry infinite": lambda: forge(json.dumps({**PAYLOAD, "exp": float("inf")}).encode()),
    "no id": lambda: forge(without("jti")),
    "id a number": lambda: forge({**PAYLOAD, "jti": 1}),
    "no subject": lambda: forge(without("sub")),
    "subject a list": lambda: forge({**PAYLOAD, "sub": ["customer-1"]}),
    "no namespace": lambda: forge(without("ns")),
    "payload is no object": lambda: forge([PAYLOAD]),
    "payload is no JSON": lambda: forge(b"customer-1"),
    "payload nests deeply": lambda: forge(b"[" * 5_000),
    "an API key": lambda: "ml_aaaaaaaaaaaa_" + "A" * 43,
    "empty": lambda: "",
    "dots": lambda: "..",
    "not ASCII": lambda: "é" + sign(CLAIMS, SECRET),
    "huge": lambda: "A" * 1_000_000 + ".A.A",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgeries(name: str) -> None:
    refused(FORGERIES[name]())


@given(st.data())
def test_every_change_of_a_character_is_noticed(data: st.DataObject) -> None:
    token = sign(CLAIMS, SECRET)
    position = data.draw(st.integers(0, len(token) - 1))
    char = data.draw(st.sampled_from("ABCabc019-_.=+/ é\n"))
    kind = data.draw(st.sampled_from(["replace", "insert", "delete"]))
    start, end = token[:position], token[position + (kind != "insert") :]
    changed = start + ("" if kind == "delete" else char) + end
    if changed != token:
        refused(changed)


def test_every_last_character_but_ours_is_refused() -> None:
    """Base64 leaves two bits of it unused, so four spellings would mean the same bytes."""
    token = sign(CLAIMS, SECRET)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    good = [char for char in alphabet if accepted(token[:-1] + char)]
    assert good == [token[-1]]


def accepted(token: str) -> bool:
    try:
        verify(token, SECRET, NOW)
    except UnauthorizedError:
        return False
    return True


@given(st.text(max_size=60))
def test_no_text_is_a_token(text: str) -> None:
    refused(text)
    refused(f"{text}.{text}.{text}")


# The service, over the real database.


@pytest.fixture
def database(any_database: Database) -> Database:
    return any_database


def service_of(
    database: Database, clock: FixedClock, secret: str | None = None, **limits: Any
) -> PortalService:
    return PortalService(
        SqlTokenStore(database), clock, secret, PortalLimits(**limits), clock.monotonic
    )


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def service(database: Database, clock: FixedClock) -> PortalService:
    return service_of(database, clock)


async def speaks(service: PortalService, text: str) -> PortalToken | None:
    try:
        return await service.authenticate(f"Bearer {text}")
    except UnauthorizedError:
        return None


async def test_a_token_speaks_for_its_subject(service: PortalService) -> None:
    token, text = await service.create("acme", "customer-1", None, ["tokens", "tokens"])
    assert await speaks(service, text) == token
    assert token.allowed_meter_slugs == ("tokens",)
    assert token.allows("tokens") and not token.allows("other")
    everything, _ = await service.create("acme", "customer-1")
    assert everything.allows("other")
    assert everything.expires_at == NOW + timedelta(hours=1)


@pytest.mark.parametrize("cached", [True, False])
async def test_a_token_expires(service: PortalService, clock: FixedClock, cached: bool) -> None:
    _, text = await service.create("acme", "a", NOW + timedelta(seconds=10.7))
    clock.advance(9.99)
    if cached:
        assert await speaks(service, text)
    clock.advance(0.01)
    assert not await speaks(service, text)


async def test_revoking_by_id_by_subject_and_all(service: PortalService) -> None:
    made = {
        name: await service.create(namespace, subject)
        for name, namespace, subject in (
            ("a1", "n", "a"),
            ("a2", "n", "a"),
            ("b", "n", "b"),
            ("c", "n", "c"),
            ("other", "m", "a"),
        )
    }

    async def alive() -> set[str]:
        return {name for name, (_, text) in made.items() if await speaks(service, text)}

    assert len(await alive()) == 5
    assert await service.invalidate("n", token_id=made["a1"][0].id) == 1
    assert await alive() == {"a2", "b", "c", "other"}
    assert await service.invalidate("n", token_id=made["a2"][0].id, subject="b") == 0
    assert await service.invalidate("n", token_id=made["other"][0].id) == 0
    assert await service.invalidate("n", subject="zzz\0") == 0
    assert await alive() == {"a2", "b", "c", "other"}
    assert await service.invalidate("n", subject="a") == 1
    assert await alive() == {"b", "c", "other"}
    assert await service.invalidate("n") == 2
    assert await alive() == {"other"}


async def test_a_revocation_elsewhere_holds_within_a_second(
    database: Database, service: PortalService, clock: FixedClock
) -> None:
    """Another process revokes; this one has just seen the token, and sees it again and again."""
    other = service_of(database, clock)
    _, text = await service.create("n", "a")
    assert await speaks(service, text) and await speaks(other, text)
    await other.invalidate("n")
    for _ in range(10):
        clock.advance(0.1)
        last = await speaks(service, text)
    assert last is None


async def test_the_secret_is_made_once_and_survives_restarts(
    database: Database, clock: FixedClock
) -> None:
    processes = [service_of(database, clock) for _ in range(5)]
    made = await asyncio.gather(*(one.create("n", "a") for one in processes))
    restarted = service_of(database, clock)
    for _, text in made:
        assert await speaks(restarted, text)
    await restarted.invalidate("n", made[0][0].id)
    again = service_of(database, clock)
    assert [bool(await speaks(again, text)) for _, text in made] == [False] + [True] * 4


async def test_a_configured_secret_is_taken(database: Database, clock: FixedClock) -> None:
    configured = service_of(database, clock, SECRET)
    _, text = await configured.create("n", "a")
    assert verify(text, SECRET, NOW).subject == "a"
    assert not await speaks(service_of(database, clock), text)
    with pytest.raises(ValueError, match="at least 32 bytes"):
        service_of(database, clock, "too short")


async def test_signed_claims_must_be_those_of_the_row(
    database: Database, clock: FixedClock
) -> None:
    """Even with the secret, a token that was never issued opens nothing."""
    service = service_of(database, clock, SECRET)
    token, _ = await service.create("acme", "customer-1")
    genuine = Claims(token.id, "acme", "customer-1", NOW, token.expires_at)
    assert await speaks(service, sign(genuine, SECRET)) == token
    for forged in (
        replace(genuine, namespace="other"),
        replace(genuine, subject="customer-2"),
        replace(genuine, id=CLAIMS.id),
    ):
        assert not await speaks(service, sign(forged, SECRET))
    longer = replace(genuine, expires_at=NOW + timedelta(days=9))
    clock.advance(3_600)
    assert not await speaks(service, sign(longer, SECRET))


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic x", "x"])
async def test_no_token_at_all(service: PortalService, header: str | None) -> None:
    with pytest.raises(UnauthorizedError, match="is needed"):
        await service.authenticate(header)


@pytest.mark.parametrize(
    ("subject", "expires_at", "slugs", "where"),
    [
        ("", None, None, "subject"),
        ("x" * 513, None, None, "subject"),
        ("x\n", None, None, "subject"),
        ("x", NOW, None, "expiresAt"),
        ("x", NOW + timedelta(microseconds=999_999), None, "expiresAt"),
        ("x", NOW - timedelta(days=1), None, "expiresAt"),
        ("x", NOW + timedelta(seconds=86_401), None, "expiresAt"),
        ("x", datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), None, "expiresAt"),
        ("x", datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), None, "expiresAt"),
        ("x", None, [], "allowedMeterSlugs"),
        ("x", None, ["a"] * 101, "allowedMeterSlugs"),
        ("x", None, ["../a"], "allowedMeterSlugs"),
    ],
)
async def test_what_a_token_cannot_be(
    service: PortalService,
    subject: str,
    expires_at: datetime | None,
    slugs: list[str] | None,
    where: str,
) -> None:
    with pytest.raises(ValidationError) as caught:
        await service.create("n", subject, expires_at, slugs)
    assert [fault.where for fault in caught.value.errors] == [where]
    assert await service.list("n") == []


async def test_limits_at_their_edges(service: PortalService) -> None:
    token, text = await service.create(
        "n" * 64, "🦊" * 512, NOW + timedelta(seconds=86_400), ["s" * 64] * 100
    )
    assert len(text) <= 12_000
    assert await speaks(service, text) == token


async def test_the_list_is_newest_first_and_forgets(
    service: PortalService, clock: FixedClock, database: Database
) -> None:
    made = []
    for number in range(30):
        clock.advance(1)
        made.append((await service.create("n", f"s{number}"))[0])
    assert list(await service.list("n")) == made[:4:-1]
    assert list(await service.list("n", 2)) == made[:-3:-1]
    assert len(await service.list("n", 1_000)) == 30
    await service.invalidate("n", made[-1].id)
    assert (await service.list("n", 1)) == [made[-2]]
    assert await service.list("m") == []
    clock.advance(8 * 86_400)
    assert len(await service.list("n", 100)) == 29
    await service.create("m", "x")
    assert await service.list("n") == []


async def test_memory_is_bounded(database: Database, clock: FixedClock) -> None:
    service = service_of(database, clock, remembered_tokens=3)
    for _ in range(6):
        _, text = await service.create("n", "a")
        assert await speaks(service, text)
        assert not await speaks(service, text + "x")
    assert len(service._remembered) == 3
