"""Grants, of an entitlement and of all, as OpenMeter v1 has them."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from entitlements.api.encode import grant_json
from entitlements.api.exact import ExactRoute
from entitlements.api.parameters import Admin, GrantListParameters, Reader, listed, ok
from entitlements.api.views import GrantPage, GrantView
from entitlements.api.wire import GrantBody, Instant, Name
from entitlements.services.grants import GrantService
from meterline.web.json import ExactJSONResponse

_OF_ENTITLEMENT = "/subjects/{subject:path}/entitlements/{entitlement}/grants"


def router(service: GrantService) -> APIRouter:
    """`…/grants` and `/api/v1/grants` over a service."""
    api = APIRouter(
        prefix="/api/v1",
        tags=["Entitlements"],
        default_response_class=ExactJSONResponse,
        route_class=ExactRoute,
    )

    @api.get(_OF_ENTITLEMENT, responses=ok(list[GrantView]))
    async def list_entitlement_grants(
        principal: Reader, subject: Name, entitlement: Name
    ) -> Response:
        """List the grants of an entitlement, oldest first, ended ones included."""
        found = await service.of_entitlement(principal.namespace, subject, entitlement)
        now = service.now()
        return ExactJSONResponse([grant_json(one, now) for one in found])

    @api.post(_OF_ENTITLEMENT, status_code=201, responses=ok(GrantView, 201))
    async def create_grant(
        principal: Admin, subject: Name, entitlement: Name, body: GrantBody
    ) -> Response:
        """Issue a grant. It may start in the past: then what came after is counted again."""
        made = await service.create(principal.namespace, subject, entitlement, body.spec())
        return ExactJSONResponse(grant_json(made, service.now()), status_code=201)

    @api.get("/grants", responses=ok(list[GrantView] | GrantPage))
    async def list_grants(
        principal: Reader, request: Request, given: Annotated[GrantListParameters, Query()]
    ) -> Response:
        """List the grants of all entitlements: an array, or with `page` an object."""
        page = given.as_page(service.limits)
        found, total = await service.list(
            principal.namespace,
            page,
            subjects=given.subjects,
            features=given.features,
            include_ended=given.include_deleted,
        )
        now = service.now()
        return listed(request, [grant_json(one, now) for one in found], total, page)

    @api.delete("/grants/{grant_id}", status_code=204)
    async def void_grant(
        principal: Admin,
        grant_id: Name,
        at: Annotated[
            Instant | None,
            Query(description="In the current usage period, not in the future; now if absent."),
        ] = None,
    ) -> None:
        """Void a grant: it ends. What it has paid stays paid."""
        await service.void(principal.namespace, grant_id, at)

    return api
