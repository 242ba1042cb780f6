"""`/api/v1/features`, as OpenMeter v1 has it."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from entitlements.api.encode import feature_json
from entitlements.api.exact import ExactRoute
from entitlements.api.parameters import Admin, FeatureListParameters, Reader, listed, ok
from entitlements.api.views import FeaturePage, FeatureView
from entitlements.api.wire import FeatureBody, Name
from entitlements.services.features import FeatureService
from meterline.web.json import ExactJSONResponse


def router(service: FeatureService) -> APIRouter:
    """`/api/v1/features` over a service."""
    api = APIRouter(
        prefix="/api/v1/features",
        tags=["Features"],
        default_response_class=ExactJSONResponse,
        route_class=ExactRoute,
    )

    @api.get("", responses=ok(list[FeatureView] | FeaturePage))
    async def list_features(
        principal: Reader, request: Request, given: Annotated[FeatureListParameters, Query()]
    ) -> Response:
        """List features, oldest first: an array, or with `page` an object."""
        page = given.as_page(service.limits)
        found, total = await service.list(
            principal.namespace,
            page,
            [*given.meter_slug, *given.meter_slug_list],
            include_archived=given.include_archived,
        )
        return listed(request, [feature_json(one) for one in found], total, page)

    @api.post("", status_code=201, responses=ok(FeatureView, 201))
    async def create_feature(principal: Admin, body: FeatureBody) -> Response:
        """Make a feature. With a meter its usage is what the meter says of the filtered events."""
        feature = await service.create(principal.namespace, body.spec(service.limits))
        return ExactJSONResponse(feature_json(feature), status_code=201)

    @api.get("/{id_or_key}", responses=ok(FeatureView))
    async def get_feature(principal: Reader, id_or_key: Name) -> Response:
        """Get a feature by its key, or by its id: then archived ones, too."""
        return ExactJSONResponse(feature_json(await service.get(principal.namespace, id_or_key)))

    @api.delete("/{id_or_key}", status_code=204)
    async def delete_feature(principal: Admin, id_or_key: Name) -> None:
        """Archive a feature. Its entitlements stay; its key can be used again."""
        await service.archive(principal.namespace, id_or_key)

    return api
