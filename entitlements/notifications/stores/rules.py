"""Rules in the relational database."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.notifications.model import (
    EventType,
    FeatureRef,
    Rule,
    RuleSpec,
    Threshold,
    ThresholdType,
)
from entitlements.notifications.stores.paging import Page, Sorting, page_of
from entitlements.notifications.stores.tables import rule_channels, rules
from meterline.kernel.periods import format_interval, parse_interval
from meterline.kernel.quantity import format_number

_ACTIVE = (rules.c.deleted_at.is_(None), rules.c.disabled.is_(False))


async def add(conn: AsyncConnection, rule: Rule) -> None:
    """Keep a new rule."""
    await conn.execute(insert(rules).values(_row(rule)))
    await _assign(conn, rule)


async def change(conn: AsyncConnection, rule: Rule) -> None:
    """Keep a rule as it is now."""
    await conn.execute(update(rules).where(rules.c.id == rule.id).values(_row(rule)))
    await conn.execute(delete(rule_channels).where(rule_channels.c.rule_id == rule.id))
    await _assign(conn, rule)


async def remove(conn: AsyncConnection, rule_id: str, now: datetime) -> None:
    """Delete a rule; its events stay."""
    await conn.execute(
        update(rules).where(rules.c.id == rule_id).values(deleted_at=now, updated_at=now)
    )


async def lock(conn: AsyncConnection, rule_id: str) -> None:
    """Nobody else changes the rule before this transaction has ended."""
    query = select(rules.c.id).where(rules.c.id == rule_id.upper())
    await conn.execute(query.with_for_update())


async def get(conn: AsyncConnection, namespace: str, rule_id: str) -> Rule | None:
    """The rule with that id, deleted or not."""
    found = await _where(conn, rules.c.namespace == namespace, rules.c.id == rule_id.upper())
    return found[0] if found else None


async def by_ids(conn: AsyncConnection, ids: Sequence[str]) -> dict[str, Rule]:
    """The rules with these ids, deleted or not."""
    return {rule.id: rule for rule in await _where(conn, rules.c.id.in_(ids))}


async def active(
    conn: AsyncConnection, namespace: str, types: Sequence[EventType] = tuple(EventType)
) -> Sequence[Rule]:
    """The rules of a namespace that can fire, oldest first."""
    kinds = [one.value for one in types]
    return await _where(conn, rules.c.namespace == namespace, rules.c.type.in_(kinds), *_ACTIVE)


async def any_active(conn: AsyncConnection) -> bool:
    """Whether any namespace has a rule that can fire."""
    return (await conn.execute(select(rules.c.id).where(*_ACTIVE).limit(1))).first() is not None


async def count(conn: AsyncConnection, namespace: str) -> int:
    """How many rules there are."""
    query = select(func.count()).where(rules.c.namespace == namespace, rules.c.deleted_at.is_(None))
    return int((await conn.execute(query)).scalar_one())


async def using(conn: AsyncConnection, channel_id: str) -> Sequence[str]:
    """Ids of the rules that send to a channel."""
    query = (
        select(rules.c.id)
        .join(rule_channels, rule_channels.c.rule_id == rules.c.id)
        .where(rule_channels.c.channel_id == channel_id, rules.c.deleted_at.is_(None))
        .order_by(rules.c.id)
    )
    return (await conn.execute(query)).scalars().all()


async def listed(
    conn: AsyncConnection,
    namespace: str,
    sorting: Sorting,
    *,
    deleted: bool = False,
    disabled: bool = False,
    features: Sequence[str] = (),
    channels: Sequence[str] = (),
) -> Page[Rule]:
    """A page of rules; `features` are ids or keys, and a rule for every feature matches all."""
    query = select(rules).where(rules.c.namespace == namespace)
    if not deleted:
        query = query.where(rules.c.deleted_at.is_(None))
    if not disabled:
        query = query.where(rules.c.disabled.is_(False))
    if channels:
        of_channels = select(rule_channels.c.rule_id).where(
            rule_channels.c.channel_id.in_([one.upper() for one in channels])
        )
        query = query.where(rules.c.id.in_(of_channels))
    if features:
        # A namespace has few rules; which features each names is known once it is read.
        found = await _read(conn, (await conn.execute(query)).all())
        wanted = [rule.id for rule in found if _names_any(rule.spec, features)]
        query = query.where(rules.c.id.in_(wanted))
    total, rows = await page_of(conn, query, rules, sorting)
    return Page(await _read(conn, rows), total)


def _names_any(spec: RuleSpec, features: Sequence[str]) -> bool:
    return not spec.features or any(
        one.id == wanted.upper() or one.key == wanted
        for one in spec.features
        for wanted in features
    )


async def _where(conn: AsyncConnection, *conditions: ColumnElement[bool]) -> list[Rule]:
    rows = (await conn.execute(select(rules).where(*conditions).order_by(rules.c.id))).all()
    return await _read(conn, rows)


async def _read(conn: AsyncConnection, rows: Sequence[Row[Any]]) -> list[Rule]:
    if not rows:
        return []
    assigned: dict[str, list[str]] = {row.id: [] for row in rows}
    query = (
        select(rule_channels.c.rule_id, rule_channels.c.channel_id)
        .where(rule_channels.c.rule_id.in_(list(assigned)))
        .order_by(rule_channels.c.rule_id, rule_channels.c.position)
    )
    for row in await conn.execute(query):
        assigned[row.rule_id].append(row.channel_id)
    return [_rule(row, assigned[row.id]) for row in rows]


async def _assign(conn: AsyncConnection, rule: Rule) -> None:
    assigned = [
        {"rule_id": rule.id, "position": position, "channel_id": channel_id}
        for position, channel_id in enumerate(rule.spec.channels)
    ]
    if assigned:
        await conn.execute(insert(rule_channels), assigned)


def _row(rule: Rule) -> dict[str, Any]:
    spec = rule.spec
    config: dict[str, Any] = {
        "features": [{"id": one.id, "key": one.key} for one in spec.features],
        "thresholds": [
            {"type": one.type.value, "value": format_number(one.value)} for one in spec.thresholds
        ],
    }
    if spec.lead_time is not None:
        config["leadTime"] = format_interval(spec.lead_time)
    return {
        "id": rule.id,
        "namespace": rule.namespace,
        "type": spec.type.value,
        "name": spec.name,
        "disabled": spec.disabled,
        "config": config,
        "metadata": dict(spec.metadata),
        "created_at": rule.created_at,
        "updated_at": rule.updated_at,
        "deleted_at": rule.deleted_at,
    }


def _rule(row: Row[Any], assigned: Sequence[str]) -> Rule:
    config = row.config
    lead = config.get("leadTime")
    spec = RuleSpec(
        type=EventType(row.type),
        name=row.name,
        channels=tuple(assigned),
        disabled=row.disabled,
        features=tuple(FeatureRef(one["id"], one["key"]) for one in config["features"]),
        thresholds=tuple(
            Threshold(ThresholdType(one["type"]), Decimal(one["value"]))
            for one in config["thresholds"]
        ),
        lead_time=parse_interval(lead) if lead else None,
        metadata=row.metadata,
    )
    return Rule(row.id, row.namespace, spec, row.created_at, row.updated_at, row.deleted_at)
