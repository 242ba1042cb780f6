"""How large holds may be, and how they are worked on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HoldLimits:
    """Each limit is a setting of the section `credits`."""

    default_ttl_seconds: float = 900.0
    """When an opening says none."""
    max_ttl_seconds: float = 2_592_000.0
    max_id_length: int = 255
    max_waiting: int = 10_000
    """Requests that wait for a commit at the same time."""
    max_group: int = 500
    """Requests that share a commit."""
    default_page: int = 100
    max_page: int = 1_000
    resend_seconds: float = 10.0
    """How long after its confirmation the event of a hold is written again, when it is not known
    to be in the event log."""
