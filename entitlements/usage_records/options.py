"""How large usage records may be."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UsageLimits:
    """Each is a setting of the section `usage`, and has an error that names it."""

    max_text_length: int = 512
    """Characters of an id, a model, a key, a conversation."""
    max_query_length: int = 16_384
    """Characters of the query of a tracked call."""
    max_description_length: int = 1_024
    max_tags: int = 32
    """Tags of one call."""
    max_tag_length: int = 128
    max_batch: int = 1_000
    """Records in one request."""
    max_prices: int = 5_000
    """Prices of its own in one namespace."""
    default_page: int = 100
    max_page: int = 1_000
    """Records in one listing."""
    remember_prices_seconds: float = 1.0
    """How long a process uses a namespace's prices before it reads them again."""
    keep_names_seconds: float = 604_800.0
    """How long it is known which content a record's id had. Later it counts once all the same."""
    max_waiting: int = 10_000
    """Records that wait for their names to be kept, in one process."""
    wait_seconds: float = 5.0
    """How long `wait=true` waits for acknowledged records."""
