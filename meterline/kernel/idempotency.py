"""Requests that are sent again with one key: what is remembered of each. Pure.

A request is *claimed* by whoever works on it, and its answer is kept when there is one. A claim
whose owner died ends by itself; whoever takes it over does the work again. So the effects of the
work must be named by the key, too: `effect_id` makes the name.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it was given."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """A request that somebody works on: whose, of what content, and until when."""

    id: str
    """Of namespace, route and key: see `request_id`."""
    fingerprint: bytes
    owner: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a request already; without an answer, somebody works on it."""

    fingerprint: bytes
    answer: Answer | None


def request_id(namespace: str, route: str, key: str) -> str:
    """One name for (namespace, route, key)."""
    return _digest("request", namespace, route, key).hex()


def fingerprint(parts: Sequence[bytes]) -> bytes:
    """What two requests with one key must agree on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def effect_id(namespace: str, route: str, key: str) -> str:
    """The id of what a request makes: always the same, in the shape of the API's other ids."""
    number = int.from_bytes(_digest("effect", namespace, route, key)[:16], "big")
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def _digest(*parts: str) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()
