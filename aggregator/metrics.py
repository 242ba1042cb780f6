"""What the sink and the queries count, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Histogram

_BATCH_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class SinkMetrics:
    """Counters of the sink. Lag is a gauge of the sink's status, read when it is scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._stored = Counter(
            "meterline_events_stored", "Events stored and counted.", registry=registry
        )
        self._duplicates = Counter(
            "meterline_events_duplicate",
            "Events dropped because the same event was stored before.",
            registry=registry,
        )
        self._conflicts = Counter(
            "meterline_events_conflict",
            "Events kept but not counted: their source and id were stored with other content.",
            registry=registry,
        )
        self._faults = Counter(
            "meterline_meter_faults",
            "Values that a meter could not use, one per event and series.",
            registry=registry,
        )
        self._plan_seconds = Histogram(
            "meterline_sink_plan_seconds",
            "Time to apply one plan.",
            buckets=_BATCH_BUCKETS,
            registry=registry,
        )
        self.dead_letters = Counter(
            "meterline_dead_letters", "Records set aside as unreadable.", registry=registry
        )
        self.failures = Counter(
            "meterline_sink_failures", "Plans that failed and are tried again.", registry=registry
        )

    def applied(
        self, *, events: int, duplicates: int, conflicts: int, faults: int, seconds: float
    ) -> None:
        """One plan was applied."""
        self._stored.inc(events)
        self._duplicates.inc(duplicates)
        self._conflicts.inc(conflicts)
        self._faults.inc(faults)
        self._plan_seconds.observe(seconds)
