"""Settings of the kit for AI products: usage records, plans, credits, payments."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field, SecretStr

from meterline.server.sections import MIB, Positive, Seconds, Section

_Whole = Annotated[int, Field(ge=0)]


class UsageSettings(Section):
    """Usage records and prices of model calls."""

    max_text_length: Positive = Field(
        512, description="Longest id, model, key or conversation, in characters."
    )
    max_query_length: Positive = Field(
        16_384, description="Longest query of a tracked call, in characters."
    )
    max_description_length: Positive = Field(
        1_024, description="Longest description of a record, in characters."
    )
    max_tags: Positive = Field(32, description="Most tags of one call.")
    max_tag_length: Positive = Field(128, description="Longest tag, in characters.")
    max_batch: Positive = Field(1_000, description="Most records of one request.")
    max_prices: Positive = Field(5_000, description="Most prices of its own in one namespace.")
    default_page: Positive = Field(100, description="Records on a page when none are said.")
    max_page: Positive = Field(1_000, description="Most records of one listing.")
    remember_prices_seconds: Seconds = Field(
        1.0, description="How long a process uses a namespace's prices before it reads them again."
    )
    keep_names_seconds: Seconds = Field(
        604_800.0,
        description="How long it is known which content a record's id had; later, another content"
        " under the id is no conflict any more. It counts once all the same.",
    )
    max_waiting: Positive = Field(
        10_000, description="Records that wait for their ids to be kept; beyond it, 503."
    )
    wait_seconds: Seconds = Field(
        5.0, description="How long `wait=true` waits for acknowledged records; then 503."
    )


class CreditSettings(Section):
    """Holds and credits."""

    default_ttl_seconds: Seconds = Field(
        900.0, description="Life of a hold whose request says none."
    )
    max_ttl_seconds: Seconds = Field(2_592_000.0, description="Longest life of a hold.")
    max_id_length: Positive = Field(255, description="Longest id of a hold, in characters.")
    max_waiting: Positive = Field(
        10_000, description="Requests that wait for a commit; beyond it, 503."
    )
    max_group: Positive = Field(500, description="Most requests that share a commit.")
    default_page: Positive = Field(100, description="Holds on a page when none are said.")
    max_page: Positive = Field(1_000, description="Most holds of one listing.")
    resend_seconds: Seconds = Field(
        10.0,
        description="How long after its confirmation the event of a hold is written again, when"
        " it is not known to be in the event log.",
    )
    markup: Annotated[Decimal, Field(ge=0)] = Field(
        Decimal(1), description="Credits of a model without a rate are its price, times this,"
    )
    credits_per_usd: Annotated[Decimal, Field(gt=0)] = Field(
        Decimal(1), description="and times this."
    )
    transaction_ttl_seconds: Annotated[Decimal, Field(gt=0)] = Field(
        Decimal(900), description="When an unfinished transaction gives its hold back."
    )
    reservation_ttl_seconds: Annotated[Decimal, Field(gt=0)] = Field(
        Decimal(900), description="Life of a reservation whose request says none."
    )


class PlanSettings(Section):
    """Plans, their limits, and the checks of them."""

    max_plans: Positive = Field(1_000, description="Most plans of one namespace.")
    max_features: Positive = Field(100, description="Most features of one plan.")
    max_prices: Positive = Field(100, description="Most Stripe prices of one plan.")
    max_rate: Positive = Field(
        1_000_000,
        description="Highest limit of requests in a window; each costs 9 bytes while it counts.",
    )
    max_subject_length: Positive = Field(2_048, description="Longest subject, in characters.")
    max_reason_length: Positive = Field(
        1_024, description="Longest reason of a ban, in characters."
    )
    max_check_bytes: Positive = Field(16_384, description="Largest body of a check.")
    max_waiting: Positive = Field(
        10_000, description="Checks that wait for their group; beyond it, 503."
    )
    max_group: Positive = Field(512, description="Most checks of one group.")
    hold_ttl_seconds: Positive = Field(
        600, description="Life of a check's hold when its request says none."
    )
    max_hold_ttl_seconds: Positive = Field(86_400, description="Longest life of such a hold.")
    poll_seconds: Seconds = Field(
        5.0, description="How often to look for refills, changed plans and ends of a grace."
    )
    batch: Positive = Field(100, description="Subjects of one step of that work.")
    wait_seconds: Seconds = Field(
        5.0, description="How long summaries wait for acknowledged usage; then 503."
    )
    max_page: Positive = Field(1_000, description="Most items of one listing.")


class StripeSettings(Section):
    """Payments that Stripe tells of."""

    webhook_secrets: tuple[SecretStr, ...] = Field(
        (),
        description="Signing secrets of the webhook, several while one is replaced. Without any"
        " the webhook is off (404).",
    )
    tolerance_seconds: Positive = Field(300, description="How old a signature may be.")
    namespace: str = Field("default", description="Where the subjects are.")
    free_plan: str = Field(
        "free", description="Key of the plan that a subject without payment falls back to."
    )
    grace_seconds: _Whole = Field(
        604_800, description="From a failed payment to the free plan; 0 moves at once."
    )
    keep_days: Positive = Field(400, description="How long the id of an event is known.")
    max_body_bytes: Positive = Field(MIB, description="Largest body of the webhook.")


class IdempotencySettings(Section):
    """Requests with an `Idempotency-Key`, and their answers."""

    keep_seconds: float = Field(172_800.0, ge=86_400, description="How long an answer is kept.")
    lease_seconds: Seconds = Field(
        60.0, description="How long a server may work on a request before another one may."
    )
    wait_seconds: Seconds = Field(
        5.0, description="How long a duplicate waits for the answer of the first."
    )
    max_key_length: Positive = Field(255, description="Longest key, in characters.")
    max_body_bytes: Positive = Field(4 * MIB, description="Largest body of such a request.")
