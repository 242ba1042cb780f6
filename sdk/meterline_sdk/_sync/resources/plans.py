# Written by sdk/unasync.py from _async/resources/plans.py: change that file.
"""Plans, who has which, bans, and what was used."""

from collections.abc import Mapping, Sequence
from typing import Any

from meterline_sdk._json import body
from meterline_sdk._request import segment
from meterline_sdk._sync._resource import Resource

Json = Mapping[str, Any]


class Plans(Resource):
    """`/api/v1/plans`, and the plan of a subject."""

    def create(self, key: str, **terms: Any) -> Json:
        """Make a plan: `monthly_token_limit`, `requests_per_minute`, `credit_allocation`, …"""
        made: Json = self._send("POST", "/api/v1/plans", body(key=key, **terms))
        return made

    def list(self, **parameters: Any) -> Sequence[Json]:
        """All plans."""
        found = self._get("/api/v1/plans", **parameters)
        items: Sequence[Json] = found["items"] if isinstance(found, Mapping) else found
        return items

    def get(self, key: str) -> Json:
        """One plan."""
        found: Json = self._get(f"/api/v1/plans/{segment(key)}")
        return found

    def replace(self, key: str, **terms: Any) -> Json:
        """Change a plan; what its subjects may do changes at once."""
        path = f"/api/v1/plans/{segment(key)}"
        made: Json = self._send("PUT", path, body(**terms))
        return made

    def delete(self, key: str) -> None:
        """Remove a plan that nobody has."""
        self._delete(f"/api/v1/plans/{segment(key)}")

    def assign(self, subject: str, plan: str, **terms: Any) -> Json:
        """Give a subject a plan, with `overrides` of single limits if it needs them."""
        made: Json = self._send("PUT", _of(subject, "plan"), body(plan=plan, **terms))
        return made

    def of(self, subject: str) -> Json:
        """The plan of a subject, with its overrides."""
        found: Json = self._get(_of(subject, "plan"))
        return found

    def remove(self, subject: str) -> None:
        """Take a subject's plan away."""
        self._delete(_of(subject, "plan"))

    def ban(self, subject: str, reason: str = "") -> Json:
        """Refuse a subject everything."""
        made: Json = self._send("POST", _of(subject, "ban"), body(reason=reason))
        return made

    def unban(self, subject: str, reason: str = "") -> Json:
        """Let a subject in again."""
        made: Json = self._send("POST", _of(subject, "unban"), body(reason=reason))
        return made

    def summary(self, subject: str | None = None, **parameters: Any) -> Json:
        """Cost, requests and tokens, of all time and of this month: of a subject, or of all."""
        path = "/api/v1/usage-summary" if subject is None else _of(subject, "usage-summary")
        found: Json = self._get(path, **parameters)
        return found


def _of(subject: str, *rest: str) -> str:
    return "/".join(["/api/v1/subjects", segment(subject), *rest])
