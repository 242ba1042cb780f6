"""Names that transactions lock, for decisions that no row stands for.

For example "may this namespace have one more rule?": two transactions that count at the same time
would both say yes. On SQLite a transaction has the only write lock anyway.
"""

import hashlib
import json

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ALONE = text("SELECT pg_advisory_xact_lock(:key)")
_BESIDE = text("SELECT pg_advisory_xact_lock_shared(:key)")


async def alone(conn: AsyncConnection, *name: str) -> None:
    """Wait until no other transaction has the name, and keep it until this one has ended."""
    if conn.dialect.name == "postgresql":
        await conn.execute(_ALONE, {"key": _key(name)})


async def beside(conn: AsyncConnection, *name: str) -> None:
    """The same, but beside others who do so with `beside`; not with `alone`."""
    if conn.dialect.name == "postgresql":
        await conn.execute(_BESIDE, {"key": _key(name)})


def _key(name: tuple[str, ...]) -> int:
    """A number for a name. Two names of one number wait for each other for nothing, that is all."""
    digest = hashlib.blake2b(json.dumps(name).encode(), digest_size=8, person=b"meterline-mutex")
    return int.from_bytes(digest.digest(), "big", signed=True)
