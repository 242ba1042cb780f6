"""Entitlements, of a subject and of all, as OpenMeter v1 has them."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from entitlements.api.encode import entitlement_json
from entitlements.api.exact import ExactRoute
from entitlements.api.parameters import (
    Admin,
    EndedListParameters,
    EntitlementListParameters,
    Reader,
    listed,
    ok,
)
from entitlements.api.views import EntitlementPage, EntitlementView
from entitlements.api.wire import EntitlementBody, Name, ResetBody
from entitlements.model import EntitlementType
from entitlements.services.entitlements import EntitlementService
from meterline.web.json import ExactJSONResponse

_OF_SUBJECT = "/subjects/{subject:path}/entitlements"
_ONE = _OF_SUBJECT + "/{entitlement}"


def router(service: EntitlementService) -> APIRouter:
    """`/api/v1/subjects/{subject}/entitlements` and `/api/v1/entitlements` over a service.

    `{entitlement}` is an entitlement's id, a feature's id or a feature's key.
    """
    api = APIRouter(
        prefix="/api/v1",
        tags=["Entitlements"],
        default_response_class=ExactJSONResponse,
        route_class=ExactRoute,
    )
    limits = service.limits

    @api.get(_OF_SUBJECT, responses=ok(list[EntitlementView] | EntitlementPage))
    async def list_subject_entitlements(
        principal: Reader,
        request: Request,
        subject: Name,
        given: Annotated[EndedListParameters, Query()],
    ) -> Response:
        """List a subject's entitlements, oldest first."""
        page = given.as_page(limits)
        found, total = await service.list(
            principal.namespace, page, subjects=[subject], include_ended=given.include_deleted
        )
        return listed(request, [entitlement_json(one) for one in found], total, page)

    @api.post(_OF_SUBJECT, status_code=201, responses=ok(EntitlementView, 201))
    async def create_entitlement(
        principal: Admin, subject: Name, body: EntitlementBody
    ) -> Response:
        """Entitle a subject to a feature. 409 while it has an entitlement for that feature."""
        made = await service.create(principal.namespace, subject, body.spec(limits))
        return ExactJSONResponse(entitlement_json(made), status_code=201)

    @api.put(_ONE + "/override", status_code=201, responses=ok(EntitlementView, 201))
    async def override_entitlement(
        principal: Admin, subject: Name, entitlement: Name, body: EntitlementBody
    ) -> Response:
        """End an entitlement and start another one for the same feature at the same instant."""
        made = await service.override(principal.namespace, subject, entitlement, body.spec(limits))
        return ExactJSONResponse(entitlement_json(made), status_code=201)

    @api.post(_ONE + "/reset", status_code=204)
    async def reset_entitlement_usage(
        principal: Admin, subject: Name, entitlement: Name, body: ResetBody | None = None
    ) -> None:
        """Start a new usage period: grants roll over, and usage starts again at 0."""
        spec = (body or ResetBody()).spec()
        await service.reset(principal.namespace, subject, entitlement, spec)

    @api.get(_ONE, responses=ok(EntitlementView))
    async def get_entitlement(principal: Reader, subject: Name, entitlement: Name) -> Response:
        """Get an entitlement; one that was deleted by its id only."""
        found = await service.get(principal.namespace, subject, entitlement)
        return ExactJSONResponse(entitlement_json(found))

    @api.delete(_ONE, status_code=204)
    async def delete_entitlement(principal: Admin, subject: Name, entitlement: Name) -> None:
        """End an entitlement now. What it was can still be read."""
        await service.delete(principal.namespace, subject, entitlement)

    @api.get("/entitlements", responses=ok(list[EntitlementView] | EntitlementPage))
    async def list_entitlements(
        principal: Reader, request: Request, given: Annotated[EntitlementListParameters, Query()]
    ) -> Response:
        """List the entitlements of all subjects: an array, or with `page` an object."""
        page = given.as_page(limits)
        found, total = await service.list(
            principal.namespace,
            page,
            subjects=given.subjects,
            features=given.features,
            types=[EntitlementType(one) for one in [*given.types, *given.type_list]],
            include_ended=given.include_deleted and not given.exclude_inactive,
        )
        return listed(request, [entitlement_json(one) for one in found], total, page)

    @api.get("/entitlements/{entitlement_id}", responses=ok(EntitlementView))
    async def get_entitlement_by_id(principal: Reader, entitlement_id: Name) -> Response:
        """Get an entitlement of any subject by its id."""
        found = await service.get_by_id(principal.namespace, entitlement_id)
        return ExactJSONResponse(entitlement_json(found))

    return api
