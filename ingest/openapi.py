"""What the OpenAPI document says about `POST /api/v1/events`."""

from typing import Any

from ingest.limits import IngestLimits
from meterline.kernel.text import TEXT_PATTERN

# RFC 3339 of the years 1900 to 2199; days that not every month has are left to the server.
_TIME = (
    "^(19|20|21)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])[Tt]"
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?[Zz]$"
)
_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_URI_REFERENCE = "^[A-Za-z0-9._~!$&'()*+,;=@/-]+$"


def operation(limits: IngestLimits) -> dict[str, Any]:
    """The operation, in the words of OpenAPI 3.1, for a server with these limits."""
    strict, lenient = _event(limits, strict=True), _event(limits, strict=False)
    return {
        "tags": ["events"],
        "summary": "Send events",
        "description": (
            "Takes CloudEvents 1.0.2 in structured, batch and binary mode, and plain JSON where"
            " `specversion` may be missing. 204 means that all events are durable; with any other"
            " answer none of them is. Events that were sent before count once, so a request"
            " without an answer can be repeated. Bodies may be gzip or zstd."
        ),
        "operationId": "ingestEvents",
        "security": [{"ApiKey": []}],
        "requestBody": {
            "required": True,
            "content": {
                "application/cloudevents+json": {"schema": strict},
                "application/cloudevents-batch+json": {"schema": _array(strict, limits)},
                "application/json": {"schema": {"anyOf": [lenient, _array(lenient, limits)]}},
            },
        },
        "responses": {
            "204": {"description": "All events are durable."},
            "400": _problem("Some events are invalid; `validationErrors` lists them."),
            "401": _problem("No valid API key."),
            "403": _problem("The API key lacks the scope `ingest`."),
            "408": _problem("The body did not arrive in time."),
            "413": _problem("The body, or the batch, is larger than the limits."),
            "415": _problem("A content type, charset or content coding that is not read here."),
            "503": _problem("The event log cannot take it now; see `Retry-After`."),
        },
    }


def _event(limits: IngestLimits, *, strict: bool) -> dict[str, Any]:
    any_text = {"type": "string", "maxLength": limits.max_attribute_length, "pattern": TEXT_PATTERN}
    text = {**any_text, "minLength": 1}
    required = ["id", "source", "type"]
    if limits.require_subject:
        required.append("subject")
    if strict:
        required.append("specversion")
    properties = {
        "specversion": {"enum": ["1.0"] if strict else ["1.0", None]},
        "id": {**text, "description": "Unique within the source; a repeated id counts once."},
        "source": {
            **text,
            "pattern": _URI_REFERENCE,
            "description": "Where it happened: a URI reference.",
        },
        "type": {**text, "description": "What happened; meters select by it."},
        "subject": {**text, "description": "Who used."},
        "time": {
            "type": ["string", "null"],
            "pattern": _TIME,
            "description": "When it happened (RFC 3339); now when it is missing.",
        },
        "datacontenttype": {
            "type": ["string", "null"],
            "pattern": "^application/([a-z]+[+])?json$",
        },
        "dataschema": {"type": ["string", "null"], "pattern": "^[a-z]+:[A-Za-z0-9/._-]+$"},
        "data": {"description": "Any JSON; meters read values from objects."},
        "data_base64": {"type": "string", "pattern": _BASE64},
    }
    return {
        "type": "object",
        "title": "CloudEvent" if strict else "Event",
        "required": required,
        "properties": properties,
        "propertyNames": {
            "anyOf": [
                {"enum": list(properties)},
                {"pattern": f"^[a-z0-9]{{1,{limits.max_attribute_name_length}}}$"},
            ]
        },
        "additionalProperties": {
            "description": "An extension attribute. No attribute holds control characters.",
            "anyOf": [
                any_text,
                {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
                {"type": ["boolean", "null"]},
            ],
        },
        "maxProperties": len(properties) + limits.max_extensions,
        "not": {"required": ["data", "data_base64"]},
        "examples": [
            {
                **({"specversion": "1.0"} if strict else {}),
                "id": "01J9ZD7Q0V5T8RYX4N2M6K3B1C",
                "source": "my-gateway",
                "type": "llm.tokens",
                "subject": "customer-1",
                "time": "2026-11-20T10:00:00Z",
                "data": {"model": "sonnet", "tokens": 421},
            }
        ],
    }


def _array(event: dict[str, Any], limits: IngestLimits) -> dict[str, Any]:
    # Not `maxItems`: a longer array is not invalid but too large, and answered with 413.
    description = f"At most {limits.max_batch_events} events."
    return {"type": "array", "items": event, "description": description}


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {"application/problem+json": {"schema": schema}}}
