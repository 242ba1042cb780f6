"""CloudEvents 1.0.2, clause by clause: the shared cases, each with its verdict and expectations."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from ingest.faults import Accepted
from ingest.limits import IngestLimits
from ingest.parse import Parser
from meterline.kernel.errors import MeterlineError
from meterline.kernel.instants import parse_instant
from tests.support.shared import shared_path

PARSER = Parser(IngestLimits(require_subject=False))


def cases() -> list[dict[str, Any]]:
    try:
        path = shared_path("cases/cloudevents.json")
    except pytest.skip.Exception:
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text())["cases"]
    return found


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["id"])
def test_case(case: dict[str, Any]) -> None:
    status, accepted = read(case)
    wanted = case["verdict"] if case["verdict"] != "policy" else case["want"]
    if wanted.startswith(("valid", "accept")):
        assert status == 204
    elif wanted == "4xx or accept":
        assert status == 204 or 400 <= status < 500
    elif wanted.isdigit():
        assert status == int(wanted)
    else:
        assert wanted in ("invalid", "reject", "4xx"), f"unknown verdict {wanted}"
        assert 400 <= status < 500
    if accepted is not None:
        check(case.get("expect", {}), accepted)


def read(case: Mapping[str, Any]) -> tuple[int, Accepted | None]:
    try:
        return 204, parse(case)
    except MeterlineError as error:
        return error.status, None


def parse(case: Mapping[str, Any]) -> Accepted:
    body = body_of(case)
    if case["mode"].startswith("kafka"):
        headers = [(name, header_bytes(value)) for name, value in case["headers"]]
        key = case["key"].encode() if "key" in case else None
        return PARSER.parse_kafka(headers, key, body)
    named = [(name.lower().encode(), header_bytes(value)) for name, value in case["headers"]]
    return PARSER.parse(named, dict(named).get(b"content-type"), body)


def header_bytes(value: str) -> bytes:
    return base64.b64decode(value[4:]) if value.startswith("b64:") else value.encode()


def body_of(case: Mapping[str, Any]) -> bytes:
    if "body_b64" in case:
        return base64.b64decode(str(case["body_b64"]))
    if "body" in case:
        return str(case["body"]).encode("utf-8", "surrogatepass")
    event = b'{"specversion":"1.0","id":"x","type":"t","source":"/s","data":%b}'
    [(kind, size)] = case["gen"].items()
    if kind == "nest_data":
        return bytes(event % (b"[" * size + b"]" * size))
    assert kind == "many_members"
    return event % json.dumps({f"m{number}": number for number in range(size)}).encode()


def check(expected: Mapping[str, Any], accepted: Accepted) -> None:
    events = json.loads(accepted.events)
    assert len(events) == accepted.count == expected.get("count", accepted.count)
    for name, value in expected.items():
        if name not in ("count", "specversion"):
            found = attribute(events[0], name)
            if name == "time":
                assert parse_instant(found) == parse_instant(value)
            else:
                assert found == value, name


def attribute(event: Mapping[str, Any], name: str) -> Any:
    if name == "data" and "_raw" in event:
        return json.loads(event["_raw"])
    return event.get(name, event.get("_ext", {}).get(name))


def test_the_cases_are_here() -> None:
    shared_path("cases/cloudevents.json")
    assert len(cases()) >= 152
