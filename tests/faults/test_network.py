"""The network between one sink and the broker loses every packet."""

from tests.faults.deployment import Deployment, wait_all_ready, wait_not_ready
from tests.support.cluster import ClusterProcess
from tests.support.server import eventually

SEED = 20260117


def partitions(sink: ClusterProcess) -> int:
    """How many a sink says that it has."""
    return len(sink.metric("meterline_sink_lag_events"))


def test_a_sink_is_cut_off_from_the_broker(deployment: Deployment) -> None:
    link = deployment.backends.link
    print(f"by a {link.kind}")
    lonely = deployment.cluster.add("sink")
    link.attach(lonely)
    with deployment.traffic("partition", SEED) as traffic:
        lonely.spawn().wait_ready()

        eventually(lambda: partitions(lonely) > 0, "the lonely sink has partitions", 60.0)
        deployment.cluster.wait_shared()
        traffic.wait_acknowledged(20)
        link.cut()
        try:
            wait_not_ready(lonely, "log")
            others = [sink for sink in deployment.sinks if sink is not lonely and sink.is_running]
            everything = deployment.cluster.partitions

            def taken_over() -> bool:
                return sum(map(partitions, others)) == everything

            eventually(taken_over, "the others have all partitions", 60.0)
            traffic.wait_acknowledged(20)
            for sink in others:
                sink.wait_ready(30.0)
        finally:
            link.heal()
        wait_all_ready(deployment)
        # It has a share again, and nobody had to ask for it.
        deployment.cluster.wait_shared()
        eventually(lambda: partitions(lonely) > 0, "the lonely sink is back", 60.0)
    deployment.require_right(traffic)
    assert lonely.stop() == 0, lonely.tail()
