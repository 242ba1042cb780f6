from datetime import UTC, datetime
from decimal import Decimal

from meterline.web.json import ExactJSONResponse


def test_no_digit_is_lost() -> None:
    value = Decimal("12345678901234567890.123456789012345678")
    response = ExactJSONResponse({"value": value, "at": datetime(2026, 1, 2, tzinfo=UTC)})
    assert response.body == (
        b'{"value":12345678901234567890.123456789012345678,"at":"2026-01-02T00:00:00Z"}'
    )
    assert response.headers["content-type"] == "application/json"
