"""The API that the published client `parmot` speaks, over our plans, checks and records.

Set `PARMOT_API_BASE_URL` to this server and `PARMOT_API_KEY` to one of its keys. Differences from
what that client may have been used to: costs are computed from our prices, not taken from the
client, whose own table prices unknown models as another one; what the client says is kept as
metadata of the record. Cached tokens are counted where our own clients report them.
"""

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from entitlements.api.exact import ExactRoute, with_decimals
from entitlements.api.parameters import Admin, Reader
from entitlements.api.wire import Name, Text
from entitlements.builtin import COST, INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS
from entitlements.plans import decide
from entitlements.plans.api.encode import number
from entitlements.plans.api.wire import Count, Money
from entitlements.plans.checks import CheckRequest, CheckService
from entitlements.plans.members import Assignment, MemberService
from entitlements.plans.model import Decision, Estimate, Limits, Outcome, Plan, PlanSpec
from entitlements.plans.service import PlanService
from entitlements.plans.summary import SummaryService
from entitlements.specs import fault
from meterline.kernel.errors import MeterlineError, NotFoundError, UnavailableError
from meterline.kernel.instants import format_instant
from meterline.pricing.usage import MOST, TokenUsage, usage_of
from meterline.web.json import ExactJSONResponse

_WINDOWS = {"requestsPerMinute": "minute", "requestsPerHour": "hour", "requestsPerDay": "day"}
_KINDS = {decide.MONTHLY_TOKENS: "tokens", decide.MONTHLY_COST: "cost"}
_FIELDS = {
    "monthly_token_limit": "monthly_tokens",
    "monthly_cost_limit": "monthly_cost_usd",
    "rate_limit_per_minute": "requests_per_minute",
    "rate_limit_per_hour": "requests_per_hour",
    "rate_limit_per_day": "requests_per_day",
}


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore")


class PlanFields(_Wire):
    """Limits of a plan; null says nothing, as the client sends it for whatever was not given."""

    monthly_token_limit: Count | None = None
    monthly_cost_limit: Money | None = None
    rate_limit_per_minute: Count | None = None
    rate_limit_per_hour: Count | None = None
    rate_limit_per_day: Count | None = None
    description: Text | None = Field(None, max_length=4_096)

    def changed(self, before: PlanSpec) -> PlanSpec:
        """`before` with what is said."""
        limits: dict[str, Any] = {}
        for name, ours in _FIELDS.items():
            value = getattr(self, name)
            if value is not None:
                limits[ours] = Decimal(value) if ours == "monthly_tokens" else value
        description = before.description if self.description is None else self.description
        return replace(before, description=description, limits=before.limits.overridden(limits))


class NewPlan(PlanFields):
    """A plan to make."""

    name: Text = Field(min_length=1, max_length=128)


class EndUser(_Wire):
    """Whom it is about."""

    end_user_id: Text = Field(min_length=1)


class Record(EndUser):
    """A call of a model, as the client saw it."""

    model: Text = Field(max_length=256)
    provider: Text | None = Field(None, max_length=64)
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count | None = None
    input_cost: Any = None
    output_cost: Any = None
    total_cost: Any = None

    def usage(self) -> TokenUsage:
        """What the call used."""
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        for name, count in counts.items():
            if count >= MOST:
                raise fault(name, f"must be less than {MOST:f}")
        return usage_of(
            {
                "input_tokens": Decimal(self.prompt_tokens),
                "output_tokens": Decimal(self.completion_tokens),
                "requests": Decimal(1),
            }
        )

    def said(self) -> dict[str, str]:
        """What the client says that we know better."""
        said, cost = {"client": "parmot"}, with_decimals(self.total_cost)
        if isinstance(cost, int | Decimal) and not isinstance(cost, bool):
            said["clientTotalCost"] = str(cost)[:64]
        return said


