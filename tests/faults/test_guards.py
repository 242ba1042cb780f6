"""Faults at the worst moment; and controls: with a guard off, the same fault does harm."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.deployment import (
    Deployment,
    faulty,
    honest,
    respawn,
    wait_all_ready,
    wait_died,
)
from tests.support.cluster import ClusterProcess
from tests.support.server import eventually


def off(guards: Sequence[str]) -> list[str]:
    """The launcher's arguments."""
    return [word for guard in guards for word in ("--without", guard)]


def recover(deployment: Deployment) -> None:
    """Start everything as it is."""
    for one in (*deployment.gateways, *deployment.sinks):
        if not one.is_running or one.program != honest():
            respawn(one)
    wait_all_ready(deployment)


def gateways_die_while_the_broker_is_frozen(
    deployment: Deployment, guards: Sequence[str], _: Path
) -> list[str]:
    """What was acknowledged is not in a gateway's memory alone."""
    broker = deployment.backends.broker
    if guards:
        for one in deployment.gateways:
            respawn(one, faulty(*off(guards))).wait_ready()
    with deployment.traffic(f"acks-{len(guards)}") as traffic:
        broker.freeze()
        try:
            if guards:
                traffic.wait_acknowledged(10)
            else:
                traffic.wait_refused(3)
            for one in deployment.gateways:
                one.kill()
        finally:
            broker.thaw()
        recover(deployment)
    return deployment.wrong(traffic)


def sinks_die(deployment: Deployment, guards: Sequence[str], step: str) -> list[str]:
    """A plan that was begun is applied again, and changes nothing twice."""
    with deployment.traffic(f"{step}-{len(guards)}") as traffic:
        for sink in deployment.sinks:
            respawn(sink, faulty(*off(guards), "--kill-at", step))
        for sink in deployment.sinks:
            wait_died(sink)
            if guards:
                respawn(sink, faulty(*off(guards)))
        if guards:
            wait_all_ready(deployment)
        recover(deployment)
    return deployment.wrong(traffic)


def held_at(
    deployment: Deployment, guards: Sequence[str], folder: Path
) -> tuple[ClusterProcess, Path]:
    """A sink that waits in mid-plan, until a file is there."""
    one, other = deployment.sinks[:2]
    file = folder / "step"
    respawn(one, faulty(*off(guards), "--hold-at", "judged", file))
    if guards:
        respawn(other, faulty(*off(guards)))
    eventually(Path(f"{file}.held").exists, "the sink is in mid-plan", 60.0)
    return one, Path(f"{file}.go")


def the_store_is_restarted_in_mid_plan(
    deployment: Deployment, guards: Sequence[str], folder: Path
) -> list[str]:
    """Emptied scratch tables are noticed before anything is committed."""
    bridge = deployment.backends.bridge
    with deployment.traffic(f"scratch-{len(guards)}") as traffic:
        _, go = held_at(deployment, guards, folder)
        bridge.kill()
        bridge.start()
        go.touch()
        wait_all_ready(deployment)
        recover(deployment)
    return deployment.wrong(traffic)


def a_sink_wakes_up_after_others_took_over(
    deployment: Deployment, guards: Sequence[str], folder: Path
) -> list[str]:
    """It cannot finish the plan that it was at."""
    with deployment.traffic(f"fencing-{len(guards)}") as traffic:
        zombie, go = held_at(deployment, guards, folder)
        zombie.freeze()
        other = deployment.sinks[1]

        def has_all() -> bool:
            found = other.metric("meterline_sink_lag_events")
            return len(found) == deployment.cluster.partitions

        eventually(has_all, "another sink has all partitions", 60.0)
    eventually(
        lambda: other.readiness()[1]["sink"]["lagEvents"] == 0, "the other one did it all", 60.0
    )
    go.touch()
    zombie.thaw()
    deployment.settle()
    recover(deployment)
    return deployment.wrong(traffic)


def sinks_die_at_points(deployment: Deployment, guards: Sequence[str], _: Path) -> list[str]:
    """Points are there, and the position does not say so."""
    return sinks_die(deployment, guards, "points")


def sinks_die_at_judged(deployment: Deployment, guards: Sequence[str], _: Path) -> list[str]:
    """Nothing is there yet, and the position must not say so."""
    return sinks_die(deployment, guards, "judged")


SCENARIOS: dict[str, Callable[[Deployment, Sequence[str], Path], list[str]]] = {
    "acks": gateways_die_while_the_broker_is_frozen,
    "tokens": sinks_die_at_points,
    "order": sinks_die_at_judged,
    "scratch": the_store_is_restarted_in_mid_plan,
    "fencing": a_sink_wakes_up_after_others_took_over,
}
HARM = {
    "acks": ("lost",),
    "tokens": ("sum",),
    # Events, or what they add to balances: whichever of a plan's steps came too late.
    "order": ("lost", "usage"),
    "scratch": ("lost", "usage"),
    "fencing": ("live usage",),
}


@pytest.mark.parametrize("guard", ["acks", "scratch", "fencing"])
def test_the_worst_moment(deployment: Deployment, guard: str, tmp_path: Path) -> None:
    # Deaths at each step are in test_processes.py.
    with deployment.cluster.explaining():
        assert SCENARIOS[guard](deployment, (), tmp_path) == []


@pytest.mark.parametrize("guard", SCENARIOS)
def test_without_its_guard_it_does_harm(broken: Deployment, guard: str, tmp_path: Path) -> None:
    with broken.cluster.explaining():
        wrong = SCENARIOS[guard](broken, (guard,), tmp_path)
        print("\n".join(wrong))
        assert any(harm in one for one in wrong for harm in HARM[guard]), wrong
