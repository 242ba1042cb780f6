"""What OpenAPI says of `POST /api/v1/events`, which runs outside FastAPI."""

from typing import Any

from ingest.limits import IngestLimits

# Without control characters, and without what Unicode never assigns.
_TEXT = "^[^\\u0000-\\u001f\\u007f-\\u009f\\ud800-\\udfff\\ufdd0-\\ufdef\\ufffe\\uffff]*$"
_CORE = (
    "id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema",
    "data", "data_base64",
)  # fmt: skip
_EXAMPLE = {
    "specversion": "1.0",
    "id": "req-0001",
    "source": "gateway-1",
    "type": "request",
    "subject": "customer-1",
    "time": "2026-01-15T10:15:00Z",
    "data": {"tokens": 1234, "model": "large"},
}


def events_operation(limits: IngestLimits) -> dict[str, Any]:
    """The OpenAPI operation, as the limits have it."""
    strict = _event_schema(limits, lenient=False)
    lenient = _event_schema(limits, lenient=True)
    return {
        "tags": ["Events"],
        "summary": "Store events, durably and once",
        "description": _DESCRIPTION,
        "operationId": "ingest_events",
        "security": [{"ApiKey": []}],
        "requestBody": {
            "required": True,
            "content": {
                "application/cloudevents+json": {"schema": strict, "example": _EXAMPLE},
                "application/cloudevents-batch+json": {
                    "schema": _batch(strict, limits),
                    "example": [_EXAMPLE],
                },
                "application/json": {
                    "schema": {"oneOf": [lenient, _batch(lenient, limits)]},
                    "example": _EXAMPLE,
                },
            },
        },
        "responses": {
            "204": {"description": "Every event of the request is on disk, or was there before."},
            **{
                status: {
                    "description": description,
                    "content": {
                        "application/problem+json": {
                            "schema": {"$ref": "#/components/schemas/Problem"}
                        }
                    },
                }
                for status, description in _REFUSALS.items()
            },
        },
    }


_DESCRIPTION = """\
CloudEvents 1.0 over HTTP: one event, a batch, or binary mode (attributes as `ce-` headers, the
body as data). `application/json` takes one event or an array, and may leave `specversion` out.
Bodies may be compressed with gzip or zstd.

All or nothing: with one bad event the answer is 400, lists every bad event, and nothing is stored.
An event counts once, by its source and id, however often it is sent.
"""

_REFUSALS = {
    "400": "At least one event is wrong; nothing was stored.",
    "408": "The body did not arrive in time.",
    "413": "The body, or the number of events, is beyond a limit.",
    "415": "A media type, charset or content coding that is not read here.",
    "503": "The server cannot store events now; try again after `Retry-After` seconds.",
}


def _event_schema(limits: IngestLimits, *, lenient: bool) -> dict[str, Any]:
    text = {"type": "string", "pattern": _TEXT, "maxLength": limits.max_attribute_length}
    required = ["id", "source", "type"]
    if not lenient:
        required.append("specversion")
    if limits.require_subject:
        required.append("subject")
    return {
        "title": "Event" if lenient else "CloudEvent",
        "type": "object",
        "required": required,
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {**text, "minLength": 1, "description": "With `source`, what counts once."},
            "source": {**text, "minLength": 1, "format": "uri-reference"},
            "type": {**text, "minLength": 1, "description": "What meters choose events by."},
            "subject": {**text, "minLength": 1, "description": "Who used."},
            "time": {
                "type": "string",
                "format": "date-time",
                "description": "When; RFC 3339, 1900 to 2199. Missing means now.",
            },
            "datacontenttype": {"type": "string", "examples": ["application/json"]},
            "dataschema": {**text, "format": "uri"},
            "data": {"description": "Any JSON, kept byte for byte; meters read JSON objects."},
            "data_base64": {"type": "string", "contentEncoding": "base64"},
        },
        "additionalProperties": {"type": ["string", "integer", "boolean"]},
        "propertyNames": {
            "anyOf": [
                {"enum": list(_CORE)},
                {"pattern": "^[a-z0-9]+$", "maxLength": limits.max_attribute_name_length},
            ]
        },
        "maxProperties": len(_CORE) + limits.max_extensions,
    }


def _batch(event: dict[str, Any], limits: IngestLimits) -> dict[str, Any]:
    return {"type": "array", "items": event, "maxItems": limits.max_batch_events}
