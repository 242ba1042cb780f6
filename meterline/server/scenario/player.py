"""Plays cases over the application, step by step."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import quote

from meterline.kernel.errors import MeterlineError, ValidationError
from meterline.kernel.instants import format_instant, parse_instant
from meterline.kernel.periods import parse_interval, shift
from meterline.server.scenario.cases import (
    ISSUED_AFTER_RESET,
    Case,
    Json,
    Step,
    entitlement_body,
    events_of,
    grant_body,
    meter_body,
    renamed,
    reset_body,
    up_to_the_minute,
)
from meterline.server.scenario.compare import (
    compare_error,
    compare_history,
    compare_period,
    compare_value,
)
from meterline.server.scenario.world import World, new_world

_BATCH = 1_000
_BATCH_TYPE = "application/cloudevents-batch+json"


async def play(cases: Sequence[Case]) -> AsyncIterator[Json]:
    """The result of each case, as soon as it is there."""
    async with new_world(cases[0].begin) as world:
        for number, case in enumerate(cases):
            yield await Player(world, case, number).play()


class Player:
    """One case: its meter, its features, and the names of its grants.

    Cases share an application, so each has a meter and features of its own; results show the
    names of the file.
    """

    def __init__(self, world: World, case: Case, number: int) -> None:
        self.world = world
        self._case = case
        self._number = number
        self._slug = f"usage_{number}"
        self._features: dict[str, str] = {}
        self._grants: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self.entitlements: list[Json] = []
        """What the application said of each that was made, in order."""

    @property
    def names(self) -> Mapping[str, str]:
        """The names that the file gives to what has an id."""
        return self._names

    async def play(self) -> Json:
        """What came of it."""
        if self._case.fault is not None:
            return {"id": self._case.id, "passed": False, "steps": [], "error": self._case.fault}
        self.world.clock.now = self._case.begin
        await self.world.call("POST", "/api/v1/meters", meter_body(self._case, self._slug))
        steps = [await self._play(step) for step in self._case.steps]
        passed = not any(step["mismatches"] for step in steps)
        return {"id": self._case.id, "passed": passed, "steps": steps}

    async def _play(self, step: Step) -> Json:
        if step.clock is not None:
            self.world.clock.now = step.clock
        expected_error = step.given.get("expectError")
        try:
            result, mismatches = await getattr(self, f"_{step.op}")(step)
        except (MeterlineError, TypeError, AttributeError, ValueError, LookupError) as error:
            said = (error.detail if isinstance(error, MeterlineError) else None) or str(error)
            differences = list(compare_error(expected_error, said))
            return {"op": step.op, "error": said, "mismatches": differences}
        mismatches += compare_error(expected_error, None)
        result = renamed(result, self._names)
        return {"op": step.op, "result": result, "mismatches": mismatches}

    async def _entitlement(self, step: Step) -> tuple[Any, list[Json]]:
        made = await self._make_entitlement(step, "POST", self._of_subject(step))
        return made, await self._expect_value(step)

    async def _override(self, step: Step) -> tuple[Any, list[Json]]:
        made = await self._make_entitlement(step, "PUT", f"{await self._path(step)}/override")
        return made, await self._expect_value(step)

    async def _make_entitlement(self, step: Step, method: str, path: str) -> Json:
        metered = step.given.get("type", "metered") == "metered"
        key = await self._feature(step.feature, metered=metered)
        made: Json = await self.world.call(method, path, entitlement_body(step.given, key))
        self._names[made["id"]] = f"{step.subject}/{step.feature}"
        self.entitlements.append(made)
        if "issueAfterReset" in made:
            for grant in await self.world.call("GET", f"{await self._path(step)}/grants"):
                self._names[grant["id"]] = ISSUED_AFTER_RESET
                self._grants[ISSUED_AFTER_RESET] = grant["id"]
        return made

    async def _delete(self, step: Step) -> tuple[Any, list[Json]]:
        await self.world.call("DELETE", await self._path(step))
        return None, await self._expect_value(step)

    async def _event(self, step: Step) -> tuple[Any, list[Json]]:
        return await self._events(step)

    async def _events(self, step: Step) -> tuple[Any, list[Json]]:
        events = list(events_of(step, self._case, self._slug))
        for i in range(0, len(events), _BATCH):
            batch = events[i : i + _BATCH]
            await self.world.call("POST", "/api/v1/events", batch, content_type=_BATCH_TYPE)
        return {"accepted": len(events)}, await self._expect_value(step)

    async def _grant(self, step: Step) -> tuple[Any, list[Json]]:
        given = step.given["grant"]
        name = str(given.get("id", f"grant {len(self._grants) + 1}"))
        created_at = given.get("createdAt")
        with self._at(parse_instant(created_at) if created_at else None):
            path = f"{await self._path(step)}/grants"
            made = await self.world.call("POST", path, grant_body(given))
        self._grants[name] = made["id"]
        self._names[made["id"]] = name
        ends = [parse_instant(given[key]) for key in ("voidedAt", "deletedAt") if given.get(key)]
        if ends:
            with self._at(min(ends)):
                await self.world.call("DELETE", f"/api/v1/grants/{made['id']}")
        return made, await self._expect_value(step)

    async def _void(self, step: Step) -> tuple[Any, list[Json]]:
        name = str(step.given["grant"])
        if name not in self._grants:
            raise ValidationError(f"no step before has made a grant {name}")
        at = step.given.get("at")
        params = [("at", str(at))] if at else []
        await self.world.call("DELETE", f"/api/v1/grants/{self._grants[name]}", params=params)
        return None, await self._expect_value(step)

    async def _reset(self, step: Step) -> tuple[Any, list[Json]]:
        body = reset_body(step.given)
        await self.world.call("POST", f"{await self._path(step)}/reset", body)
        at = parse_instant(body["effectiveAt"]) if "effectiveAt" in body else None
        value = await self._value_at(step, at)
        mismatches = list(compare_value(step.given.get("expect", {}), self._named(value)))
        if "expectCurrentPeriod" in step.given:
            period = await self._period(step, at)
            mismatches += compare_period(step.given["expectCurrentPeriod"], period)
        return value, mismatches

    async def _value(self, step: Step) -> tuple[Any, list[Json]]:
        at = step.given.get("at")
        asked = up_to_the_minute(parse_instant(str(at))) if at else None
        value = await self._value_at(step, asked)
        return value, list(compare_value(step.given.get("expect", {}), self._named(value)))

    async def _history(self, step: Step) -> tuple[Any, list[Json]]:
        names = ("from", "to", "windowSize", "windowTimeZone")
        params = [(name, str(step.given[name])) for name in names if step.given.get(name)]
        path = f"{await self._path(step)}/history"
        told = await self.world.call("GET", path, params=[*params, ("wait", "true")])
        return told, list(compare_history(step.given.get("expect", {}), self._named(told)))

    async def _advance(self, step: Step) -> tuple[Any, list[Json]]:
        clock = self.world.clock
        if "by" in step.given:
            clock.now = shift(clock.now, parse_interval(step.given["by"]), 1)
        elif "to" in step.given:
            clock.now = parse_instant(step.given["to"])
        elif step.clock is None:
            raise ValidationError("`by` (a duration), `to` or `clock` (a time) is required")
        return {"clock": format_instant(clock.now)}, await self._expect_value(step)

    async def _expect_value(self, step: Step) -> list[Json]:
        """What else a step expects: figures of the value right after it."""
        expect = step.given.get("expect")
        if not expect:
            return []
        return list(compare_value(expect, self._named(await self._value_at(step, None))))

    async def _value_at(self, step: Step, at: datetime | None) -> Json:
        params = [("wait", "true")]
        # Without a time it is the answer of now, which comes by another, quicker way.
        if at is not None and at != self.world.clock.now:
            params.append(("time", format_instant(at)))
        value: Json = await self.world.call("GET", f"{await self._path(step)}/value", params=params)
        if "startOfPeriod" in step.given.get("expect", {}):
            value["startOfPeriod"] = (await self._period(step, at))["from"]
        return value

    async def _period(self, step: Step, at: datetime | None) -> Json:
        """The usage period that a time is in, as it was told then."""
        with self._at(at):
            told = await self.world.call("GET", await self._path(step))
        period: Json = told.get("currentUsagePeriod", {})
        return period

    @contextmanager
    def _at(self, at: datetime | None) -> Iterator[None]:
        """The clock shows another time meanwhile."""
        clock = self.world.clock
        before = clock.now
        clock.now = at or before
        try:
            yield
        finally:
            clock.now = before

    async def _feature(self, name: str, *, metered: bool = True) -> str:
        """The key of the case's feature; the first step that entitles somebody to it makes it."""
        if name in self._features:
            return self._features[name]
        key = f"{name}_{self._number}"
        meter = {"meterSlug": self._slug} if metered else {}
        await self.world.call("POST", "/api/v1/features", {"key": key, **meter})
        self._features[name] = key
        self._names[key] = name
        return key

    def _of_subject(self, step: Step) -> str:
        return f"/api/v1/subjects/{quote(step.subject, safe='')}/entitlements"

    async def _path(self, step: Step) -> str:
        return f"{self._of_subject(step)}/{await self._feature(step.feature)}"

    def _named(self, value: Any) -> Any:
        return renamed(value, self._names)
