"""The meters and features that the kit for AI products brings along, made where they are needed.

Everything that the kit counts is an event of one of two types, so each figure it answers can also
be asked of a meter. Their slugs and keys are reserved: a meter of such a slug becomes this one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from entitlements.model import Feature
from entitlements.specs import FeatureSpec
from meterline.kernel.errors import ConflictError, NotFoundError
from meterline.kernel.meters import MeterSpec, validate_meter

USAGE_TYPE = "meterline.usage"
"""Events of model calls: usage records and tracked responses."""
USAGE_SOURCE = "meterline:usage"
CREDITS_TYPE = "meterline.credits"
"""Events of credits that were used: confirmed holds."""

TOKENS = "meterline_tokens"
INPUT_TOKENS = "meterline_input_tokens"
OUTPUT_TOKENS = "meterline_output_tokens"
CACHED_TOKENS = "meterline_cached_tokens"
COST = "meterline_cost_usd"
REQUESTS = "meterline_requests"
CREDITS_METER = "meterline_credits"
CREDITS = "credits"
"""Key of the feature whose entitlements hold credits."""

USAGE_GROUPS: Mapping[str, str] = {
    "model": "$.model",
    "provider": "$.provider",
    "usage_type": "$.usageType",
    "context": "$.context",
    "key": "$.key",
    "conversation": "$.conversationId",
    "tags": "$.tagSet",
    "transaction": "$.transactionId",
    "priced": "$.priced",
}
"""Of the meters over `USAGE_TYPE`. `tags` is the JSON array of a call's sorted tags, as text."""


def _meter(slug: str, name: str, value: str | None) -> MeterSpec:
    return validate_meter(
        slug=slug,
        name=name,
        aggregation="SUM" if value else "COUNT",
        event_type=USAGE_TYPE,
        value_property=value,
        group_by=USAGE_GROUPS,
    )


METERS: Sequence[MeterSpec] = (
    _meter(TOKENS, "Tokens of model calls", "$.totalTokens"),
    _meter(INPUT_TOKENS, "Input tokens, cached ones included", "$.inputTokens"),
    _meter(OUTPUT_TOKENS, "Output tokens, reasoning included", "$.outputTokens"),
    _meter(CACHED_TOKENS, "Input tokens read from a cache", "$.cachedTokens"),
    _meter(COST, "Cost of model calls in US dollars", "$.costUsd"),
    _meter(REQUESTS, "Model calls", None),
    validate_meter(
        slug=CREDITS_METER,
        name="Credits used",
        aggregation="SUM",
        event_type=CREDITS_TYPE,
        value_property="$.amount",
        group_by={"model": "$.model", "kind": "$.kind"},
    ),
)

FEATURES: Mapping[str, str] = {
    CREDITS: CREDITS_METER,
    TOKENS: TOKENS,
    COST: COST,
    REQUESTS: REQUESTS,
}
"""Key of each built-in feature, and the meter of its usage."""


class MeterMaker(Protocol):
    """Makes meters. The server fills it from the aggregator."""

    async def ensure(self, namespace: str, specs: Sequence[MeterSpec]) -> None:
        """Make these meters be there as specified.

        `ConflictError` when somebody else makes one of them at the same moment.
        """
        ...


class FeatureMaker(Protocol):
    """What is needed of the service of features."""

    async def get(self, namespace: str, id_or_key: str) -> Feature:
        """The feature, or `NotFoundError`."""
        ...

    async def create(self, namespace: str, spec: FeatureSpec) -> Feature:
        """A new feature, or `ConflictError`."""
        ...


class BuiltIns:
    """Makes a namespace's built-in meters and features at its first use of the kit."""

    def __init__(self, meters: MeterMaker, features: FeatureMaker) -> None:
        self._meters = meters
        self._features = features
        self._made: set[str] = set()
        self._lock = asyncio.Lock()

    async def ensure(self, namespace: str) -> None:
        """Return when they are there. Cheap from the second time on; safe in parallel.

        `ConflictError` while a feature of the caller has the key of one of them.
        """
        if namespace in self._made:
            return
        async with self._lock:
            if namespace in self._made:
                return
            await self._make_meters(namespace)
            for key, slug in FEATURES.items():
                await self._make_feature(namespace, key, slug)
            self._made.add(namespace)

    async def _make_meters(self, namespace: str) -> None:
        # Each conflict means that another process just made one of them.
        for _ in METERS:
            with suppress(ConflictError):
                await self._meters.ensure(namespace, METERS)
                return
        await self._meters.ensure(namespace, METERS)

    async def _make_feature(self, namespace: str, key: str, slug: str) -> None:
        feature = await self._find(namespace, key)
        if feature is None:
            spec = FeatureSpec(key=key, name=key.replace("_", " "), meter_slug=slug)
            try:
                await self._features.create(namespace, spec)
            except ConflictError:
                feature = await self._find(namespace, key)
                if feature is None:
                    raise
            else:
                return
        if feature.meter_slug != slug or feature.filters:
            raise ConflictError(
                f"the feature {key} is not over the meter {slug}, as this needs: archive it, and"
                " it will be made anew"
            )

    async def _find(self, namespace: str, key: str) -> Feature | None:
        try:
            return await self._features.get(namespace, key)
        except NotFoundError:
            return None
