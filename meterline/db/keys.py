"""API keys in the database."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, LargeBinary, Row, String, Table, select, update

from meterline.db.engine import Database
from meterline.db.tables import UtcDateTime, metadata
from meterline.kernel.access import ApiKey

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("prefix", String(32), nullable=False, unique=True),
    Column("hash", LargeBinary(32), nullable=False),
    Column("namespace", String(64), nullable=False),
    Column("name", String(256), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
)


class SqlKeyStore:
    """Keeps API keys. A revoked key stays, so that a server once closed stays closed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: ApiKey) -> None:
        """Keep a new key."""
        async with self._database.transaction() as conn:
            await conn.execute(
                api_keys.insert().values(
                    id=key.id,
                    prefix=key.prefix,
                    hash=key.hash,
                    namespace=key.namespace,
                    name=key.name,
                    scopes=sorted(key.scopes),
                    created_at=key.created_at,
                )
            )

    async def find(self, prefix: str) -> ApiKey | None:
        """The key with that prefix, revoked or not."""
        async with self._database.read() as conn:
            row = (
                await conn.execute(select(api_keys).where(api_keys.c.prefix == prefix))
            ).one_or_none()
        return _key(row) if row else None

    async def any_exists(self) -> bool:
        """Whether a key was ever made."""
        async with self._database.read() as conn:
            return (await conn.execute(select(api_keys.c.id).limit(1))).first() is not None

    async def list(self, namespace: str | None) -> Sequence[ApiKey]:
        """The keys that are not revoked, of one namespace or of all, oldest first."""
        query = select(api_keys).where(api_keys.c.revoked_at.is_(None))
        if namespace is not None:
            query = query.where(api_keys.c.namespace == namespace)
        async with self._database.read() as conn:
            rows = await conn.execute(query.order_by(api_keys.c.created_at, api_keys.c.id))
            return [_key(row) for row in rows]

    async def revoke(self, namespace: str | None, key_id: str, now: datetime) -> bool:
        """Revoke a key of a namespace (of any, when None). False when there is no such key."""
        change = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        if namespace is not None:
            change = change.where(api_keys.c.namespace == namespace)
        async with self._database.transaction() as conn:
            return (await conn.execute(change.values(revoked_at=now))).rowcount == 1


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        prefix=row.prefix,
        hash=row.hash,
        namespace=row.namespace,
        name=row.name,
        scopes=frozenset(row.scopes),
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
