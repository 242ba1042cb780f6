"""Making, listing and revoking API keys, and the HTTP API for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, Protocol

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from meterline.kernel.access import ApiKey, make_key
from meterline.kernel.clock import Clock
from meterline.kernel.errors import ConflictError, NotFoundError
from meterline.kernel.text import TEXT_PATTERN
from meterline.web.auth import Authenticator, KeyLookup, Principal, requires
from meterline.web.json import ExactJSONResponse


class KeyStore(KeyLookup, Protocol):
    """Where keys are kept and managed."""

    async def add(self, key: ApiKey) -> None:
        """Keep a new key."""
        ...

    async def list(self, namespace: str | None) -> Sequence[ApiKey]:
        """The keys that are not revoked, of one namespace or of all, oldest first."""
        ...

    async def revoke(self, namespace: str | None, key_id: str, now: datetime) -> bool:
        """Revoke a key of a namespace (of any, when None). False when there is no such key."""
        ...


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """How many keys there may be."""

    max_keys: int = 1_000
    """Keys in use in one namespace."""


class KeyService:
    """What can be done with keys; the API and the command line use the same one."""

    def __init__(
        self,
        store: KeyStore,
        clock: Clock,
        authenticator: Authenticator | None = None,
        limits: KeyLimits | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._authenticator = authenticator
        self._limits = limits or KeyLimits()

    async def create(
        self, namespace: str, scopes: Sequence[str], name: str = ""
    ) -> tuple[ApiKey, str]:
        """A new key and its text. The text is nowhere kept: show it now or never."""
        key, text = make_key(namespace, name, scopes, self._clock())
        if len(await self._store.list(namespace)) >= self._limits.max_keys:
            raise ConflictError(f"the namespace has {self._limits.max_keys} keys: revoke some")
        await self._store.add(key)
        self._forget()
        return key, text

    async def list(self, namespace: str | None = None) -> Sequence[ApiKey]:
        """The keys in use, of one namespace or of all, oldest first."""
        return await self._store.list(namespace)

    async def revoke(self, key_id: str, namespace: str | None = None) -> None:
        """Revoke a key for good; every process sees it within a second."""
        if not await self._store.revoke(namespace, key_id, self._clock()):
            raise NotFoundError("there is no such API key")
        self._forget()

    def _forget(self) -> None:
        if self._authenticator is not None:
            self._authenticator.forget()


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class KeyCreate(_Wire):
    """A key to make, in the caller's namespace."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        default="",
        max_length=256,
        description="What it is for.",
        json_schema_extra={"pattern": TEXT_PATTERN},
    )
    scopes: list[Literal["ingest", "read", "admin", "portal:issue"]] = Field(
        min_length=1, max_length=16, description="What it may do; `admin` implies the others."
    )


class KeyView(_Wire):
    """A key, as far as it can be shown."""

    id: str
    name: str
    prefix: str = Field(description="The key's first characters, to tell keys apart.")
    namespace: str
    scopes: list[str]
    created_at: datetime


class KeyCreated(KeyView):
    """A new key with its text."""

    key: str = Field(description="The key itself. It is shown this one time.")


Admin = Annotated[Principal, Depends(requires("admin"))]


def router(service: KeyService) -> APIRouter:
    """`/api/v1/keys`, for administrators of a namespace."""
    api = APIRouter(
        prefix="/api/v1/keys", tags=["API keys"], default_response_class=ExactJSONResponse
    )

    @api.get("")
    async def list_keys(principal: Admin) -> list[KeyView]:
        """List the keys of the namespace that are in use."""
        return [KeyView(**_shown(key)) for key in await service.list(principal.namespace)]

    @api.post("", status_code=201)
    async def create_key(principal: Admin, body: KeyCreate) -> KeyCreated:
        """Make a key. The answer is the only place where it is ever shown.

        The first key closes an open server: from then on, every request needs one.
        """
        key, text = await service.create(principal.namespace, body.scopes, body.name)
        return KeyCreated(**_shown(key), key=text)

    @api.delete("/{key_id}", status_code=204, response_class=Response)
    async def revoke_key(principal: Admin, key_id: str) -> None:
        """Revoke a key. It stops working within a second."""
        await service.revoke(key_id, principal.namespace)

    return api


def _shown(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "namespace": key.namespace,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
    }
