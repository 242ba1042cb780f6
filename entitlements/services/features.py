"""Features of a namespace."""

from collections.abc import Sequence

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance import metering_of
from entitlements.model import Feature
from entitlements.paging import Page
from entitlements.services.means import Means
from entitlements.specs import FeatureSpec, fault
from entitlements.stores import features as store
from meterline.db import mutex
from meterline.kernel.errors import ConflictError, NotFoundError, ValidationError
from meterline.kernel.ids import new_ulid


class FeatureService:
    """Makes, lists and archives features, and knows which meters they need."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self.limits = means.limits

    async def create(self, namespace: str, spec: FeatureSpec) -> Feature:
        """Make a feature; `ConflictError` while another one has its key."""
        if spec.meter_slug is not None:
            await self._check_meter(namespace, spec.meter_slug, spec)
        elif spec.filters:
            raise fault("meterGroupByFilters", "is for features with a meterSlug")
        now = self._means.now()
        feature = Feature(
            id=new_ulid(now),
            namespace=namespace,
            key=spec.key,
            name=spec.name,
            meter_slug=spec.meter_slug,
            filters=spec.filters,
            metadata=spec.metadata,
            created_at=now,
            updated_at=now,
        )
        try:
            async with self._means.database.transaction() as conn:
                await mutex.alone(conn, "features", namespace)
                await _refuse_taken(conn, feature)
                most = self.limits.max_features
                if await store.count_active(conn, namespace) >= most:
                    raise ValidationError(f"a namespace has at most {most} features")
                await store.add(conn, feature)
        except IntegrityError:
            async with self._means.database.read() as conn:
                await _refuse_taken(conn, feature)
            raise
        return feature

    async def list(
        self, namespace: str, page: Page, meter_slugs: Sequence[str], *, include_archived: bool
    ) -> tuple[Sequence[Feature], int]:
        """A page of features, and how many there are."""
        async with self._means.database.read() as conn:
            return await store.listing(
                conn, namespace, page, meter_slugs=meter_slugs, include_archived=include_archived
            )

    async def get(self, namespace: str, id_or_key: str) -> Feature:
        """The feature with that id, archived or not, or with that key."""
        async with self._means.database.read() as conn:
            return await require_feature(conn, namespace, id_or_key)

    async def archive(self, namespace: str, id_or_key: str) -> None:
        """Archive a feature. Its entitlements stay; its key can be used for another one."""
        async with self._means.database.transaction() as conn:
            feature = await require_feature(conn, namespace, id_or_key)
            if not await store.archive(conn, feature, self._means.now()):
                raise NotFoundError("the feature is archived already")

    async def _check_meter(self, namespace: str, slug: str, spec: FeatureSpec) -> None:
        meter = await self._means.usage.meter(namespace, slug)
        if meter is None:
            raise NotFoundError(f"there is no meter {slug}")
        try:
            metering_of(meter.aggregation)
        except ValidationError as error:
            raise fault("meterSlug", error.detail) from None
        for key in spec.filters:
            if key not in meter.group_by:
                known = ", ".join(sorted(meter.group_by)) or "none"
                reason = f"the meter has no groupBy key {key}; it has {known}"
                raise fault("meterGroupByFilters", reason)


async def require_feature(conn: AsyncConnection, namespace: str, id_or_key: str) -> Feature:
    """The feature, or `NotFoundError`."""
    feature = await store.find(conn, namespace, id_or_key)
    if feature is None:
        raise NotFoundError("there is no such feature")
    return feature


async def _refuse_taken(conn: AsyncConnection, feature: Feature) -> None:
    other = await store.find(conn, feature.namespace, feature.key)
    if other is not None:
        raise ConflictError(
            f"a feature with the key {feature.key} exists already; archive it first",
            extensions={"conflictingEntityId": other.id},
        )
