"""Rules, values and readers as tests need them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

from sqlalchemy import select

from entitlements.notifications.model import (
    EntitlementValue,
    EventType,
    ExpiringGrant,
    FeatureRef,
    Rule,
    RuleSpec,
    Threshold,
    ThresholdType,
)
from entitlements.notifications.schedule import Answer
from entitlements.notifications.service import ChannelSpec, NotificationService
from entitlements.notifications.stores.tables import events
from meterline.db.engine import Database
from meterline.kernel.periods import Period

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
FEATURE = FeatureRef("01J5FEATURE000000000000000", "tokens")
ENTITLEMENT = "01J5ENT0000000000000000000"
URL = "https://hooks.example.com/in"


def threshold(kind: str, value: Any) -> Threshold:
    return Threshold(ThresholdType(kind), Decimal(str(value)))


def rule(
    kind: EventType = EventType.BALANCE_THRESHOLD,
    *thresholds: Threshold,
    rule_id: str = "01J5RULE000000000000000000",
    **spec: Any,
) -> Rule:
    made = RuleSpec(kind, "rule", ("01J5CHANNEL000000000000000",), thresholds=thresholds)
    return Rule(rule_id, "default", replace(made, **spec), NOW, NOW)


def value(
    usage: Any = 0,
    granted: Any = 100,
    at: datetime = NOW,
    *,
    period: Period | None = None,
    grants: Sequence[ExpiringGrant] = (),
    entitlement_id: str = ENTITLEMENT,
) -> EntitlementValue:
    used, amount = Decimal(str(usage)), Decimal(str(granted))
    with localcontext(prec=60):
        left = amount - used
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return EntitlementValue(
        namespace="default",
        entitlement_id=entitlement_id,
        subject="customer-1",
        feature=FEATURE,
        at=at,
        has_access=used < amount,
        balance=max(left, Decimal(0)),
        usage=used,
        overage=max(-left, Decimal(0)),
        total_available_grant_amount=amount,
        period=period or Period(midnight, midnight + DAY),
        grants=grants,
    )


@dataclass
class FakeReader:
    """Entitlements with a daily period, a constant grant, and usage that tests add."""

    used: dict[str, list[tuple[datetime, Decimal]]] = field(default_factory=dict)
    granted: Decimal = Decimal(100)
    grants: list[ExpiringGrant] = field(default_factory=list)
    resets: list[datetime] = field(default_factory=list)
    reads: int = 0
    broken: bool = False
    spaces: dict[str, str] = field(default_factory=dict)

    def use(self, at: datetime, amount: Any, entitlement_id: str = ENTITLEMENT) -> None:
        self.used.setdefault(entitlement_id, []).append((at, Decimal(str(amount))))

    async def value(self, entitlement_id: str, at: datetime) -> EntitlementValue | None:
        self.reads += 1
        if self.broken:
            raise RuntimeError("the store does not answer")
        if entitlement_id not in self.used:
            return None
        made = value(granted=self.granted, at=at, entitlement_id=entitlement_id)
        start = max([made.period.start, *(one for one in self.resets if one <= at)])
        used = sum((u for t, u in self.used[entitlement_id] if start <= t <= at), Decimal(0))
        period = Period(start, made.period.end)
        shown = value(used, self.granted, at, period=period, entitlement_id=entitlement_id)
        grants = tuple(one for one in self.grants if at < one.expires_at)
        namespace = self.spaces.get(entitlement_id, "default")
        return replace(shown, grants=grants, namespace=namespace)

    async def metered(self, namespace: str, after: str, limit: int) -> Sequence[str]:
        mine = [one for one in self.used if self.spaces.get(one, "default") == namespace]
        return [one for one in sorted(mine) if one > after][:limit]

    async def feature(self, namespace: str, id_or_key: str) -> FeatureRef | None:
        return FEATURE if id_or_key in (FEATURE.id, FEATURE.key) else None


@dataclass
class FakeSender:
    """Answers what `answer` says, and remembers what was sent."""

    answer: Callable[[str], Answer] = lambda _url: Answer(200, "ok", 1)
    sent: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def send(self, url: str, headers: Any, body: bytes) -> Answer:
        self.sent.append((url, dict(headers), body))
        return self.answer(url)


class Crash(BaseException):
    """The process dies here."""


async def event_keys(database: Database) -> list[tuple[str, str]]:
    """(type, threshold or period) of every event, in order."""
    async with database.read() as conn:
        rows = (await conn.execute(select(events).order_by(events.c.created_at, events.c.id))).all()
    found = []
    for row in rows:
        data = json.loads(row.payload)["data"]
        what = data.get("threshold", {}).get("value", "")
        period = data.get("entitlement", {}).get("currentUsagePeriod", {}).get("from", "")
        found.append((row.type, f"{what} {period[:10]}".strip()))
    return found


async def channel_and_rule(
    service: NotificationService, spec: RuleSpec, *, namespace: str = "default", url: str = URL
) -> tuple[str, str]:
    channel = await service.create_channel(namespace, ChannelSpec("hook", url))
    made = await service.create_rule(namespace, replace(spec, channels=(channel.id,)))
    return channel.id, made.id
