"""Faults of all kinds, several at a time, by a schedule that a seed makes."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.faults.deployment import LONG, Deployment, memory, reap, wait_all_ready
from tests.support.cluster import ClusterProcess

SEED = int(os.environ.get("METERLINE_FAULTS_SEED", "20260118"))
_STEPS = 150 if LONG else 10
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done, and what ends it; `place` is what can have one fault at a time."""

    name: str
    place: str
    begin: Callable[[], object]
    end: Callable[[], object]


def kinds(deployment: Deployment) -> list[Fault]:
    """All faults of the schedule."""
    broker, postgres = deployment.backends.broker, deployment.backends.postgres
    bridge = deployment.backends.bridge
    refuse = {"kind": "refuse", "times": -1}
    lose = {"kind": "lose", "match": "INSERT INTO", "times": -1}
    found = [
        Fault("broker killed", "broker", broker.kill, broker.start),
        Fault("broker stopped", "broker", broker.stop, broker.start),
        Fault("broker frozen", "broker", broker.freeze, broker.thaw),
        Fault("postgres killed", "postgres", postgres.kill, postgres.start),
        Fault("postgres stopped", "postgres", postgres.stop, postgres.start),
        Fault("postgres frozen", "postgres", postgres.pause, postgres.resume),
        Fault("store killed", "store", bridge.kill, bridge.start),
        Fault("store frozen", "store", bridge.freeze, bridge.thaw),
        Fault("store away", "store", lambda: bridge.inject(refuse), bridge.inject),
        Fault("answers lost", "store", lambda: bridge.inject(lose), bridge.inject),
    ]
    for one in (*deployment.gateways, *deployment.sinks[:2], deployment.api):
        found.append(Fault(f"{one.name} killed", one.name, one.kill, one.spawn))
        found.append(Fault(f"{one.name} frozen", one.name, one.freeze, one.thaw))
    extra = deployment.cluster.add("sink")
    found.append(Fault("a sink more", extra.name, extra.spawn, lambda: ended(extra)))
    return found


def ended(one: ClusterProcess) -> None:
    """A process is not needed any more."""
    if one.is_running:
        one.kill()
    else:
        reap(one)


def test_faults_by_a_seeded_schedule(deployment: Deployment) -> None:
    print(f"seed {SEED}: METERLINE_FAULTS_SEED={SEED}")
    choice = Random(SEED)
    all_kinds = kinds(deployment)
    active: list[Fault] = []
    pause = threading.Event()
    with deployment.traffic("mixed", SEED) as traffic:
        try:
            for _ in range(_STEPS):
                places = {one.place for one in active}
                free = [one for one in all_kinds if one.place not in places]
                if active and (len(active) == _AT_ONCE or choice.random() < 0.4):
                    one = active.pop(choice.randrange(len(active)))
                    print("end:", one.name)
                    one.end()
                else:
                    one = choice.choice(free)
                    print("begin:", one.name)
                    active.append(one)
                    one.begin()
                # The schedule's own time, for nothing in particular is to happen meanwhile.
                pause.wait(choice.uniform(0.1, 8.0 if LONG else 2.5))
        finally:
            for one in active:
                print("end:", one.name)
                one.end()
        for process in deployment.cluster.processes:
            # Who gave up waiting for a backend at its start is started again, as by Kubernetes.
            if process._process is not None and not process.is_running:
                print("started again:", process.name)
                reap(process)
                process.spawn()
        wait_all_ready(deployment, 120.0)
        traffic.wait_acknowledged(20)
    deployment.require_right(traffic)
    print(memory(deployment))
