"""Portal tokens and the secret that signs them, in the database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import JSON, Column, Row, String, Table, Text, delete, select, update

from meterline.db.engine import Database
from meterline.db.tables import UtcDateTime, metadata, upsert
from meterline.kernel.ids import new_secret

portal_tokens = Table(
    "portal_tokens",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("allowed_meter_slugs", JSON(none_as_null=True)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

_SECRET_NAME = "portal"


@dataclass(frozen=True, slots=True)
class PortalToken:
    """What is kept of a token: everything but its text."""

    id: str
    namespace: str
    subject: str
    allowed_meter_slugs: tuple[str, ...] | None
    """The meters it may read; None is all of the namespace."""
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    def allows(self, slug: str) -> bool:
        """Whether the token may read that meter."""
        return self.allowed_meter_slugs is None or slug in self.allowed_meter_slugs


class TokenStore(Protocol):
    """Where tokens are kept."""

    async def secret(self, now: datetime) -> str:
        """The signing secret; made at the first call ever, the same for every process."""
        ...

    async def add(self, token: PortalToken, forget_before: datetime) -> None:
        """Keep a new token, and forget those that expired before `forget_before`."""
        ...

    async def find(self, token_id: str) -> PortalToken | None:
        """The token with that id, revoked or not."""
        ...

    async def list(self, namespace: str, limit: int) -> Sequence[PortalToken]:
        """The newest tokens that are not revoked."""
        ...

    async def revoke(
        self, namespace: str, token_id: str | None, subject: str | None, now: datetime
    ) -> int:
        """Revoke what matches both (None matches all); answers how many were revoked."""
        ...


class SqlTokenStore:
    """The store in the relational database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def secret(self, now: datetime) -> str:
        """The signing secret; of two processes that make one at once, the first one's stays."""
        query = select(secrets.c.value).where(secrets.c.name == _SECRET_NAME)
        async with self._database.transaction() as conn:
            await conn.execute(
                upsert(conn, secrets, ["name"], []).values(
                    name=_SECRET_NAME, value=new_secret(), created_at=now
                )
            )
            return str((await conn.execute(query)).scalar_one())

    async def add(self, token: PortalToken, forget_before: datetime) -> None:
        """Keep a new token, and forget those that expired before `forget_before`."""
        slugs = token.allowed_meter_slugs
        async with self._database.transaction() as conn:
            old = select(portal_tokens.c.id).where(portal_tokens.c.expires_at < forget_before)
            old = old.with_for_update(skip_locked=True)
            await conn.execute(delete(portal_tokens).where(portal_tokens.c.id.in_(old)))
            await conn.execute(
                portal_tokens.insert().values(
                    id=token.id,
                    namespace=token.namespace,
                    subject=token.subject,
                    allowed_meter_slugs=None if slugs is None else list(slugs),
                    created_at=token.created_at,
                    expires_at=token.expires_at,
                )
            )

    async def find(self, token_id: str) -> PortalToken | None:
        """The token with that id, revoked or not."""
        query = select(portal_tokens).where(portal_tokens.c.id == token_id)
        async with self._database.read() as conn:
            row = (await conn.execute(query)).one_or_none()
        return _token(row) if row else None

    async def list(self, namespace: str, limit: int) -> Sequence[PortalToken]:
        """The newest tokens that are not revoked."""
        query = (
            select(portal_tokens)
            .where(portal_tokens.c.namespace == namespace, portal_tokens.c.revoked_at.is_(None))
            .order_by(portal_tokens.c.created_at.desc(), portal_tokens.c.id.desc())
            .limit(limit)
        )
        async with self._database.read() as conn:
            return [_token(row) for row in await conn.execute(query)]

    async def revoke(
        self, namespace: str, token_id: str | None, subject: str | None, now: datetime
    ) -> int:
        """Revoke what matches both (None matches all); answers how many were revoked."""
        change = update(portal_tokens).where(
            portal_tokens.c.namespace == namespace, portal_tokens.c.revoked_at.is_(None)
        )
        if token_id is not None:
            change = change.where(portal_tokens.c.id == token_id)
        if subject is not None:
            change = change.where(portal_tokens.c.subject == subject)
        async with self._database.transaction() as conn:
            return (await conn.execute(change.values(revoked_at=now))).rowcount


def _token(row: Row[Any]) -> PortalToken:
    slugs = row.allowed_meter_slugs
    return PortalToken(
        id=row.id,
        namespace=row.namespace,
        subject=row.subject,
        allowed_meter_slugs=None if slugs is None else tuple(slugs),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
