"""Roles: which parts of Meterline a process has, and which backends they need.

Pure. `all` is one process that has every part; the others are for a deployment whose gateways,
sinks and API servers are processes of their own.
"""

from dataclasses import dataclass

from meterline.kernel.errors import ValidationError
from meterline.server.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process does."""

    ingests: bool
    """It takes events."""
    stores: bool
    """It brings them into the event store: the sink."""
    answers: bool
    """It answers everything else, and does what is done in the background."""


_PARTS = {
    "all": Parts(ingests=True, stores=True, answers=True),
    "ingest": Parts(ingests=True, stores=False, answers=False),
    "sink": Parts(ingests=False, stores=True, answers=False),
    # It writes events of its own, so it can take those of others as well: a client needs one
    # address for all.
    "api": Parts(ingests=True, stores=False, answers=True),
}


def parts_of(settings: Settings) -> Parts:
    """The parts of this process. `ValidationError` when its backends do not allow for them."""
    role = settings.server.role
    parts = _PARTS[role]
    if role != "all":
        _refuse_embedded(settings, parts)
    return parts


def _refuse_embedded(settings: Settings, parts: Parts) -> None:
    """What is embedded in one process cannot be shared by several."""
    missing = []
    if settings.eventlog.kind == "embedded":
        missing.append("eventlog.kind=kafka")
    if (parts.stores or parts.answers) and settings.store.kind == "embedded":
        missing.append("store.kind=clickhouse")
    if settings.database.is_embedded:
        missing.append("database.url=postgresql://…")
    if missing:
        raise ValidationError(
            f"server.role={settings.server.role} shares its data with other processes, so it"
            f" needs {', '.join(missing)}; what is embedded works with server.role=all alone"
        )
