"""From an event to a webhook, through a whole server and over real connections."""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from tests.conftest import StartServer
from tests.support.server import eventually

ALLOW = (
    "--set",
    "notifications.allow_private_targets=true",
    "--set",
    "notifications.poll_seconds=0.1",
)


_FOLDER = Path(__file__).parents[1] / "sdk-js"


class Inbox:
    """Webhooks that arrived: (headers, body)."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[tuple[dict[str, str], bytes]] = []

    def kinds(self) -> list[tuple[str, Any]]:
        bodies = [json.loads(body) for _, body in self.got]
        return [(one["type"], one["data"].get("threshold", {}).get("value")) for one in bodies]


@contextmanager
def inbox() -> Iterator[Inbox]:
    box = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            box.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    box.url = f"http://127.0.0.1:{server.server_address[1]}/in"
    try:
        yield box
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def post(client: httpx.Client, path: str, body: Any, status: int = 201) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def use(client: httpx.Client, event_id: str, tokens: int) -> None:
    event = {"specversion": "1.0", "id": event_id, "source": "app", "type": "llm",
             "subject": "customer-1", "data": {"tokens": tokens}}  # fmt: skip
    post(client, "/api/v1/events", event, 204)


def set_up(client: httpx.Client, box: Inbox, aggregation: str = "SUM") -> str:
    meter = {"slug": "tokens", "eventType": "llm", "aggregation": aggregation,
             "valueProperty": "$.tokens"}  # fmt: skip
    post(client, "/api/v1/meters", meter)
    post(client, "/api/v1/features", {"key": "llm", "name": "LLM", "meterSlug": "tokens"})
    entitlement = {"type": "metered", "featureKey": "llm", "usagePeriod": {"interval": "MONTH"}}
    post(client, "/api/v1/subjects/customer-1/entitlements", entitlement)
    channel = post(
        client,
        "/api/v1/notification/channels",
        {"type": "WEBHOOK", "name": "hook", "url": box.url},
    )
    rule = {"name": "rule", "channels": [channel["id"]], "features": ["llm"]}
    thresholds = [{"type": "usage_percentage", "value": 50}, {"type": "balance_value", "value": 5}]
    post(
        client,
        "/api/v1/notification/rules",
        {**rule, "type": "entitlements.balance.threshold", "thresholds": thresholds},
    )
    for kind in ("entitlements.exhausted", "entitlements.reset", "grants.expiring"):
        post(client, "/api/v1/notification/rules", {**rule, "type": kind})
    return str(channel["signingSecret"])


def grant(client: httpx.Client, amount: int) -> None:
    path = "/api/v1/subjects/customer-1/entitlements/llm"
    created_at = client.get(path).json()["createdAt"]
    expiration = {"duration": "YEAR", "count": 1}
    body = {"amount": amount, "effectiveAt": created_at, "expiration": expiration}
    post(client, f"{path}/grants", body)


def test_an_event_becomes_a_webhook(start_server: StartServer) -> None:
    with inbox() as box:
        server = start_server(arguments=ALLOW)
        with server.client() as client:
            secret = set_up(client, box)
            grant(client, 100)
            use(client, "1", 40)
            use(client, "2", 20)
            eventually(lambda: len(box.got) == 1, "a webhook")
            headers, body = box.got[0]
            seen = Webhook(secret).verify(body, headers)
            assert seen["data"]["value"]["usage"] == 60
            assert seen["data"]["threshold"] == {"type": "usage_percentage", "value": 50}
            assert seen["data"]["feature"]["key"] == "llm"
            assert seen["data"]["subject"]["key"] == "customer-1"
            # Across a restart, what has fired has fired.
        server.stop()
        server.restart()
        with server.client() as client:
            use(client, "3", 40)
            eventually(lambda: len(box.got) == 3, "the other webhooks")
            client.post(
                "/api/v1/subjects/customer-1/entitlements/llm/reset", json={}
            ).raise_for_status()
            eventually(lambda: len(box.got) >= 4, "the reset")
            assert sorted(box.kinds(), key=str) == [
                ("entitlements.balance.threshold", 5),
                ("entitlements.balance.threshold", 50),
                ("entitlements.exhausted", None),
                ("entitlements.reset", None),
            ]

            def states() -> list[str]:
                listed = client.get("/api/v1/notification/events").json()
                return [one["deliveryStatus"][0]["state"] for one in listed["items"]]

            # The answer is with the server before it has written it down.
            eventually(lambda: states() == ["SUCCESS"] * 4, "all delivered")


def test_a_meter_that_does_not_add_up_is_looked_at(start_server: StartServer) -> None:
    with inbox() as box:
        server = start_server(arguments=(*ALLOW, "--set", "notifications.untold_seconds=1"))
        with server.client() as client:
            set_up(client, box, aggregation="LATEST")
            grant(client, 100)
            use(client, "1", 60)
            eventually(lambda: len(box.got) == 1, "a webhook")


def test_events_that_no_meter_can_use(start_server: StartServer) -> None:
    with inbox() as box:
        server = start_server(arguments=(*ALLOW, "--set", "notifications.rejected_seconds=0.5"))
        with server.client() as client:
            set_up(client, box)
            (channel,) = client.get("/api/v1/notification/channels").json()["items"]
            rule = {"type": "events.rejected", "name": "rule", "channels": [channel["id"]]}
            post(client, "/api/v1/notification/rules", rule)
            for number, data in enumerate([{"tokens": 1}, {"tokens": "x"}, {}, {"tokens": "y"}]):
                event = {"specversion": "1.0", "id": str(number), "source": "app", "type": "llm"}
                post(client, "/api/v1/events", {**event, "subject": "s", "data": data}, 204)
            reasons: dict[str, int] = {}

            def counted() -> bool:
                reasons.clear()
                for _, body in box.got:
                    for one in json.loads(body)["data"]["reasons"]:
                        reasons[one["reason"]] = reasons.get(one["reason"], 0) + one["count"]
                return sum(reasons.values()) == 3

            eventually(counted, "three rejected events")
            assert reasons == {
                "value cannot be parsed as a decimal": 2,
                'invalid event: missing value property: "$.tokens"': 1,
            }


def test_a_private_target_is_refused(start_server: StartServer) -> None:
    with inbox() as box:
        server = start_server()
        with server.client() as client:
            for url in (box.url, "http://localhost:1/", "http://169.254.169.254/latest"):
                body = {"type": "WEBHOOK", "name": "hook", "url": url}
                response = client.post("/api/v1/notification/channels", json=body)
                assert response.status_code == 400, url
                assert "public internet" in response.json()["detail"]


def test_the_javascript_library_verifies(start_server: StartServer, node: str) -> None:
    with inbox() as box:
        server = start_server(arguments=ALLOW)
        with server.client() as client:
            secret = set_up(client, box)
            (rule, *_) = client.get("/api/v1/notification/rules").json()["items"]
            tested = post(client, f"/api/v1/notification/rules/{rule['id']}/test", None)
            eventually(lambda: len(box.got) == 1, "a webhook")
        headers, body = box.got[0]
        done = subprocess.run(
            [node, "webhook.mjs"],
            cwd=_FOLDER,
            input=json.dumps({"secret": secret, "headers": headers, "body": body.decode()}),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == tested["payload"]


@pytest.mark.parametrize("version", ["185", "232"])
def test_every_notification_call_of_the_sdk(
    start_server: StartServer, node: str, version: str
) -> None:
    server = start_server(arguments=("--set", "notifications.enabled=false"))
    done = subprocess.run(
        [node, "notifications.mjs", version, server.url],
        cwd=_FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["channels", "rules", "events", "deleted"]
