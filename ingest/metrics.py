"""What ingest counts. Plain numbers on the hot path; Prometheus reads them when it scrapes."""

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class IngestMetrics:
    """A Prometheus collector: register it with the server's registry."""

    def __init__(self) -> None:
        self.events = 0
        self.batches = 0
        self.bytes = 0
        self.rejected: dict[str, int] = {}
        self._latency = [0] * (len(_BUCKETS) + 1)
        self._latency_sum = 0.0

    def accept(self, events: int, size: int) -> None:
        """A batch became durable; `size` is that of the body as it was parsed."""
        self.events += events
        self.batches += 1
        self.bytes += size

    def reject(self, reason: str) -> None:
        """A request was refused."""
        self.rejected[reason] = self.rejected.get(reason, 0) + 1

    def time(self, seconds: float) -> None:
        """A request was answered, whatever the answer."""
        self._latency[bisect_left(_BUCKETS, seconds)] += 1
        self._latency_sum += seconds

    def collect(self) -> Iterator[Metric]:
        """The metrics, as Prometheus wants them."""
        yield CounterMetricFamily(
            "meterline_ingest_events", "Events accepted and durable.", value=self.events
        )
        yield CounterMetricFamily(
            "meterline_ingest_batches", "Batches accepted and durable.", value=self.batches
        )
        yield CounterMetricFamily(
            "meterline_ingest_bytes", "Bytes of accepted bodies, decompressed.", value=self.bytes
        )
        rejected = CounterMetricFamily(
            "meterline_ingest_rejected", "Requests refused, by reason.", labels=["reason"]
        )
        for reason, count in list(self.rejected.items()):
            rejected.add_metric([reason], count)
        yield rejected
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip([*map(str, _BUCKETS), "+Inf"], self._latency, strict=True):
            total += count
            buckets.append((bound, total))
        yield HistogramMetricFamily(
            "meterline_ingest_request_seconds",
            "From a request's head to its answer.",
            buckets=buckets,
            sum_value=self._latency_sum,
        )
