"""Keys, namespaces and portal tokens on a real server."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.meters import event, make_meter, rows, send, settle, total
from tests.support.server import MeterlineServer, eventually, run_cli


@dataclass(frozen=True)
class Closed:
    """A server that has a key, and so is open to nobody else."""

    server: MeterlineServer
    admin: str

    def key(self, *scopes: str) -> str:
        """A new key, made through the API."""
        with with_key(self.server, self.admin) as client:
            made = client.post("/api/v1/keys", json={"scopes": scopes})
        assert made.is_success, made.text
        return str(made.json()["key"])


def key_by_command(data: Path, namespace: str) -> str:
    done = run_cli(
        *("keys", "create", "--quiet", "--scope", "admin"),
        *("--namespace", namespace, "--data-dir", data),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    data = tmp_path_factory.mktemp("access") / "data"
    admin = key_by_command(data, "default")
    with MeterlineServer(data) as running:
        yield Closed(running, admin)


def with_key(server: MeterlineServer, key: str) -> httpx.Client:
    return server.client(headers={"authorization": f"Bearer {key}"})


def test_an_open_server_refuses_to_listen_to_the_world(tmp_path: Path) -> None:
    done = run_cli("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", tmp_path / "data")
    assert done.returncode != 0
    assert "refusing" in done.stdout + done.stderr


def test_namespaces_see_nothing_of_each_other(closed: Closed) -> None:
    server = closed.server
    keys = [key_by_command(server.data_dir, name) for name in ("one", "two")]
    with with_key(server, keys[0]) as one, with_key(server, keys[1]) as two:
        for weight, client in ((1, one), (2, two)):
            make_meter(client, "usage", "SUM", eventType="t", valueProperty="$.n")
            send(client, [event("same", data={"n": weight})])
            settle(client)
        for weight, client in ((1, one), (2, two)):
            assert total(client, "usage") == weight
            assert len(client.get("/api/v1/events", params={"type": "t"}).json()) == 1
            assert len(client.get("/api/v1/meters").json()) == 1
        one.delete("/api/v1/meters/usage").raise_for_status()
        assert total(two, "usage") == 2


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [("ingest", {"ingest"}), ("read", {"read"}), ("admin", {"ingest", "read", "admin"})],
)
def test_a_key_does_what_its_scopes_say(closed: Closed, scope: str, allowed: set[str]) -> None:
    with with_key(closed.server, closed.key(scope)) as client:
        answers = {
            "ingest": client.post("/api/v1/events", json=event("1")),
            "read": client.get("/api/v1/meters"),
            "admin": client.post(
                "/api/v1/meters",
                json={"slug": f"m_{scope}", "aggregation": "COUNT", "eventType": "t"},
            ),
        }
        for name, response in answers.items():
            assert response.is_success == (name in allowed), response.text
            assert response.is_success or response.status_code == 403


@pytest.mark.parametrize("authorization", [None, "Bearer nonsense", "Basic eDp5", "Bearer"])
def test_without_a_key_nothing_is_answered(closed: Closed, authorization: str | None) -> None:
    headers = {"authorization": authorization} if authorization else {}
    with closed.server.client(headers=headers) as client:
        for response in (
            client.get("/api/v1/meters"),
            client.post("/api/v1/events", json=event("1")),
        ):
            assert response.status_code == 401
            assert response.headers["content-type"] == "application/problem+json"


def test_a_portal_token_shows_its_subject_until_it_is_invalid(
    closed: Closed,
) -> None:
    server = closed.server
    with with_key(server, closed.admin) as admin:
        make_meter(admin, "shown", "COUNT", eventType="portal")
        send(admin, [event(who, type="portal", subject=who) for who in ("me", "you")])
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


def test_a_revoked_key_is_refused_within_a_second(closed: Closed) -> None:
    data = closed.server.data_dir
    key = key_by_command(data, "revoked")
    with with_key(closed.server, key) as client:
        [made] = client.get("/api/v1/keys").json()
        revoked = run_cli("keys", "revoke", made["id"], "--data-dir", data)
        assert revoked.returncode == 0, revoked.stderr
        eventually(lambda: client.get("/api/v1/meters").status_code == 401, "refused", 1.5)