class Recorder(Protocol):
    """Records usage. The server fills it."""

    async def record(
        self,
        namespace: str,
        subject: str,
        *,
        model: str,
        provider: str | None,
        usage: TokenUsage,
        metadata: dict[str, str],
    ) -> Decimal | None:
        """Make a call's usage durable; answers what it costs, None without a price."""
        ...


Wait = Callable[[], Awaitable[None]]
"""Returns when acknowledged usage is counted."""


class _ErrorRoute(ExactRoute):
    """Answers errors as this client reads them: `{"error": "…"}`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answering(request: Request) -> Response:
            try:
                return await handler(request)
            except MeterlineError as error:
                return _error(error.status, error.detail or error.title)
            except RequestValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(step) for step in first.get("loc", ())[1:])
                return _error(400, f"{where}: {first.get('msg', 'invalid')}")
            except HTTPException as error:
                return _error(error.status_code, str(error.detail))

        return answering


def router(
    plans: PlanService,
    members: MemberService,
    checks: CheckService,
    summaries: SummaryService,
    recorder: Recorder,
    wait: Wait,
) -> APIRouter:
    """The routes of that client. They are not part of `/api/v1`."""
    api = APIRouter(
        prefix="/api",
        tags=["parmot"],
        default_response_class=ExactJSONResponse,
        route_class=_ErrorRoute,
        include_in_schema=False,
    )
    _add_usage(api, checks, summaries, recorder, wait)
    _add_plans(api, plans)
    _add_members(api, members)
    return api


def _add_usage(
    api: APIRouter,
    checks: CheckService,
    summaries: SummaryService,
    recorder: Recorder,
    wait: Wait,
) -> None:
    @api.post("/end-user-usage/record", status_code=201)
    async def record(principal: Admin, body: Record) -> Response:
        """Record a call; 402 or 429 when it passes a limit. It is recorded then, too."""
        usage = body.usage()
        with suppress(UnavailableError):
            await wait()
        decision = await checks.check(principal.namespace, CheckRequest(body.end_user_id))
        cost = await recorder.record(
            principal.namespace,
            body.end_user_id,
            model=body.model,
            provider=body.provider,
            usage=usage,
            metadata=body.said(),
        )
        if decision.allowed:
            used = Estimate(usage.total_tokens, cost)
            months = [one for one in decision.limits if one.name in _KINDS]
            decision = replace(decision, refusal=decide.over_usage(months, used))
        if not decision.allowed:
            return _refused(decision)
        return ExactJSONResponse({"success": True}, status_code=201)

    @api.post("/end-user-usage/check-limits")
    async def check_limits(principal: Reader, body: EndUser) -> Response:
        """Whether an end user may go on. Nothing is used."""
        await wait()
        asked = CheckRequest(body.end_user_id, consume=False)
        decision = await checks.check(principal.namespace, asked)
        return ExactJSONResponse({"allowed": True}) if decision.allowed else _refused(decision)

    @api.get("/end-user-usage/summary")
    async def summary(
        principal: Reader, end_user_id: Annotated[Name | None, Query()] = None
    ) -> Response:
        """What an end user has used, or all of them."""
        found = await summaries.read(principal.namespace, end_user_id, wait=True)
        total, month = found.total, found.month
        return ExactJSONResponse(
            {
                "end_user_id": end_user_id,
                "total_requests": number(total.total(REQUESTS)),
                "total_cost": number(total.total(COST)),
                "total_tokens": number(total.total(TOKENS)),
                "total_prompt_tokens": number(total.total(INPUT_TOKENS)),
                "total_completion_tokens": number(total.total(OUTPUT_TOKENS)),
                "current_month_requests": number(month.total(REQUESTS)),
                "current_month_cost": number(month.total(COST)),
                "current_month_tokens": number(month.total(TOKENS)),
            }
        )


def _add_plans(api: APIRouter, plans: PlanService) -> None:
    @api.get("/end-user-plans")
    async def list_plans(principal: Reader) -> Response:
        """All plans."""
        most = plans.options.max_plans
        found = await plans.list(principal.namespace, None, most)
        return ExactJSONResponse({"plans": [_plan(one) for one in found]})

    @api.post("/end-user-plans", status_code=201)
    async def create_plan(principal: Admin, body: NewPlan) -> Response:
        """Make a plan; its name is its key."""
        spec = body.changed(PlanSpec(body.name, body.name, limits=Limits()))
        made = await plans.create(principal.namespace, spec)
        return ExactJSONResponse({"plan_id": made.number}, status_code=201)

    @api.get("/end-user-plans/{name:path}")
    async def get_plan(principal: Reader, name: Name) -> Response:
        """A plan."""
        return ExactJSONResponse(_plan(await plans.get(principal.namespace, name)))

    @api.put("/end-user-plans/{name:path}")
    async def update_plan(principal: Admin, name: Name, body: PlanFields) -> Response:
        """Change a plan; what is null stays as it is."""
        changed = await plans.change(principal.namespace, name, body.changed)
        return ExactJSONResponse(_plan(changed))

    @api.delete("/end-user-plans/{name:path}")
    async def delete_plan(principal: Admin, name: Name) -> Response:
        """Delete a plan that no end user has."""
        await plans.delete(principal.namespace, name)
        return ExactJSONResponse({"success": True})


def _add_members(api: APIRouter, members: MemberService) -> None:
    @api.post("/end-user-plans/remove")
    async def remove(principal: Admin, body: EndUser) -> Response:
        """Take an end user's plan away."""
        await members.remove(principal.namespace, body.end_user_id, source="parmot")
        return ExactJSONResponse({"success": True})

    @api.post("/end-user-plans/{name:path}/assign")
    async def assign(principal: Admin, name: Name, body: EndUser) -> Response:
        """Give an end user a plan."""
        wanted = Assignment(name, source="parmot")
        await members.assign(principal.namespace, body.end_user_id, wanted)
        return ExactJSONResponse({"success": True})

    @api.get("/end-users/{end_user_id:path}/plan")
    async def get_assignment(principal: Reader, end_user_id: Name) -> Response:
        """The plan of an end user, with what is overridden for it."""
        found = await members.get(principal.namespace, end_user_id)
        if found.plan is None:
            raise NotFoundError("the end user has no plan")
        return ExactJSONResponse(_plan(found.plan, found.limits))


