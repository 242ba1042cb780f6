"""Keys, namespaces and portal tokens on a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.meters import event, make_meter, rows, send, settle, total
from tests.support.server import MeterlineServer, eventually, run_cli


def make_key(data: Path, namespace: str, *scopes: str) -> str:
    options = [option for scope in scopes for option in ("--scope", scope)]
    done = run_cli(
        *("keys", "create", "--quiet", "--namespace", namespace, *options, "--data-dir", data)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MeterlineServer, Path]]:
    """A server that has a key, and so is open to nobody else."""
    data = tmp_path_factory.mktemp("access") / "data"
    make_key(data, "default", "admin")
    with MeterlineServer(data) as running:
        yield running, data


def with_key(server: MeterlineServer, key: str) -> httpx.Client:
    return server.client(headers={"authorization": f"Bearer {key}"})


def test_an_open_server_refuses_to_listen_to_the_world(tmp_path: Path) -> None:
    done = run_cli("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", tmp_path / "data")
    assert done.returncode != 0
    assert "refusing" in done.stdout + done.stderr


def test_namespaces_see_nothing_of_each_other(closed: tuple[MeterlineServer, Path]) -> None:
    server, data = closed
    clients = [with_key(server, make_key(data, name, "admin")) for name in ("one", "two")]
    for weight, client in enumerate(clients, start=1):
        make_meter(client, "usage", "SUM", eventType="t", valueProperty="$.n")
        send(client, [event("same", data={"n": weight})])
        settle(client)
    for weight, client in enumerate(clients, start=1):
        assert total(client, "usage") == weight
        assert len(client.get("/api/v1/events", params={"type": "t"}).json()) == 1
        assert len(client.get("/api/v1/meters").json()) == 1
    clients[0].delete("/api/v1/meters/usage").raise_for_status()
    assert total(clients[1], "usage") == 2
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [("ingest", {"ingest"}), ("read", {"read"}), ("admin", {"ingest", "read", "admin"})],
)
def test_a_key_does_what_its_scopes_say(
    closed: tuple[MeterlineServer, Path], scope: str, allowed: set[str]
) -> None:
    server, data = closed
    with with_key(server, make_key(data, f"scope-{scope}", scope)) as client:
        answers = {
            "ingest": client.post("/api/v1/events", json=event("1")),
            "read": client.get("/api/v1/meters"),
            "admin": client.post(
                "/api/v1/meters", json={"slug": "m", "aggregation": "COUNT", "eventType": "t"}
            ),
        }
        for name, response in answers.items():
            assert response.is_success == (name in allowed), response.text
            assert response.is_success or response.status_code == 403


@pytest.mark.parametrize("authorization", [None, "Bearer nonsense", "Basic eDp5", "Bearer"])
def test_without_a_key_nothing_is_answered(
    closed: tuple[MeterlineServer, Path], authorization: str | None
) -> None:
    headers = {"authorization": authorization} if authorization else {}
    with closed[0].client(headers=headers) as client:
        for response in (
            client.get("/api/v1/meters"),
            client.post("/api/v1/events", json=event("1")),
        ):
            assert response.status_code == 401
            assert response.headers["content-type"] == "application/problem+json"


def test_a_portal_token_shows_its_subject_until_it_is_invalid(
    closed: tuple[MeterlineServer, Path],
) -> None:
    server, data = closed
    with with_key(server, make_key(data, "portal", "admin")) as admin:
        make_meter(admin, "shown", "COUNT", eventType="t")
        send(admin, [event("1", subject="me"), event("2", subject="you")])
        settle(admin)
        made = admin.post("/api/v1/portal/tokens", json={"subject": "me"})
        made.raise_for_status()
        with with_key(server, made.json()["token"]) as portal:
            path = "/api/v1/portal/meters/shown/query"
            for parameters in ({}, {"subject": "you"}):
                [row] = portal.get(path, params=parameters).json()["data"]
                assert row["value"] == 1
            assert portal.get("/api/v1/meters").status_code == 401
            admin.post("/api/v1/portal/tokens/invalidate", json={}).raise_for_status()
            eventually(lambda: portal.get(path).status_code == 401, "the token is refused", 1.5)
        assert len(rows(admin, "shown", groupBy="subject")) == 2


def test_a_revoked_key_is_refused_within_a_second(closed: tuple[MeterlineServer, Path]) -> None:
    server, data = closed
    key = make_key(data, "revoked", "read")
    with with_key(server, key) as client:
        assert client.get("/api/v1/meters").status_code == 200
        listed = run_cli("keys", "list", "--json", "--namespace", "revoked", "--data-dir", data)
        assert listed.returncode == 0, listed.stderr
        [made] = json.loads(listed.stdout)
        revoked = run_cli("keys", "revoke", made["id"], "--data-dir", data)
        assert revoked.returncode == 0, revoked.stderr
        eventually(lambda: client.get("/api/v1/meters").status_code == 401, "refused", 1.5)
