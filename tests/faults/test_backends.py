"""The broker, PostgreSQL and the store go away, hang, and come back, under load."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.faults.deployment import (
    FROZEN_SECONDS,
    LONG,
    Deployment,
    memory,
    peak_mib,
    wait_all_ready,
    wait_not_ready,
)
from tests.faults.traffic import Traffic
from tests.faults.truth import FEATURE

SEED = 20260116


@contextmanager
def outage(
    deployment: Deployment, begin: Callable[[], object], end: Callable[[], object]
) -> Iterator[None]:
    """Something is away while the block runs; then all is well again by itself."""
    begin()
    try:
        yield
    finally:
        end()
    wait_all_ready(deployment)


def alive(deployment: Deployment) -> bool:
    """Whether every process says that it lives: nobody shall restart it for what is elsewhere."""
    processes = deployment.cluster.processes
    return all(
        httpx.get(f"{one.url}/healthz", timeout=10.0).status_code == 200
        for one in processes
        if one.is_running
    )


def check_status(deployment: Deployment, traffic: Traffic) -> int:
    """What a check of a subject's access answers, from live usage."""
    with deployment.api.client() as api:
        path = f"/api/v1/subjects/{traffic.subjects[0]}/entitlements/{FEATURE}/value"
        return api.get(path).status_code


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_the_broker_is_away(deployment: Deployment, how: str) -> None:
    broker = deployment.backends.broker
    with deployment.traffic(f"broker-{how}", SEED) as traffic:
        with outage(deployment, broker.stop if how == "stopped" else broker.kill, broker.start):
            traffic.wait_refused(3)
            for one in deployment.cluster.processes:
                if one.is_running:
                    wait_not_ready(one, "log")
            assert alive(deployment)
            # What is asked of what is stored needs no broker.
            assert check_status(deployment, traffic) == 200
        traffic.wait_acknowledged(20)
    deployment.require_right(traffic)


def test_the_broker_is_frozen(deployment: Deployment) -> None:
    broker = deployment.backends.broker
    with deployment.traffic("broker-frozen", SEED) as traffic:
        until = time.monotonic() + FROZEN_SECONDS
        with outage(deployment, broker.freeze, broker.thaw):
            traffic.wait_refused(3)
            before = {gateway.name: peak_mib(gateway.pid) for gateway in deployment.gateways}
            flooded = flood(deployment)
            assert set(flooded) == {503}, flooded
            for gateway in deployment.gateways:
                grown = peak_mib(gateway.pid) - before[gateway.name]
                print(f"{gateway.name} grew by {grown:.0f} MiB under {len(flooded)} MiB")
                assert grown < 100
            while time.monotonic() < until:
                for one in (*deployment.gateways, *deployment.sinks, deployment.api):
                    wait_not_ready(one, "log")
                assert alive(deployment)
        traffic.wait_acknowledged(20)
    deployment.require_right(traffic)


def flood(deployment: Deployment) -> list[int]:
    """Many large batches at once to a gateway that cannot get rid of them."""
    gateway = deployment.gateways[0]
    one = {"specversion": "1.0", "id": "x", "source": "flood", "type": "flood", "subject": "s"}
    batch = [{**one, "id": f"{n}", "data": {"text": "x" * 10_000}} for n in range(100)]
    with gateway.client() as client, ThreadPoolExecutor(16) as pool:
        send = lambda _: client.post("/api/v1/events", json=batch).status_code  # noqa: E731
        return list(pool.map(send, range(200)))


@pytest.mark.parametrize("how", ["restarted", "killed", "frozen"])
def test_postgresql_is_away(deployment: Deployment, how: str) -> None:
    postgres = deployment.backends.postgres
    begin, end = {
        "restarted": (postgres.stop, postgres.start),
        "killed": (postgres.kill, postgres.start),
        "frozen": (postgres.pause, postgres.resume),
    }[how]
    with deployment.traffic(f"postgres-{how}", SEED) as traffic:
        with outage(deployment, begin, end):
            for one in (*deployment.gateways, *deployment.sinks, deployment.api):
                wait_not_ready(one, "database")
            # A gateway cannot tell any more who calls.
            traffic.wait_refused(3)
            assert check_status(deployment, traffic) == 503
            assert alive(deployment)
        traffic.wait_acknowledged(20)
    deployment.require_right(traffic)


@pytest.mark.parametrize("how", ["restarted", "frozen", "failing"])
def test_the_store_is_away(deployment: Deployment, how: str) -> None:
    """A restart empties the tables in its memory, between whatever steps of a plan."""
    bridge = deployment.backends.bridge
    begin, end = {
        "restarted": (bridge.kill, bridge.start),
        "frozen": (bridge.freeze, bridge.thaw),
        "failing": (
            lambda: bridge.inject({"kind": "refuse", "times": -1}),
            lambda: bridge.inject(),
        ),
    }[how]
    with deployment.traffic(f"store-{how}", SEED) as traffic:
        with outage(deployment, begin, end):
            for one in (*deployment.sinks, deployment.api):
                wait_not_ready(one, "store")
            # They get on with it, and so do checks of what is known.
            traffic.wait_acknowledged(20)
            for gateway in deployment.gateways:
                gateway.wait_ready(30.0)
            assert check_status(deployment, traffic) == 200
            for sink in deployment.sinks:
                wait_not_ready(sink, "sink", "store")
            wait_not_ready(deployment.api, "freshness", "store")
            assert alive(deployment)
        traffic.wait_acknowledged(20)
    deployment.require_right(traffic)


def test_the_store_is_slow_and_loses_answers(deployment: Deployment) -> None:
    bridge = deployment.backends.bridge
    with deployment.traffic("store-slow", SEED) as traffic:
        for _ in range(10 if LONG else 2):
            bridge.inject(
                {"kind": "slow", "seconds": 1.0, "match": "INSERT INTO points", "times": 2},
                {"kind": "lose", "match": "INSERT INTO points", "times": 2},
                {"kind": "undone", "match": "INSERT INTO events", "times": 2, "code": 241},
                {"kind": "lose", "match": "INSERT INTO keys", "times": 2},
                {"kind": "fail", "match": "staging_", "times": 5, "code": 241},
            )
            traffic.wait_acknowledged(20)
        bridge.inject()
    deployment.require_right(traffic)
    print(memory(deployment))
