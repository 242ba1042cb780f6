"""Whether every acknowledged event counts exactly once, wherever it can be seen."""

import json
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import httpx

from tests.faults.traffic import MODELS, SUBJECTS, TYPE, Traffic, value_of
from tests.support.meters import make_meter, rows

COUNT = "faults_count"
SUM = "faults_sum"
FEATURE = "faults"


def prepare(api: httpx.Client) -> None:
    """Make the meters and the feature that all runs share."""
    make_meter(api, COUNT, "COUNT", eventType=TYPE, groupBy={"n": "$.n", "run": "$.run"})
    groups = {"model": "$.model", "run": "$.run"}
    make_meter(api, SUM, "SUM", eventType=TYPE, valueProperty="$.value", groupBy=groups)
    # Something is always wrong with this one, so that faults are stored with every plan.
    make_meter(api, "faults_absent", "SUM", eventType=TYPE, valueProperty="$.absent")
    feature = {"key": FEATURE, "name": "Faults", "meterSlug": SUM}
    assert api.post("/api/v1/features", json=feature).status_code == 201


def entitle(api: httpx.Client, traffic: Traffic) -> None:
    """Give every subject of a run an entitlement, which keeps live usage."""
    for subject in traffic.subjects:
        body = {
            "type": "metered",
            "featureKey": FEATURE,
            "issueAfterReset": 10**9,
            "usagePeriod": {"interval": "MONTH", "anchor": traffic.began.isoformat()},
            "measureUsageFrom": traffic.began.isoformat(),
        }
        answer = api.post(f"/api/v1/subjects/{subject}/entitlements", json=body)
        assert answer.status_code == 201, answer.text
        _usage(api, subject, {})  # the first one to ask makes the live row


def wrong(api: httpx.Client, traffic: Traffic) -> list[str]:
    """What is not as it has to be; [] when all is well. To be asked once all are counted."""
    counts = _counts(api, traffic)
    found = [*_compare("meter", counts, traffic)]
    found += _compare("events", _listed(api, traffic), traffic)
    sums = {
        (row["subject"], row["groupBy"]["model"]): row["value"]
        for row in rows(api, SUM, groupBy=["subject", "model"], **_of(traffic))
    }
    found += _differences("sum", sums, _sums(traffic, counts))
    by_subject = {subject: Decimal(0) for subject in traffic.subjects}
    for (subject, _), value in sums.items():
        by_subject[subject] += value
    for what, asked in (("usage", {"wait": "true"}), ("live usage", {})):
        usage = {subject: _usage(api, subject, asked) for subject in traffic.subjects}
        found += _differences(what, usage, by_subject)
    return found


def _compare(what: str, counts: dict[int, int], traffic: Traffic) -> Iterable[str]:
    wanted = (
        ("lost", traffic.acknowledged - counts.keys()),
        ("never sent", counts.keys() - traffic.sent),
        ("not once", {number for number, count in counts.items() if count != 1}),
    )
    for kind, numbers in wanted:
        if numbers:
            yield f"{what}: {kind}: {len(numbers)}, e.g. {sorted(numbers)[:5]}"


def _differences(what: str, found: dict[Any, Any], expected: dict[Any, Any]) -> list[str]:
    return [
        f"{what}: {key}: {found.get(key)} and not {expected.get(key)}"
        for key in sorted(found.keys() | expected.keys())
        if found.get(key, 0) != expected.get(key, 0)
    ]


def _of(traffic: Traffic) -> dict[str, str]:
    return {"filterGroupBy[run]": traffic.run}


def _counts(api: httpx.Client, traffic: Traffic) -> dict[int, int]:
    return {
        int(row["groupBy"]["n"]): int(row["value"])
        for row in rows(api, COUNT, groupBy="n", **_of(traffic))
    }


def _listed(api: httpx.Client, traffic: Traffic) -> dict[int, int]:
    counts: Counter[int] = Counter()
    query = {"source": f"faults/{traffic.run}", "limit": "100"}
    while True:
        answer = api.get("/api/v1/events", params=query)
        assert answer.status_code == 200, answer.text
        for one in answer.json():
            # One without the fault that it has to have is as wrong as one that is not there.
            counts[int(one["event"]["id"][1:])] += 1 if "validationError" in one else 2
        if (cursor := answer.headers.get("x-next-cursor")) is None:
            return counts
        query["cursor"] = cursor


def _sums(traffic: Traffic, numbers: Iterable[int]) -> dict[tuple[str, str], Decimal]:
    sums: dict[tuple[str, str], Decimal] = {}
    for number in numbers:
        key = traffic.subjects[number % SUBJECTS], f"m{number % MODELS}"
        sums[key] = sums.get(key, Decimal(0)) + value_of(number)
    return sums


def _usage(api: httpx.Client, subject: str, asked: dict[str, str]) -> Decimal:
    """Without parameters it is answered from live usage alone."""
    path = f"/api/v1/subjects/{subject}/entitlements/{FEATURE}/value"
    answer = api.get(path, params=asked)
    assert answer.status_code == 200, answer.text
    usage = json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)["usage"]
    assert isinstance(usage, Decimal)
    return usage
