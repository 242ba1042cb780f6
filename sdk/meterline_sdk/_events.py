"""Events as they are sent. Pure."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from meterline_sdk import _json


def event(
    type: str,
    subject: str,
    data: Mapping[str, Any] | None = None,
    *,
    id: str | None = None,
    source: str = "meterline-sdk",
    time: datetime | None = None,
    **extensions: str,
) -> dict[str, Any]:
    """A CloudEvent. It is counted once for its `(source, id)`, however often it is sent.

    Without `id` it gets a random one; without `time` it is of now.
    """
    found: dict[str, Any] = {
        "specversion": "1.0",
        "id": id or uuid.uuid4().hex,
        "source": source,
        "type": type,
        "subject": subject,
        "time": _json.instant(time or datetime.now(UTC)),
        **extensions,
    }
    if data is not None:
        found["data"] = data
    return found
