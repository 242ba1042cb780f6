"""Plans, who has which, bans, and what was used."""

from collections.abc import Mapping, Sequence
from typing import Any

from meterline_sdk._async._resource import AsyncResource
from meterline_sdk._json import body
from meterline_sdk._request import segment

Json = Mapping[str, Any]


class AsyncPlans(AsyncResource):
    """`/api/v1/plans`, and the plan of a subject."""

    async def create(self, key: str, **terms: Any) -> Json:
        """Make a plan: `monthly_token_limit`, `requests_per_minute`, `credit_allocation`, …"""
        made: Json = await self._send("POST", "/api/v1/plans", body(key=key, **terms))
        return made

    async def list(self, **parameters: Any) -> Sequence[Json]:
        """All plans."""
        found = await self._get("/api/v1/plans", **parameters)
        items: Sequence[Json] = found["items"] if isinstance(found, Mapping) else found
        return items

    async def get(self, key: str) -> Json:
        """One plan."""
        found: Json = await self._get(f"/api/v1/plans/{segment(key)}")
        return found

    async def replace(self, key: str, **terms: Any) -> Json:
        """Change a plan; what its subjects may do changes at once."""
        path = f"/api/v1/plans/{segment(key)}"
        made: Json = await self._send("PUT", path, body(**terms))
        return made

    async def delete(self, key: str) -> None:
        """Remove a plan that nobody has."""
        await self._delete(f"/api/v1/plans/{segment(key)}")

    async def assign(self, subject: str, plan: str, **terms: Any) -> Json:
        """Give a subject a plan, with `overrides` of single limits if it needs them."""
        made: Json = await self._send("PUT", _of(subject, "plan"), body(plan=plan, **terms))
        return made

    async def of(self, subject: str) -> Json:
        """The plan of a subject, with its overrides."""
        found: Json = await self._get(_of(subject, "plan"))
        return found

    async def remove(self, subject: str) -> None:
        """Take a subject's plan away."""
        await self._delete(_of(subject, "plan"))

    async def ban(self, subject: str, reason: str = "") -> Json:
        """Refuse a subject everything."""
        made: Json = await self._send("POST", _of(subject, "ban"), body(reason=reason))
        return made

    async def unban(self, subject: str, reason: str = "") -> Json:
        """Let a subject in again."""
        made: Json = await self._send("POST", _of(subject, "unban"), body(reason=reason))
        return made

    async def summary(self, subject: str | None = None, **parameters: Any) -> Json:
        """Cost, requests and tokens, of all time and of this month: of a subject, or of all."""
        path = "/api/v1/usage-summary" if subject is None else _of(subject, "usage-summary")
        found: Json = await self._get(path, **parameters)
        return found


def _of(subject: str, *rest: str) -> str:
    return "/".join(["/api/v1/subjects", segment(subject), *rest])
