"""How large entitlements may be."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class EntitlementLimits:
    """Each limit is a setting of the section `entitlements`, and has an error that names it."""

    max_features: int = 10_000
    """Features in one namespace that are not archived."""
    max_filter_values: int = 100
    """Values that a feature allows for one groupBy key."""
    max_entitlements: int = 1_000
    """Entitlements of one subject that have not ended."""
    max_grants: int = 1_000
    """Grants of one entitlement, ended ones included."""
    max_resets: int = 10_000
    """Resets by hand of one entitlement."""
    max_config_bytes: int = 65_536
    """The configuration of a static entitlement, as UTF-8."""
    max_subject_length: int = 2_048
    """Characters; as long as the `subject` of an event may be."""
    min_interval_seconds: int = 3_600
    """Shortest usage period and recurrence."""
    max_steps: int = 20_000
    """Usage periods and recurrences that one request may make from the past or for the future."""
    max_windows: int = 20_000
    """Windows of one history."""
    default_page: int = 100
    max_page: int = 1_000
    """Items in one listing."""
    wait_seconds: float = 5.0
    """How long `wait=true` waits for acknowledged events."""
    concurrent_reads: int = 4
    """Reads of the event store that one request makes at the same time."""

    @property
    def min_interval(self) -> timedelta:
        return timedelta(seconds=self.min_interval_seconds)
