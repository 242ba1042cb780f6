"""Gateways, sinks and API servers die, hang, come and go under load."""

from random import Random

from aggregator.worker import STEPS
from tests.faults.deployment import (
    LONG,
    Deployment,
    faulty,
    memory,
    respawn,
    wait_all_ready,
    wait_died,
)
from tests.support.server import eventually

SEED = 20260115


def test_gateways_are_killed(deployment: Deployment) -> None:
    choice = Random(SEED)
    with deployment.traffic("gateways", SEED) as traffic:
        for gateway in deployment.gateways:
            gateway.kill()
            # Clients find the other one.
            traffic.wait_refused()
            traffic.wait_acknowledged(choice.randint(5, 20))
            gateway.spawn().wait_ready()
            traffic.wait_acknowledged(choice.randint(5, 20))
    deployment.require_right(traffic)


def test_an_api_server_is_killed(deployment: Deployment) -> None:
    with deployment.traffic("api", SEED) as traffic:
        deployment.api.kill()
        traffic.wait_acknowledged(20)
        for one in (*deployment.gateways, *deployment.sinks):
            one.wait_ready(30.0)
        deployment.api.spawn().wait_ready()
    deployment.require_right(traffic)


def test_sinks_are_killed_at_random(deployment: Deployment) -> None:
    choice = Random(SEED)
    with deployment.traffic("sinks", SEED) as traffic:
        for _ in range(20 if LONG else 3):
            victims = choice.choice([[0], [1], [0, 1]])
            print("killed:", victims)
            for victim in victims:
                deployment.sinks[victim].kill()
            traffic.wait_acknowledged(choice.randint(1, 40))
            for victim in victims:
                deployment.sinks[victim].spawn()
            traffic.wait_acknowledged(choice.randint(1, 40))
    wait_all_ready(deployment)
    deployment.require_right(traffic)


def test_sinks_are_killed_at_every_step(deployment: Deployment) -> None:
    """Two at a time: nobody is there to go on until one of them is started again."""
    with deployment.traffic("steps", SEED) as traffic:
        for steps in zip(STEPS[::2], STEPS[1::2], strict=True):
            for sink, step in zip(deployment.sinks, steps, strict=True):
                respawn(sink, faulty("--kill-at", step))
            for sink in deployment.sinks:
                wait_died(sink)
    for sink in deployment.sinks:
        respawn(sink)
    wait_all_ready(deployment)
    deployment.require_right(traffic)


def test_sinks_come_and_go(deployment: Deployment) -> None:
    third = deployment.cluster.add("sink")
    with deployment.traffic("rebalances", SEED) as traffic:
        for turn in range(30 if LONG else 3):
            third.spawn()
            eventually(
                lambda: (
                    third.readiness()[0] == 200 and bool(third.metric("meterline_sink_lag_events"))
                ),
                "the third sink has partitions",
                60.0,
            )
            traffic.wait_acknowledged(10)
            if turn % 2:
                third.kill()
            else:
                assert third.stop() == 0, third.tail()
            traffic.wait_acknowledged(10)
    deployment.require_right(traffic)
    print(memory(deployment))
