# Written by sdk/unasync.py from _async/resources/plans.py: change that file.
"""Plans, who has which, bans, what was used, and payments."""

from collections.abc import Mapping
from typing import Any

from meterline_sdk._json import body, camel
from meterline_sdk._request import segment
from meterline_sdk._sync._resource import Resource
from meterline_sdk.models import Assignment, Page, Plan, PlanChange, StripeEvent, UsageTotals

_PLANS = "/api/v1/plans"


class Plans(Resource):
    """`/api/v1/plans`, and the plan of a subject."""

    def create(self, key: str, **terms: Any) -> Plan:
        """Make a plan. All terms may be absent; a limit that is absent does not limit.

        `name`, `description`, `monthly_token_limit`, `monthly_cost_limit_usd`,
        `requests_per_minute`, `requests_per_hour`, `requests_per_day`, `tokens_per_minute`,
        `credit_allocation={"interval": "MONTH", "amount": 100, "maxRollover": 50}`,
        `features=[{"featureKey": …, "type": …}]`, `stripe_price_ids`, `credits_per_payment`,
        `metadata`.
        """
        return self._make(Plan, _PLANS, body(key=key, **terms))

    def list(self, *, limit: int | None = None, cursor: str | None = None) -> Page[Plan]:
        """Plans by key."""
        return self._page(Plan, _PLANS, limit=limit, cursor=cursor)

    def get(self, key: str) -> Plan:
        """One plan."""
        return self._get(Plan, _plan(key))

    def replace(self, key: str, **terms: Any) -> Plan:
        """Set all of a plan, terms as of `create`; what its subjects may do changes at once."""
        return self._change(Plan, "PUT", _plan(key), _named(terms))

    def update(self, key: str, **terms: Any) -> Plan:
        """Change some terms of a plan; None takes a limit away."""
        return self._change(Plan, "PATCH", _plan(key), _named(terms))

    def delete(self, key: str) -> None:
        """Remove a plan that nobody has."""
        self._delete(_plan(key))

    def subjects(
        self, key: str, *, limit: int | None = None, cursor: str | None = None
    ) -> Page[str]:
        """The keys of the subjects that have a plan."""
        return self._page(str, _plan(key, "subjects"), limit=limit, cursor=cursor)

    def assign(
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
        return self._change(Assignment, "PUT", _of(subject, "plan"), asked)

    def of(self, subject: str) -> Assignment:
        """The plan of a subject, with its overrides and the limits that hold."""
        return self._get(Assignment, _of(subject, "plan"))

    def remove(self, subject: str) -> None:
        """Take a subject's plan and overrides away."""
        self._delete(_of(subject, "plan"))

    def history(
        self, subject: str, *, limit: int | None = None, cursor: str | None = None
    ) -> Page[PlanChange]:
        """What happened to a subject, newest first: plans, overrides, bans."""
        path = _of(subject, "plan", "history")
        return self._page(PlanChange, path, limit=limit, cursor=cursor)

    def ban(self, subject: str, reason: str = "") -> Assignment:
        """Refuse a subject everything."""
        return self._make(Assignment, _of(subject, "ban"), body(reason=reason))

    def unban(self, subject: str, reason: str = "") -> Assignment:
        """Let a subject in again."""
        return self._make(Assignment, _of(subject, "unban"), body(reason=reason))

    def summary(self, subject: str | None = None, *, wait: bool | None = None) -> UsageTotals:
        """Cost, requests and tokens, of all time and of this month: of a subject, or of all.

        With `wait`, everything that was recorded before is counted.
        """
        path = "/api/v1/usage-summary" if subject is None else _of(subject, "usage-summary")
        return self._get(UsageTotals, path, wait=wait)


class Stripe(Resource):
    """`/api/v1/stripe`: what came from Stripe."""

    def events(
        self,
        *,
        outcome: str | None = None,
        subject: str | None = None,
        offset: int | str = 0,
        limit: int = 100,
    ) -> Page[StripeEvent]:
        """Stripe's events and what became of each, newest first."""
        found = self._page(
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
