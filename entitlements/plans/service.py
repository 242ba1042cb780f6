"""Plans: made, changed, listed and deleted."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.builtin import BuiltIns
from entitlements.model import EntitlementType
from entitlements.plans.model import Plan, PlanSpec
from entitlements.plans.options import PlanOptions
from entitlements.plans.stores import members as member_store
from entitlements.plans.stores import plans as store
from entitlements.services.means import Means
from entitlements.specs import fault
from entitlements.stores import features as feature_store
from meterline.kernel.errors import ConflictError, NotFoundError, ValidationError
from meterline.kernel.ids import new_ulid


def _nothing() -> None:
    """Nobody wants to know."""


class PlanService:
    """The plans of namespaces."""

    def __init__(
        self,
        means: Means,
        built_ins: BuiltIns,
        options: PlanOptions,
        wake: Callable[[], None] = _nothing,
    ) -> None:
        """`wake` is called when subjects have to be brought in line."""
        self._means = means
        self._built_ins = built_ins
        self._wake = wake
        self.options = options

    async def create(self, namespace: str, spec: PlanSpec) -> Plan:
        """Make a plan; `ConflictError` while another one has its key or one of its prices."""
        await self._built_ins.ensure(namespace)
        try:
            async with self._means.database.transaction() as conn:
                await self._check(conn, namespace, spec, None)
                count, last = await store.count(conn, namespace)
                if count >= self.options.max_plans:
                    raise ValidationError(f"a namespace has at most {self.options.max_plans} plans")
                now = self._means.now()
                plan = Plan(new_ulid(now), last + 1, namespace, spec, 1, now, now)
                await store.add(conn, plan)
        except IntegrityError:
            raise ConflictError(f"a plan {spec.key} is made at this moment; try again") from None
        return plan

    async def get(self, namespace: str, key: str) -> Plan:
        """The plan with that key."""
        async with self._means.database.read() as conn:
            return _found(await store.find(conn, namespace, key))

    async def list(self, namespace: str, after: str | None, limit: int) -> Sequence[Plan]:
        """Plans by key, those after the key `after`."""
        async with self._means.database.read() as conn:
            return await store.listing(conn, namespace, after, min(limit, self.options.max_page))

    async def change(
        self, namespace: str, key: str, change: Callable[[PlanSpec], PlanSpec]
    ) -> Plan:
        """Change a plan, and so from now on what each of its subjects may do.

        Its key stays. Limits act at once; entitlements are brought in line in the background.
        """
        await self._built_ins.ensure(namespace)
        try:
            async with self._means.database.transaction() as conn:
                plan = _found(await store.find(conn, namespace, key, lock=True))
                spec = replace(change(plan.spec), key=plan.key)
                if spec == plan.spec:
                    return plan
                await self._check(conn, namespace, spec, plan)
                now = self._means.now()
                changed = replace(plan, spec=spec, version=plan.version + 1, updated_at=now)
                await store.change(conn, changed)
                if (spec.credits, spec.features) != (plan.spec.credits, plan.spec.features):
                    await store.mark_members(conn, plan.id)
        except IntegrityError:
            raise ConflictError("one of the prices is given to another plan now") from None
        self._wake()
        return changed

    async def delete(self, namespace: str, key: str) -> None:
        """Delete a plan; `ConflictError` while a subject has it."""
        try:
            async with self._means.database.transaction() as conn:
                plan = _found(await store.find(conn, namespace, key, lock=True))
                count = await store.count_members(conn, plan.id)
                if count:
                    raise ConflictError(
                        f"{count} subjects have the plan {key}: give them another one first",
                        extensions={"subjects": count},
                    )
                await store.remove(conn, plan)
        except IntegrityError:
            raise ConflictError(f"a subject gets the plan {key} at this moment") from None

    async def subjects(
        self, namespace: str, key: str, after: str | None, limit: int
    ) -> Sequence[str]:
        """The subjects of a plan, by key."""
        async with self._means.database.read() as conn:
            plan = _found(await store.find(conn, namespace, key))
            limit = min(limit, self.options.max_page)
            return await member_store.of_plan(conn, plan.id, after, limit)

    async def _check(
        self, conn: AsyncConnection, namespace: str, spec: PlanSpec, before: Plan | None
    ) -> None:
        if before is None:
            other = await store.find(conn, namespace, spec.key)
            if other is not None:
                raise ConflictError(
                    f"a plan with the key {spec.key} exists already",
                    extensions={"conflictingEntityId": other.id},
                )
        taken = await store.by_prices(conn, namespace, spec.stripe_price_ids)
        for price, plan in taken.items():
            if before is None or plan.id != before.id:
                raise ConflictError(f"the price {price} belongs to the plan {plan.key}")
        for place, one in enumerate(spec.features):
            feature = await feature_store.find(conn, namespace, one.key)
            where = f"features[{place}].featureKey"
            if feature is None or feature.key != one.key:
                raise fault(where, f"there is no feature {one.key}")
            if one.type is EntitlementType.METERED and feature.meter_slug is None:
                raise fault(where, f"the feature {one.key} has no meter: it cannot be metered")


def _found(plan: Plan | None) -> Plan:
    if plan is None:
        raise NotFoundError("there is no such plan")
    return plan