def _plan(plan: Plan, limits: Limits | None = None) -> dict[str, Any]:
    holding = plan.spec.limits if limits is None else limits
    values = {name: getattr(holding, ours) for name, ours in _FIELDS.items()}
    return {
        "id": plan.number,
        "name": plan.key,
        **{name: None if value is None else number(value) for name, value in values.items()},
        "description": plan.spec.description,
        "is_active": True,
        "created_at": format_instant(plan.created_at),
        "updated_at": format_instant(plan.updated_at),
    }


def _refused(decision: Decision) -> Response:
    refusal = decision.refusal
    assert refusal is not None
    limit, current = refusal.limit or Decimal(0), refusal.current or Decimal(0)
    match refusal.outcome:
        case Outcome.USAGE:
            return _error(
                402,
                refusal.detail,
                current_usage=number(current),
                limit=number(limit),
                limit_type=_KINDS.get(refusal.limit_type, refusal.limit_type),
            )
        case Outcome.RATE:
            seconds = refusal.retry_after_seconds or 1
            response = _error(
                429,
                refusal.detail,
                current_rate=number(current),
                limit=number(limit),
                window=_WINDOWS.get(refusal.limit_type, "minute"),
                retry_after=seconds,
            )
            response.headers["retry-after"] = str(seconds)
            return response
    return _error(403, refusal.detail)


def _error(status: int, text: str, **more: Any) -> Response:
    return ExactJSONResponse({"error": text, **more}, status_code=status)
