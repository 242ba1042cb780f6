"""How large plans may be, and how they work."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Settings of the section `plans`."""

    max_plans: int = 1_000
    """Plans in one namespace."""
    max_features: int = 100
    """Features of one plan."""
    max_prices: int = 100
    """Stripe prices of one plan."""
    max_rate: int = 1_000_000
    """The highest limit of requests in a window: each costs 9 bytes as long as it counts."""
    max_subject_length: int = 2_048
    max_reason_length: int = 1_024
    max_check_bytes: int = 16_384
    """Body of a check."""
    max_waiting: int = 10_000
    """Checks that wait for their group to be written; beyond it, 503."""
    max_group: int = 512
    """Checks of one group."""
    hold_ttl_seconds: int = 600
    """How long a hold of a check lives unless the caller says so."""
    max_hold_ttl_seconds: int = 86_400
    poll_seconds: float = 5.0
    """How often work is looked for: subjects of changed plans, refills, ends of a grace."""
    batch: int = 100
    """Subjects of one step of that work."""
    wait_seconds: float = 5.0
    """How long summaries and compatible checks wait for acknowledged usage."""
    max_page: int = 1_000


@dataclass(frozen=True, slots=True)
class StripeOptions:
    """Settings of the section `stripe`."""

    webhook_secrets: tuple[str, ...] = ()
    """Signing secrets; several while one is replaced. Without any the webhook is off (404)."""
    tolerance_seconds: int = 300
    """How old a signature may be."""
    namespace: str = "default"
    """Where the subjects are."""
    free_plan: str = "free"
    """Key of the plan that a subject falls back to."""
    grace_seconds: int = 604_800
    """From a failed payment to the free plan; 0 moves at once."""
    keep_days: int = 400
    """How long the id of an event is known."""
    max_body_bytes: int = 1_048_576
