"""Plans in the relational database. Functions run in the caller's transaction."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.model import EntitlementType
from entitlements.plans.model import (
    CreditAllocation,
    Limits,
    Overrides,
    Plan,
    PlanFeature,
    PlanSpec,
)
from entitlements.plans.stores.tables import members, plan_prices, plans
from meterline.kernel.periods import Interval, format_interval, parse_interval
from meterline.kernel.quantity import format_number


class Terms(msgspec.Struct):
    """What a check reads of a plan."""

    limits: Limits
    has_credits: bool


_TERMS = msgspec.json.Decoder(Terms)
_OVERRIDES = msgspec.json.Decoder(dict[str, Decimal | int | None])


def terms_of(text: str) -> Terms:
    """The terms in the column `limits`."""
    return _TERMS.decode(text)


def overrides_of(text: str) -> Overrides:
    """The overrides in the column of that name."""
    return _OVERRIDES.decode(text)


def overrides_text(overrides: Overrides) -> str:
    """Overrides as text."""
    return msgspec.json.encode(overrides).decode()


async def add(conn: AsyncConnection, plan: Plan) -> None:
    """Keep a new plan; `IntegrityError` when its key or one of its prices is taken."""
    await conn.execute(sa.insert(plans).values(_row(plan)))
    await _keep_prices(conn, plan)


async def change(conn: AsyncConnection, plan: Plan) -> None:
    """Keep a plan as it is now."""
    await conn.execute(sa.update(plans).where(plans.c.id == plan.id).values(_row(plan)))
    await conn.execute(sa.delete(plan_prices).where(plan_prices.c.plan_id == plan.id))
    await _keep_prices(conn, plan)


async def remove(conn: AsyncConnection, plan: Plan) -> None:
    """Delete a plan that nobody has."""
    # Subjects that had it and are known for something else, such as a ban.
    await conn.execute(sa.delete(plan_prices).where(plan_prices.c.plan_id == plan.id))
    await conn.execute(sa.delete(plans).where(plans.c.id == plan.id))


async def find(
    conn: AsyncConnection, namespace: str, key: str, *, lock: bool = False
) -> Plan | None:
    """The plan with that key."""
    query = sa.select(plans).where(plans.c.namespace == namespace, plans.c.key == key)
    if lock:
        query = query.with_for_update()
    row = (await conn.execute(query)).first()
    return plan_of(row) if row else None


async def by_id(conn: AsyncConnection, plan_id: str) -> Plan | None:
    """The plan with that id."""
    row = (await conn.execute(sa.select(plans).where(plans.c.id == plan_id))).first()
    return plan_of(row) if row else None


async def by_prices(
    conn: AsyncConnection, namespace: str, price_ids: Sequence[str]
) -> Mapping[str, Plan]:
    """The plans of prices."""
    query = (
        sa.select(plan_prices.c.price_id, plans)
        .join(plans, plans.c.id == plan_prices.c.plan_id)
        .where(plan_prices.c.namespace == namespace, plan_prices.c.price_id.in_(price_ids))
    )
    return {row.price_id: plan_of(row) for row in await conn.execute(query)}


async def listing(
    conn: AsyncConnection, namespace: str, after: str | None, limit: int
) -> list[Plan]:
    """Plans by key, those after `after`."""
    query = sa.select(plans).where(plans.c.namespace == namespace)
    if after is not None:
        query = query.where(plans.c.key > after)
    return [plan_of(row) for row in await conn.execute(query.order_by(plans.c.key).limit(limit))]


async def count(conn: AsyncConnection, namespace: str) -> tuple[int, int]:
    """How many plans a namespace has, and the highest number that one ever had."""
    query = sa.select(sa.func.count(), sa.func.max(plans.c.number))
    found, most = (await conn.execute(query.where(plans.c.namespace == namespace))).one()
    return found, most or 0


async def count_members(conn: AsyncConnection, plan_id: str) -> int:
    """How many subjects have a plan."""
    query = sa.select(sa.func.count()).where(members.c.plan_id == plan_id)
    return int((await conn.execute(query)).scalar_one())


async def mark_members(conn: AsyncConnection, plan_id: str) -> None:
    """Have the entitlements of every subject of a plan brought in line."""
    await conn.execute(
        sa.update(members)
        .where(members.c.plan_id == plan_id)
        .values(pending=True, version=members.c.version + 1)
    )


async def _keep_prices(conn: AsyncConnection, plan: Plan) -> None:
    rows = [
        {"namespace": plan.namespace, "price_id": price, "plan_id": plan.id}
        for price in plan.spec.stripe_price_ids
    ]
    if rows:
        await conn.execute(sa.insert(plan_prices), rows)


def _row(plan: Plan) -> dict[str, Any]:
    spec = plan.spec
    terms = Terms(spec.limits, spec.credits is not None)
    return {
        "id": plan.id,
        "number": plan.number,
        "namespace": plan.namespace,
        "key": spec.key,
        "version": plan.version,
        "limits": msgspec.json.encode(terms).decode(),
        "rest": {
            "name": spec.name,
            "description": spec.description,
            "credits": _credits_row(spec.credits),
            "features": [_feature_row(one) for one in spec.features],
            "prices": list(spec.stripe_price_ids),
            "creditsPerPayment": _text(spec.credits_per_payment),
            "metadata": dict(spec.metadata),
        },
        "created_at": plan.created_at,
        "updated_at": plan.updated_at,
    }


def plan_of(row: sa.Row[Any]) -> Plan:
    """A plan from its row."""
    rest = row.rest
    spec = PlanSpec(
        key=row.key,
        name=rest["name"],
        description=rest["description"],
        limits=terms_of(row.limits).limits,
        credits=_credits_of(rest["credits"]),
        features=tuple(_feature_of(one) for one in rest["features"]),
        stripe_price_ids=tuple(rest["prices"]),
        credits_per_payment=_decimal(rest["creditsPerPayment"]),
        metadata=rest["metadata"],
    )
    return Plan(
        id=row.id,
        number=row.number,
        namespace=row.namespace,
        spec=spec,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _credits_row(one: CreditAllocation | None) -> Any:
    if one is None:
        return None
    return {
        "interval": format_interval(one.interval),
        "amount": format_number(one.amount),
        "maxRollover": format_number(one.max_rollover),
        "priority": one.priority,
    }


def _credits_of(row: Any) -> CreditAllocation | None:
    if row is None:
        return None
    return CreditAllocation(
        parse_interval(row["interval"]),
        Decimal(row["amount"]),
        Decimal(row["maxRollover"]),
        row["priority"],
    )


def _feature_row(one: PlanFeature) -> Any:
    return {
        "key": one.key,
        "type": one.type.value,
        "config": one.config,
        "interval": None if one.interval is None else format_interval(one.interval),
        "amount": _text(one.amount),
        "isSoftLimit": one.is_soft_limit,
    }


def _feature_of(row: Any) -> PlanFeature:
    return PlanFeature(
        key=row["key"],
        type=EntitlementType(row["type"]),
        config=row["config"],
        interval=_interval(row["interval"]),
        amount=_decimal(row["amount"]),
        is_soft_limit=row["isSoftLimit"],
    )


def _interval(text: str | None) -> Interval | None:
    return None if text is None else parse_interval(text)


def _text(value: Decimal | None) -> str | None:
    return None if value is None else format_number(value)


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
