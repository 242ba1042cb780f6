"""`/api/v1/subjects`, as OpenMeter v1 has it, with purging and paging besides."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from aggregator.subjects import Subject, SubjectChange, SubjectService
from meterline.kernel.text import TEXT_PATTERN
from meterline.web.auth import Principal, requires
from meterline.web.json import ExactJSONResponse
from meterline.web.paging import decode_cursor, encode_cursor


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class SubjectUpsert(_Wire):
    """A subject to make or change. What is absent stays as it is; null clears."""

    key: str = Field(
        min_length=1,
        description="The `subject` of its events.",
        json_schema_extra={"pattern": TEXT_PATTERN},
    )
    display_name: str | None = Field(default=None, json_schema_extra={"pattern": TEXT_PATTERN})
    metadata: dict[str, Any] | None = None


class SubjectView(_Wire):
    """A subject."""

    id: str
    key: str
    display_name: str | None = None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


Reader = Annotated[Principal, Depends(requires("read"))]
Admin = Annotated[Principal, Depends(requires("admin"))]


def router(service: SubjectService) -> APIRouter:
    """`/api/v1/subjects` over a service."""
    max_page = service.limits.max_page
    api = APIRouter(
        prefix="/api/v1/subjects", tags=["Subjects"], default_response_class=ExactJSONResponse
    )

    @api.get("")
    async def list_subjects(
        request: Request,
        response: Response,
        principal: Reader,
        limit: Annotated[int, Query(ge=1, le=max_page)] = max_page,
        cursor: Annotated[
            str | None, Query(description="From the `Link` header of the page before.")
        ] = None,
    ) -> list[SubjectView]:
        """List subjects by key. When there are more, `Link: <…>; rel="next"` leads on."""
        after = str(decode_cursor(cursor, [str])[0]) if cursor is not None else None
        found = await service.list(principal.namespace, after, limit)
        if len(found) == limit:
            url = request.url.include_query_params(
                limit=limit, cursor=encode_cursor([found[-1].key])
            )
            response.headers["link"] = f'<{url.path}?{url.query}>; rel="next"'
        return [_view(subject) for subject in found]

    @api.post("")
    async def upsert_subjects(principal: Admin, body: list[SubjectUpsert]) -> list[SubjectView]:
        """Make or change subjects, all or none; answers them in the order given."""
        changes = [
            SubjectChange(item.key, item.model_dump(exclude_unset=True, exclude={"key"}))
            for item in body
        ]
        return [_view(subject) for subject in await service.upsert(principal.namespace, changes)]

    @api.get("/{id_or_key:path}")
    async def get_subject(principal: Reader, id_or_key: str) -> SubjectView:
        """Get a subject by its key or id. Slashes in a key may be sent as they are or as %2F."""
        return _view(await service.get(principal.namespace, id_or_key))

    @api.delete("/{id_or_key:path}", status_code=204, response_class=Response)
    async def delete_subject(
        principal: Admin,
        id_or_key: str,
        purge_usage: Annotated[
            bool, Query(alias="purgeUsage", description="Erase all its events too, for good.")
        ] = False,
    ) -> None:
        """Delete a subject. Its usage stays, unless `purgeUsage=true`."""
        await service.delete(principal.namespace, id_or_key, purge_usage=purge_usage)

    return api


def _view(subject: Subject) -> SubjectView:
    return SubjectView(
        id=subject.id,
        key=subject.key,
        display_name=subject.display_name,
        metadata=dict(subject.metadata),
        created_at=subject.created_at,
        updated_at=subject.updated_at,
    )
