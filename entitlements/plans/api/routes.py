"""`/api/v1/plans`, and the plan of a subject."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor

from entitlements.api.exact import ExactRoute
from entitlements.api.parameters import Admin, Reader, ok, refusals
from entitlements.api.wire import Name, example_path, subject_path
from entitlements.limits import EntitlementLimits
from entitlements.plans.api.encode import Json, history_json, member_json, plan_json
from entitlements.plans.api.views import HappeningView, MemberView, PlanView, UsageSummaryView
from entitlements.plans.api.wire import PLAN_ADDRESS, AssignmentBody, PlanBody, ReasonBody
from entitlements.plans.members import Assignment, MemberService
from entitlements.plans.model import PlanSpec
from entitlements.plans.options import PlanOptions
from entitlements.plans.service import PlanService
from entitlements.plans.summary import SummaryService
from meterline.kernel.errors import NotFoundError
from meterline.web.json import ExactJSONResponse
from meterline.web.paging import decode_cursor, encode_cursor


class _PlanConvertor(PathConvertor):
    """A key may have slashes, but what is below a plan is not another plan."""

    regex = PLAN_ADDRESS


register_url_convertor("plan", _PlanConvertor())
_SUBJECT = "/subjects/{subject:subject}"
PlanKey = Annotated[Name, example_path("pro")]
_Cursor = Annotated[str | None, Query(description="From the `Link` of the page before.")]


def router(
    plans: PlanService, members: MemberService, summaries: SummaryService, limits: EntitlementLimits
) -> APIRouter:
    """Plans, and what they mean for subjects. It comes before the routes of subjects."""
    api = APIRouter(
        prefix="/api/v1",
        tags=["Plans"],
        default_response_class=ExactJSONResponse,
        route_class=ExactRoute,
    )
    _add_plans(api, plans, limits)
    _add_members(api, members)
    _add_summaries(api, summaries)
    return api


def _add_plans(api: APIRouter, plans: PlanService, limits: EntitlementLimits) -> None:
    options: PlanOptions = plans.options
    longest = options.max_page

    @api.get("/plans", responses=ok(list[PlanView]))
    async def list_plans(
        principal: Reader,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=longest)] = 100,
        cursor: _Cursor = None,
    ) -> Response:
        """List plans by key."""
        after = None if cursor is None else str(decode_cursor(cursor, [str])[0])
        found = await plans.list(principal.namespace, after, limit)
        last = found[-1].key if len(found) == limit else None
        return _page(request, [plan_json(one) for one in found], last)

    @api.post("/plans", status_code=201, responses=ok(PlanView, 201))
    async def create_plan(principal: Admin, body: PlanBody) -> Response:
        """Make a plan. 409 while another one has its key, or one of its prices."""
        made = await plans.create(principal.namespace, body.spec(options, limits))
        return ExactJSONResponse(plan_json(made), status_code=201)

    @api.get("/plans/{plan:path}/subjects", responses=ok(list[str]))
    async def list_plan_subjects(
        principal: Reader,
        request: Request,
        plan: PlanKey,
        limit: Annotated[int, Query(ge=1, le=longest)] = 100,
        cursor: _Cursor = None,
    ) -> Response:
        """List the keys of the subjects that have a plan."""
        after = None if cursor is None else str(decode_cursor(cursor, [str])[0])
        found = await plans.subjects(principal.namespace, plan, after, limit)
        return _page(request, list(found), found[-1] if len(found) == limit else None)

    @api.get("/plans/{plan:plan}", responses=ok(PlanView))
    async def get_plan(principal: Reader, plan: PlanKey) -> Response:
        """Get a plan."""
        return ExactJSONResponse(plan_json(await plans.get(principal.namespace, plan)))

    @api.put("/plans/{plan:plan}", responses=ok(PlanView, 200, 409))
    async def replace_plan(principal: Admin, plan: PlanKey, body: PlanBody) -> Response:
        """Change all of a plan but its key. It acts on its subjects from now on."""

        def change(before: PlanSpec) -> PlanSpec:
            return body.changed(PlanSpec(before.key, before.key), options, limits)

        return ExactJSONResponse(plan_json(await plans.change(principal.namespace, plan, change)))

    @api.patch("/plans/{plan:plan}", responses=ok(PlanView, 200, 409))
    async def change_plan(principal: Admin, plan: PlanKey, body: PlanBody) -> Response:
        """Change what the body names; null takes away. It acts on its subjects from now on."""
        changed = await plans.change(
            principal.namespace, plan, lambda before: body.changed(before, options, limits)
        )
        return ExactJSONResponse(plan_json(changed))

    @api.delete(
        "/plans/{plan:plan}", status_code=204, response_class=Response, responses=refusals(409)
    )
    async def delete_plan(principal: Admin, plan: PlanKey) -> None:
        """Delete a plan. 409 while a subject has it."""
        await plans.delete(principal.namespace, plan)


def _add_members(api: APIRouter, members: MemberService) -> None:
    options = members.options
    most, longest = options.max_subject_length, options.max_page

    @api.get(_SUBJECT + "/plan/history", responses=ok(list[HappeningView]))
    async def list_plan_history(
        principal: Reader,
        request: Request,
        subject: Annotated[Name, subject_path(most)],
        limit: Annotated[int, Query(ge=1, le=longest)] = 100,
        cursor: _Cursor = None,
    ) -> Response:
        """List what happened to a subject, newest first: plans, overrides, bans."""
        before = None if cursor is None else str(decode_cursor(cursor, [str])[0])
        found = await members.history(principal.namespace, subject, before, limit)
        last = found[-1].id if len(found) == limit else None
        return _page(request, [history_json(one) for one in found], last)

    @api.get(_SUBJECT + "/plan", responses=ok(MemberView))
    async def get_subject_plan(
        principal: Reader, subject: Annotated[Name, subject_path(most)]
    ) -> Response:
        """Get a subject's plan, its overrides, the limits that hold, and whether it is banned."""
        found = await members.get(principal.namespace, subject)
        if found.plan is None and found.ban is None:
            raise NotFoundError("the subject has no plan")
        return ExactJSONResponse(member_json(found))

    @api.put(_SUBJECT + "/plan", responses=ok(MemberView, 200, 409))
    async def assign_plan(
        principal: Admin, subject: Annotated[Name, subject_path(most)], body: AssignmentBody
    ) -> Response:
        """Give a subject a plan, change its overrides, or both; at once."""
        overrides = None if body.overrides is None else body.overrides.given(options)
        wanted = Assignment(body.plan, overrides, body.reset_balance, reason=body.reason)
        changed = await members.assign(principal.namespace, subject, wanted)
        return ExactJSONResponse(member_json(changed))

    @api.delete(_SUBJECT + "/plan", status_code=204, response_class=Response)
    async def remove_plan(principal: Admin, subject: Annotated[Name, subject_path(most)]) -> None:
        """Take a subject's plan and overrides away: nothing limits it then, but its balances."""
        await members.remove(principal.namespace, subject)

    @api.post(_SUBJECT + "/ban", responses=ok(MemberView))
    async def ban_subject(
        principal: Admin,
        subject: Annotated[Name, subject_path(most)],
        body: ReasonBody | None = None,
    ) -> Response:
        """Refuse every check of a subject from now on."""
        reason = body.reason if body else ""
        return ExactJSONResponse(
            member_json(await members.ban(principal.namespace, subject, reason))
        )

    @api.post(_SUBJECT + "/unban", responses=ok(MemberView))
    async def unban_subject(
        principal: Admin,
        subject: Annotated[Name, subject_path(most)],
        body: ReasonBody | None = None,
    ) -> Response:
        """Let a subject's checks be decided by its limits again."""
        reason = body.reason if body else None
        return ExactJSONResponse(
            member_json(await members.unban(principal.namespace, subject, reason))
        )


def _add_summaries(api: APIRouter, summaries: SummaryService) -> None:
    @api.get(_SUBJECT + "/usage-summary", responses=ok(UsageSummaryView))
    async def get_usage_summary(
        principal: Reader, subject: Annotated[Name, example_path("customer-1")], wait: bool = False
    ) -> Response:
        """What a subject has used, in all and this month (UTC), by model."""
        found = await summaries.read(principal.namespace, subject, wait=wait)
        return ExactJSONResponse(found.json())

    @api.get("/usage-summary", responses=ok(UsageSummaryView))
    async def get_total_usage_summary(principal: Reader, wait: bool = False) -> Response:
        """What all subjects have used, in all and this month (UTC), by model."""
        found = await summaries.read(principal.namespace, None, wait=wait)
        return ExactJSONResponse(found.json())


def _page(request: Request, items: list[Json] | list[str], last: str | None) -> Response:
    headers = {}
    if last is not None:
        url = request.url.include_query_params(cursor=encode_cursor([last]))
        headers["link"] = f'<{url.path}?{url.query}>; rel="next"'
    return ExactJSONResponse(items, headers=headers)
