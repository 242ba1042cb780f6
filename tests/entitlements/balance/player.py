"""Plays a scenario over the pure core: steps at given times, with the figures to expect.

The format is that of `../shared/cases/entitlements.json`. What a step expects is compared as it
is written: a member that this player does not know is a failure, not something to overlook.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from entitlements.balance import (
    Allowance,
    Balance,
    Grant,
    Reset,
    Segment,
    Terms,
    Window,
    balance_at,
    check_reset,
    check_void,
    history,
    issued_after_reset,
    metering_of,
    period_at,
    plan_history,
)
from meterline.kernel.errors import ValidationError
from meterline.kernel.instants import parse_instant
from meterline.kernel.meters import Aggregation
from meterline.kernel.periods import Recurrence, parse_interval, shift
from meterline.kernel.windows import WindowSize, load_zone
from tests.entitlements.balance.usage import MemoryMeter

Step = Mapping[str, Any]


class Player:
    """One entitlement, its meter, and a clock that steps set."""

    def __init__(self, case: Mapping[str, Any]) -> None:
        self.meter = MemoryMeter(Aggregation(case["aggregation"]))
        self.allowance: Allowance
        self.is_soft_limit = False
        self.mismatches: list[str] = []
        self._steps = case["steps"]
        self._clock: datetime
        self._created = 0

    def play(self) -> list[str]:
        """Everything that was not as expected."""
        for number, step in enumerate(self._steps):
            if "clock" in step:
                self._clock = parse_instant(step["clock"])
            before = len(self.mismatches)
            try:
                getattr(self, f"_{step['op']}")(step)
                if "expectError" in step:
                    self._compare("error", None, step["expectError"])
            except ValidationError as error:
                if step.get("expectError", "\0") not in str(error):
                    self._compare("error", str(error), step.get("expectError"))
            for i in range(before, len(self.mismatches)):
                self.mismatches[i] = f"step {number} ({step['op']}): {self.mismatches[i]}"
        return self.mismatches

    def _entitlement(self, step: Step) -> None:
        period = step["usagePeriod"]
        terms = Terms(
            measure_from=parse_instant(step["measureUsageFrom"]),
            usage_period=_recurrence(period),
            metering=metering_of(self.meter.aggregation),
            preserve_overage_at_reset=step.get("preserveOverageAtReset", False),
        )
        self.is_soft_limit = step.get("isSoftLimit", False)
        self.allowance = Allowance(terms)
        if issued := step.get("issueAfterReset"):
            grant = issued_after_reset(
                terms,
                Decimal(str(issued)),
                grant_id="issueAfterReset",
                created_at=self._clock,
                priority=step.get("issueAfterResetPriority", 1),
            )
            self.allowance = replace(self.allowance, grants=(grant,))

    def _event(self, step: Step) -> None:
        self.meter.add(parse_instant(step["time"]), _decimal(step["amount"]), step.get("value", ""))

    def _events(self, step: Step) -> None:
        start, end, count = parse_instant(step["from"]), parse_instant(step["to"]), step["count"]
        values = step.get("values", [""])
        for i in range(count):
            time = start + (end - start) * i / count
            self.meter.add(time, _decimal(step["amount"]), values[i % len(values)])

    def _grant(self, step: Step) -> None:
        given = step["grant"]
        effective_at = parse_instant(given["effectiveAt"])
        expires_at = parse_instant(given["expiresAt"]) if given.get("expiresAt") else None
        if expiration := given.get("expiration"):
            interval = parse_interval(expiration["duration"])
            expires_at = shift(effective_at, interval, expiration.get("count", 1))
        recurrence = given.get("recurrence")
        ends = [parse_instant(given[k]) for k in ("voidedAt", "deletedAt") if given.get(k)]
        created_at = given.get("createdAt")
        self._created += 1
        grant = Grant(
            id=given["id"],
            amount=_decimal(given["amount"]),
            priority=given["priority"],
            effective_at=effective_at,
            # Grants are created in the order of the steps, whatever the clock says.
            created_at=parse_instant(created_at) if created_at else _nth(self._created),
            expires_at=expires_at,
            voided_at=min(ends, default=None),
            min_rollover=_decimal(given["resetMinRollover"]),
            max_rollover=_decimal(given["resetMaxRollover"]),
            recurrence=_recurrence(recurrence, effective_at) if recurrence else None,
        )
        self.allowance = replace(self.allowance, grants=(*self.allowance.grants, grant))

    def _void(self, step: Step) -> None:
        at = parse_instant(step["at"]) if "at" in step else self._clock
        grants = {grant.id: grant for grant in self.allowance.grants}
        check_void(self.allowance, grants[step["grant"]], at, self._clock)
        grants[step["grant"]] = replace(grants[step["grant"]], voided_at=at)
        self.allowance = replace(self.allowance, grants=tuple(grants.values()))

    def _reset(self, step: Step) -> None:
        at = parse_instant(step["effectiveAt"]) if step.get("effectiveAt") else self._clock
        check_reset(self.allowance, at, self._clock)
        reset = Reset(at, step.get("retainAnchor", False), step.get("preserveOverage"))
        self.allowance = replace(self.allowance, resets=(*self.allowance.resets, reset))
        self._check_balance(step, at)
        if "expectCurrentPeriod" in step:
            period = period_at(self.allowance, at)
            self._compare("from", period.start, step["expectCurrentPeriod"]["from"])
            self._compare("to", period.end, step["expectCurrentPeriod"]["to"])

    def _value(self, step: Step) -> None:
        self._check_balance(step, parse_instant(step.get("at") or step["clock"]))

    def _check_balance(self, step: Step, at: datetime) -> None:
        balance = balance_at(self.allowance, at, self.meter.read)
        for name, expected in step.get("expect", {}).items():
            self._compare(name, self._figure(balance, name), expected)

    def _figure(self, balance: Balance, name: str) -> Any:
        match name:
            case "hasAccess":
                return self.is_soft_limit or balance.balance > 0
            case "consistent":
                return abs(balance.usage + balance.balance - balance.overage)
            case "startOfPeriod":
                return balance.period_start
            case "totalAvailableGrantAmount":
                return balance.total_available_grant_amount
            case "grantBalances":
                return dict(balance.grant_balances)
        return getattr(balance, name)

    def _history(self, step: Step) -> None:
        end = parse_instant(step["to"]) if "to" in step else self._clock
        start = period_at(self.allowance, self._clock).start
        start = parse_instant(step["from"]) if "from" in step else start
        size = WindowSize(step.get("windowSize", "DAY"))
        zone = load_zone(step.get("windowTimeZone", "UTC"))
        planned = plan_history(self.allowance, start, end, size, zone)
        told = history(planned, self.meter.read(planned.spans))
        expect = step["expect"]
        if "windowCount" in expect:
            self._compare("windowCount", len(told.windows), expect["windowCount"])
        if "segmentCount" in expect:
            self._compare("segmentCount", len(told.segments), expect["segmentCount"])
        for row in expect.get("windows", ()):
            self._check_row(_of_window(told.windows[row["i"]]), row)
        for row in expect.get("segments", ()):
            self._check_row(_of_segment(told.segments[row["i"]]), row)

    def _check_row(self, found: dict[str, Any], row: Mapping[str, Any]) -> None:
        for name, expected in row.items():
            if name != "i":
                self._compare(f"{row['i']}.{name}", found[name], expected)

    def _compare(self, name: str, found: Any, expected: Any) -> None:
        if isinstance(found, datetime):
            expected = parse_instant(expected)
        elif isinstance(found, dict):
            expected = {key: _decimal(amount) for key, amount in expected.items()}
            found = {key: found.get(key, Decimal(0)) for key in found.keys() | expected.keys()}
            expected = {key: expected.get(key, Decimal(0)) for key in found}
        elif isinstance(found, Decimal):
            expected = _decimal(expected)
        if found != expected:
            self.mismatches.append(f"{name} is {found}, not {expected}")


def _of_window(window: Window) -> dict[str, Any]:
    return {
        "from": window.period.start,
        "to": window.period.end,
        "usage": window.usage,
        "balanceAtStart": window.balance_at_start,
    }


def _of_segment(segment: Segment) -> dict[str, Any]:
    return {
        "from": segment.period.start,
        "to": segment.period.end,
        "usage": segment.usage,
        "overage": segment.overage,
        "balanceAtStart": segment.balance_at_start,
        "balanceAtEnd": segment.balance_at_end,
        "grantBalancesAtStart": dict(segment.grant_balances_at_start),
        "grantBalancesAtEnd": dict(segment.grant_balances_at_end),
        "grantUsages": dict(segment.grant_usages),
        "usageReset": segment.ends_in_reset,
        "rollover": segment.is_rollover,
    }


def _recurrence(given: Mapping[str, Any], anchor: datetime | None = None) -> Recurrence:
    anchor = parse_instant(given["anchor"]) if given.get("anchor") else anchor
    assert anchor is not None
    zone = load_zone(given["timeZone"]) if given.get("timeZone") else None
    return Recurrence(anchor, parse_interval(given["interval"]), zone)


def _nth(n: int) -> datetime:
    return parse_instant("2000-01-01T00:00:00Z") + timedelta(seconds=n)


def _decimal(number: Any) -> Decimal:
    return Decimal(str(number))
