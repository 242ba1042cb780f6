"""Scenario files: what a case is, and the requests that its steps mean. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from meterline.kernel.errors import ValidationError
from meterline.kernel.instants import EPOCH, format_instant, parse_instant
from meterline.kernel.meters import Aggregation

Json = dict[str, Any]

DEFAULT_SUBJECT = "customer"
DEFAULT_FEATURE = "feature"
ISSUED_AFTER_RESET = "issueAfterReset"
"""What the grant that an entitlement issues by itself is called in results."""

_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "entitlement": (),
    "override": (),
    "delete": (),
    "event": ("time",),
    "events": ("from", "to", "count"),
    "grant": ("grant",),
    "void": ("grant",),
    "reset": (),
    "value": (),
    "history": (),
    "advance": (),
}
_ENTITLEMENT_MEMBERS = (
    "usagePeriod", "measureUsageFrom", "isSoftLimit", "issueAfterReset",
    "issueAfterResetPriority", "preserveOverageAtReset", "config", "metadata",
)  # fmt: skip
_GRANT_MEMBERS = (
    "amount", "priority", "effectiveAt", "expiresAt", "expiration", "recurrence",
    "minRolloverAmount", "maxRolloverAmount", "metadata",
)  # fmt: skip
_MAX_EVENTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens, or is asked."""

    number: int
    op: str
    given: Mapping[str, Any]
    clock: datetime | None
    """The time that the clock is set to before it."""

    @property
    def subject(self) -> str:
        """Whom it is about."""
        return str(self.given.get("subject", DEFAULT_SUBJECT))

    @property
    def feature(self) -> str:
        """The key of the feature that it is about."""
        return str(self.given.get("feature", DEFAULT_FEATURE))


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario: steps that share a meter."""

    id: str
    name: str
    aggregation: Aggregation = Aggregation.SUM
    steps: tuple[Step, ...] = ()
    fault: str | None = None
    """Why it cannot be played, if it cannot."""

    @property
    def begin(self) -> datetime:
        """What the clock shows first."""
        return self.steps[0].clock or EPOCH if self.steps else EPOCH


def read_cases(path: Path) -> list[Case]:
    """The cases of a file that holds one case, or an object with `cases`."""
    try:
        content = json.loads(path.read_bytes(), parse_float=Decimal)
    except OSError as error:
        raise ValidationError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"{path}: not JSON: {error}") from None
    listed = content.get("cases", [content]) if isinstance(content, dict) else content
    if not isinstance(listed, list) or not listed:
        raise ValidationError(f"{path}: holds no cases")
    cases = [_case(number, given) for number, given in enumerate(listed)]
    if len({case.id for case in cases}) < len(cases):
        raise ValidationError(f"{path}: two cases have the same id")
    return cases


def _case(number: int, given: Any) -> Case:
    """The case; one that makes no sense does not keep the others from being played."""
    case_id = str(given.get("id", number)) if isinstance(given, dict) else str(number)
    try:
        return _sound_case(case_id, given)
    except ValidationError as error:
        return Case(case_id, case_id, fault=error.detail)


def _sound_case(case_id: str, given: Any) -> Case:
    if not isinstance(given, dict) or not isinstance(given.get("steps"), list):
        raise ValidationError("must be an object with `steps`")
    try:
        aggregation = Aggregation(given.get("aggregation", "SUM"))
    except ValueError:
        raise ValidationError("there is no such aggregation") from None
    steps = tuple(_step(index, step) for index, step in enumerate(given["steps"]))
    if not steps or steps[0].clock is None:
        raise ValidationError("the first step must have a `clock`")
    return Case(case_id, str(given.get("name", case_id)), aggregation, steps)


def _step(number: int, given: Any) -> Step:
    where = f"step {number}"
    op = given.get("op") if isinstance(given, dict) else None
    if not isinstance(op, str) or op not in _REQUIRED:
        raise ValidationError(f"{where}: `op` must be one of {', '.join(_REQUIRED)}")
    missing = [name for name in _REQUIRED[op] if name not in given]
    if missing:
        raise ValidationError(f"{where} ({op}): `{missing[0]}` is required")
    clock = given.get("clock")
    try:
        return Step(number, op, given, None if clock is None else parse_instant(clock))
    except (ValidationError, TypeError):
        raise ValidationError(f"{where} ({op}): `clock` is not an RFC 3339 time") from None


def up_to_the_minute(at: datetime) -> datetime:
    """The minute's end: times at which values are asked are rounded up, as the format has it."""
    begun = at.replace(second=0, microsecond=0)
    return begun if begun == at else begun + timedelta(minutes=1)


def meter_body(case: Case, slug: str) -> Json:
    """The meter of a case."""
    body: Json = {"slug": slug, "aggregation": case.aggregation, "eventType": slug}
    if case.aggregation is not Aggregation.COUNT:
        unique = case.aggregation is Aggregation.UNIQUE_COUNT
        body["valueProperty"] = "$.value" if unique else "$.amount"
    return body


def entitlement_body(given: Mapping[str, Any], feature_key: str) -> Json:
    """The body of a step that makes an entitlement."""
    body = {name: given[name] for name in _ENTITLEMENT_MEMBERS if given.get(name) is not None}
    issued = body.get("issueAfterReset")
    if isinstance(issued, dict):
        body["issueAfterReset"] = issued.get("amount")
        if "priority" in issued:
            body["issueAfterResetPriority"] = issued["priority"]
    return {"type": given.get("type", "metered"), "featureKey": feature_key, **body}


def grant_body(given: Mapping[str, Any]) -> Json:
    """The body of a grant; rollovers may be called as the API does or `resetMaxRollover`."""
    body = {name: given[name] for name in _GRANT_MEMBERS if given.get(name) is not None}
    for ours, theirs in (("min", "resetMinRollover"), ("max", "resetMaxRollover")):
        if given.get(theirs) is not None:
            body[f"{ours}RolloverAmount"] = given[theirs]
    return body


def reset_body(given: Mapping[str, Any]) -> Json:
    """The body of a reset; a `preserveOverage` of null is the entitlement's own."""
    members = ("effectiveAt", "retainAnchor", "preserveOverage")
    return {name: given[name] for name in members if given.get(name) is not None}


def events_of(step: Step, case: Case, event_type: str) -> Iterator[Json]:
    """The CloudEvents of an `event` or `events` step."""
    given = step.given
    if step.op == "event":
        yield _event(step, case, event_type, 0, str(given["time"]), given.get("value"))
        return
    start, end = parse_instant(str(given["from"])), parse_instant(str(given["to"]))
    count, values = given["count"], given.get("values") or [None]
    if not isinstance(count, int) or not 0 <= count <= _MAX_EVENTS:
        raise ValidationError(f"`count` must be a whole number up to {_MAX_EVENTS}")
    for i in range(count):
        time = format_instant(start + (end - start) * i / count)
        yield _event(step, case, event_type, i, time, values[i % len(values)])


def _event(step: Step, case: Case, event_type: str, i: int, time: str, value: Any) -> Json:
    data = {"amount": step.given.get("amount", 1)}
    if value is not None:
        data["value"] = value
    return {
        "specversion": "1.0",
        # An id of the file's own lets a scenario send an event twice.
        "id": str(step.given.get("id", f"{step.number}-{i}")),
        "source": event_type,
        "type": event_type,
        "subject": step.subject,
        "time": time,
        "data": data,
    }


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """JSON in which ids are replaced by the names that the file gave them."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value
