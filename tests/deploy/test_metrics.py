"""Rules and dashboards ask for metrics that the server has."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from prometheus_client import CollectorRegistry

from aggregator.metrics import SinkMetrics
from ingest.metrics import IngestMetrics
from meterline.eventlog.memory import MemoryLog
from meterline.server.kafka import KafkaMetrics
from meterline.server.probes import FreshnessGauge, SinkGauges
from meterline.server.telemetry import RequestObserver, new_registry
from tests.deploy.files import DASHBOARD, RULES, expressions

_NAME = re.compile(r"\b(?:meterline|process)_[a-z0-9_]+\b")
_LABELS = re.compile(r"\{([^}]*)\}")
_OF_PROMETHEUS = {"namespace", "pod", "job", "instance"}
"""Labels that scraping adds."""


async def _nothing(*_: Any) -> Any:
    return []


def _registry() -> CollectorRegistry:
    """Everything that a server registers, over parts that do nothing."""
    registry = new_registry()
    RequestObserver(cast(Any, _nothing), registry)
    metrics = IngestMetrics()
    metrics.reject("reason")
    registry.register(metrics)
    SinkMetrics(registry)
    SinkGauges(registry, _nothing, MemoryLog())
    FreshnessGauge(registry, cast(Any, _nothing), lambda: datetime(2026, 1, 1, tzinfo=UTC))
    ends = SimpleNamespace(buffered_bytes=0, rebuilds=0, rebalances=0, forwarded=0)
    registry.register(KafkaMetrics(cast(Any, ends), cast(Any, ends)))
    return registry


def _exposed() -> Iterator[str]:
    for family in _registry().collect():
        if family.type == "counter":
            yield f"{family.name}_total"
        elif family.type == "histogram":
            yield from (f"{family.name}_{end}" for end in ("bucket", "sum", "count"))
        else:
            yield family.name


@pytest.mark.parametrize("expression", [*dict.fromkeys(expressions())])
def test_every_metric_that_is_asked_for_exists(expression: str) -> None:
    named = set(_NAME.findall(_LABELS.sub("", expression)))
    recorded = "meterline:" in expression
    assert named or recorded
    assert named <= set(_exposed())


def test_every_recorded_name_that_is_asked_for_is_recorded() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    asked = {name for text in expressions() for name in re.findall(r"meterline:[\w:]+", text)}
    assert asked <= recorded


def test_lag_rejects_latency_and_freshness_are_shown_and_watched() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    shown = " ".join(
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    )
    watched = RULES.read_text()
    for name in (
        "meterline_sink_lag_events",
        "meterline_ingest_rejected_total",
        "meterline_ingest_request_seconds_bucket",
        "meterline_freshness_lag_seconds",
    ):
        assert name in shown
    for name in ("sink_stalled", "freshness_lag", "ingest_rejected", "ingest_request_seconds"):
        assert name in watched


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        taken |= cells


def test_every_alert_says_how_bad_it_is() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["labels"]["severity"] in ("info", "warning", "critical")
                assert rule["annotations"]["summary"]
