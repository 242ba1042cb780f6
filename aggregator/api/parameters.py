"""What the OpenAPI document says of query parameters that are read as a whole."""

from typing import Any

_Parameter = dict[str, Any]


def _parameter(name: str, description: str, **schema: Any) -> _Parameter:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": {"type": "string", **schema},
    }


def _repeated(name: str, description: str, most: int | None = None) -> _Parameter:
    schema: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    if most is not None:
        schema["maxItems"] = most
    return {**_parameter(name, description), "schema": schema, "style": "form", "explode": True}


RANGE_PARAMETERS: list[_Parameter] = [
    _parameter("from", "Start, included; RFC 3339.", format="date-time"),
    _parameter("to", "End, not included; RFC 3339.", format="date-time"),
]


def query_parameters(max_subjects: int) -> list[_Parameter]:
    """Those of `GET /api/v1/meters/{slug}/query`."""
    return [
        *RANGE_PARAMETERS,
        _parameter(
            "windowSize",
            "One row a window; without it one row a group.",
            enum=["MINUTE", "HOUR", "DAY", "MONTH"],
        ),
        _parameter("windowTimeZone", "IANA zone in which days and months begin.", default="UTC"),
        _repeated("subject", "Only these subjects; also groups by subject.", max_subjects),
        _repeated("groupBy", "The meter's groupBy keys, and `subject`."),
        {
            **_parameter("filterGroupBy", "Only events with this value: `filterGroupBy[key]=v`."),
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
            "style": "deepObject",
            "explode": True,
        },
    ]
