"""Short words for what end-to-end tests do over HTTP."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import httpx

from tests.support.server import eventually

Event = dict[str, Any]
_PREPARED_SECONDS = 60.0
Row = dict[str, Any]

BATCH = "application/cloudevents-batch+json"


def make_meter(client: httpx.Client, slug: str, aggregation: str, **fields: Any) -> Row:
    """Create a meter and wait until it counts everything that is stored."""
    response = client.post(
        "/api/v1/meters", json={"slug": slug, "aggregation": aggregation, **fields}
    )
    assert response.status_code in (200, 201), response.text
    meter: Row = response.json()
    return meter


def send(client: httpx.Client, events: Sequence[Mapping[str, Any] | str]) -> None:
    """Send one batch, which must be acknowledged. A string is the JSON text of an event."""
    texts = [event if isinstance(event, str) else json.dumps(event) for event in events]
    response = client.post(
        "/api/v1/events", content=f"[{','.join(texts)}]", headers={"content-type": BATCH}
    )
    assert response.status_code == 204, response.text


def settle(client: httpx.Client, seconds: float = 30.0) -> None:
    """Wait until everything that was acknowledged before this call can be seen in queries.

    The sink has to have been at its end once: under constant load that may never be.
    """

    def caught_up() -> bool:
        checks = client.get("/readyz").json()["checks"]
        return bool(checks["sink"]["lagEvents"] == 0)

    eventually(caught_up, "the sink has stored everything", seconds)


def event(name: str, **attributes: Any) -> Event:
    """A CloudEvent with this id; what is not given has a plain value.

    The source is made of the type, so that tests with types of their own do not share ids.
    """
    source = f"test/{attributes.get('type', 't')}"
    plain = {"specversion": "1.0", "id": name, "source": source, "type": "t", "subject": "s"}
    return {**plain, **attributes}


def rows(client: httpx.Client, slug: str, **parameters: Any) -> list[Row]:
    """The rows of a meter query, with exact numbers. After a 503 it tries again, as clients do."""
    response = eventually(
        lambda: _answered(client, slug, parameters), f"{slug} can be queried", _PREPARED_SECONDS
    )
    assert response.status_code == 200, response.text
    data: list[Row] = json.loads(response.text, parse_float=Decimal, parse_int=Decimal)["data"]
    return data


def _answered(
    client: httpx.Client, slug: str, parameters: Mapping[str, Any]
) -> httpx.Response | None:
    response = client.get(f"/api/v1/meters/{slug}/query", params=dict(parameters))
    return None if response.status_code == 503 else response


def total(client: httpx.Client, slug: str, **parameters: Any) -> Decimal | None:
    """The one value of a query without windows and groups; None when there is no row."""
    found = rows(client, slug, **parameters)
    assert len(found) <= 1, found
    return found[0]["value"] if found else None


def wait_total(client: httpx.Client, slug: str, expected: int, **parameters: Any) -> None:
    """Wait until a meter has counted what is `expected`; it must never be more."""
    found: Decimal | None = None

    def reached() -> bool:
        nonlocal found
        found = total(client, slug, **parameters)
        assert found is None or found <= expected, f"{slug}: {found} of {expected}"
        return found == expected

    try:
        eventually(reached, f"{slug} is {expected}", 60)
    except AssertionError as error:
        raise AssertionError(f"{error}; the last answer: {found}") from error


def batches_of(items: Iterable[str], size: int) -> Iterable[list[str]]:
    """The items in lists of `size`."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
