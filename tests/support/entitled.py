"""Entitlements over a real sink: what the server assembles, without HTTP."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from aggregator.service import MeterService
from aggregator.stores.meters import SqlMeterStore
from aggregator.worker import SinkOptions
from entitlements.limits import EntitlementLimits
from entitlements.services.entitlements import EntitlementService
from entitlements.services.features import FeatureService
from entitlements.services.grants import GrantService
from entitlements.services.live import LiveEntitlements
from entitlements.services.means import Means
from entitlements.services.meters import MeterUse
from entitlements.services.rebuild import LiveUsage
from entitlements.services.values import ValueService
from meterline.db.hot import open_hot_reads
from meterline.kernel.meters import MeterSpec
from meterline.server.usage import LiveFollower, MeterUsage
from tests.support.clock import FixedClock
from tests.support.usage import Rig, running_sink


@dataclass
class Entitled:
    """Services that share a sink. `plain` calculates every answer; `values` uses live rows."""

    rig: Rig
    clock: FixedClock
    meters: MeterService
    features: FeatureService
    entitlements: EntitlementService
    grants: GrantService
    live: LiveEntitlements
    values: ValueService
    plain: ValueService
    live_usage: LiveUsage


@asynccontextmanager
async def entitled(
    path: Path, meters: Sequence[MeterSpec], clock: FixedClock
) -> AsyncIterator[Entitled]:
    """Services with these meters in the namespace `default`."""
    options = SinkOptions(linger_seconds=0.0, retry_seconds=0.01, trim_log=False)
    follower = LiveFollower()
    async with running_sink(path, follower=follower, clock=clock, options=options) as rig:
        use = MeterUse(rig.database)
        service = MeterService(
            SqlMeterStore(rig.database),
            rig.sink.registry,
            rig.engine,
            clock,
            in_use=use,
            on_change=use.on_change,
        )
        for spec in meters:
            await service.create("default", spec)
        usage = MeterUsage(service, rig.sink.registry, rig.sink.freshness, rig.engine)
        means = Means(rig.database, usage, clock, EntitlementLimits())
        plain = ValueService(means)
        hot = open_hot_reads(f"sqlite:///{path}/state.db")
        live = LiveEntitlements(rig.database, hot, plain, usage)
        with_live = replace(means, live=live)
        try:
            yield Entitled(
                rig,
                clock,
                service,
                FeatureService(with_live),
                EntitlementService(with_live),
                GrantService(with_live),
                live,
                ValueService(with_live),
                plain,
                LiveUsage(rig.database, live, plain, usage, clock),
            )
        finally:
            await hot.close()
