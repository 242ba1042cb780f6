"""API keys in memory, counting how often they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from meterline.kernel.access import ApiKey


@dataclass
class MemoryKeys:
    kept: dict[str, ApiKey] = field(default_factory=dict)
    finds: int = 0

    async def add(self, key: ApiKey) -> None:
        self.kept[key.prefix] = key

    async def find(self, prefix: str) -> ApiKey | None:
        self.finds += 1
        return self.kept.get(prefix)

    async def any_exists(self) -> bool:
        return bool(self.kept)

    async def list(self, namespace: str | None) -> Sequence[ApiKey]:
        return [
            key
            for key in self.kept.values()
            if key.revoked_at is None and namespace in (None, key.namespace)
        ]

    async def revoke(self, namespace: str | None, key_id: str, now: datetime) -> bool:
        for key in await self.list(namespace):
            if key.id == key_id:
                self.kept[key.prefix] = replace(key, revoked_at=now)
                return True
        return False
