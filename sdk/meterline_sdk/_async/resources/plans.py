"""Plans, who has which, bans, what was used, and payments."""

from collections.abc import Mapping
from typing import Any

from meterline_sdk._async._resource import AsyncResource
from meterline_sdk._json import body, camel
from meterline_sdk._request import segment
from meterline_sdk.models import Assignment, Page, Plan, PlanChange, StripeEvent, UsageTotals

_PLANS = "/api/v1/plans"


class AsyncPlans(AsyncResource):
    """`/api/v1/plans`, and the plan of a subject."""

    async def create(self, key: str, **terms: Any) -> Plan:
        """Make a plan. All terms may be absent; a limit that is absent does not limit.

        `name`, `description`, `monthly_token_limit`, `monthly_cost_limit_usd`,
        `requests_per_minute`, `requests_per_hour`, `requests_per_day`, `tokens_per_minute`,
        `credit_allocation={"interval": "MONTH", "amount": 100, "maxRollover": 50}`,
        `features=[{"featureKey": …, "type": …}]`, `stripe_price_ids`, `credits_per_payment`,
        `metadata`.
        """
        return await self._make(Plan, _PLANS, body(key=key, **terms))

    async def list(self, *, limit: int | None = None, cursor: str | None = None) -> Page[Plan]:
        """Plans by key."""
        return await self._page(Plan, _PLANS, limit=limit, cursor=cursor)

    async def get(self, key: str) -> Plan:
        """One plan."""
        return await self._get(Plan, _plan(key))

    async def replace(self, key: str, **terms: Any) -> Plan:
        """Set all of a plan, terms as of `create`; what its subjects may do changes at once."""
        return await self._change(Plan, "PUT", _plan(key), _named(terms))

    async def update(self, key: str, **terms: Any) -> Plan:
        """Change some terms of a plan; None takes a limit away."""
        return await self._change(Plan, "PATCH", _plan(key), _named(terms))

    async def delete(self, key: str) -> None:
        """Remove a plan that nobody has."""
        await self._delete(_plan(key))

    async def subjects(
        self, key: str, *, limit: int | None = None, cursor: str | None = None
    ) -> Page[str]:
        """The keys of the subjects that have a plan."""
        return await self._page(str, _plan(key, "subjects"), limit=limit, cursor=cursor)

    async def assign(
        self,
        subject: str,
        plan: str | None = None,
        *,
        overrides: Mapping[str, Any] | None = None,
        reset_balance: bool | None = None,
        reason: str | None = None,
    ) -> Assignment:
        """Give a subject a plan, at once.

        `overrides` are limits of this subject alone, by their names in Python; None takes a
        limit away. `reset_balance` starts the plan's credits afresh.
        """
        limits = None if overrides is None else _named(overrides)
        asked = body(plan=plan, overrides=limits, reset_balance=reset_balance, reason=reason)
        return await self._change(Assignment, "PUT", _of(subject, "plan"), asked)

    async def of(self, subject: str) -> Assignment:
        """The plan of a subject, with its overrides and the limits that hold."""
        return await self._get(Assignment, _of(subject, "plan"))

    async def remove(self, subject: str) -> None:
        """Take a subject's plan and overrides away."""
        await self._delete(_of(subject, "plan"))

    async def history(
        self, subject: str, *, limit: int | None = None, cursor: str | None = None
    ) -> Page[PlanChange]:
        """What happened to a subject, newest first: plans, overrides, bans."""
        path = _of(subject, "plan", "history")
        return await self._page(PlanChange, path, limit=limit, cursor=cursor)

    async def ban(self, subject: str, reason: str = "") -> Assignment:
        """Refuse a subject everything."""
        return await self._make(Assignment, _of(subject, "ban"), body(reason=reason))

    async def unban(self, subject: str, reason: str = "") -> Assignment:
        """Let a subject in again."""
        return await self._make(Assignment, _of(subject, "unban"), body(reason=reason))

    async def summary(self, subject: str | None = None, *, wait: bool | None = None) -> UsageTotals:
        """Cost, requests and tokens, of all time and of this month: of a subject, or of all.

        With `wait`, everything that was recorded before is counted.
        """
        path = "/api/v1/usage-summary" if subject is None else _of(subject, "usage-summary")
        return await self._get(UsageTotals, path, wait=wait)


class AsyncStripe(AsyncResource):
    """`/api/v1/stripe`: what came from Stripe."""

    async def events(
        self,
        *,
        outcome: str | None = None,
        subject: str | None = None,
        offset: int | str = 0,
        limit: int = 100,
    ) -> Page[StripeEvent]:
        """Stripe's events and what became of each, newest first."""
        found = await self._page(
            StripeEvent,
            "/api/v1/stripe/events",
            outcome=outcome,
            subject=subject,
            offset=offset,
            limit=limit,
        )
        if len(found) == limit:
            found.following = {"offset": str(int(offset) + limit)}
        return found


def _named(terms: Mapping[str, Any]) -> dict[str, Any]:
    return {camel(name): value for name, value in terms.items()}


def _plan(*rest: str) -> str:
    return "/".join([_PLANS, *map(segment, rest)])


def _of(subject: str, *rest: str) -> str:
    return "/".join(["/api/v1/subjects", segment(subject), *rest])
