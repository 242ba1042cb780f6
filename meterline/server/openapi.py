"""The OpenAPI 3.1 document: FastAPI's, with the answers that every route shares made true.

FastAPI documents 422 for invalid input; here that is 400, and every error is problem+json.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from meterline.server.openapi_links import add_links
from meterline.version import __version__
from meterline.web.idempotency import WITHOUT_KEY, IdempotencyLimits, key_parameter

_DESCRIPTION = """\
Usage metering. Send CloudEvents, declare meters over them, and query exact totals.

Errors are RFC 9457 problem details (`application/problem+json`). Send an API key as
`Authorization: Bearer <key>`; a server without any key answers openly, on loopback only.
"""

_PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "instance"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What is wrong, for people."},
        "instance": {"type": "string", "description": "`urn:request:<id>` of the request."},
        "extensions": {
            "type": "object",
            "description": "More, for programs: `validationErrors` lists every fault.",
            "properties": {
                "validationErrors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["where", "reason"],
                        "properties": {
                            "where": {"type": "string"},
                            "reason": {"type": "string"},
                        },
                    },
                }
            },
        },
    },
}
_PROBLEM = {
    "description": "An error, as problem details.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_STATUS_TITLES = {
    "400": "The request is wrong and will stay wrong.",
    "401": "No credential, or one that is not valid.",
    "403": "The credential lacks the scope.",
    "404": "There is no such thing.",
    "409": "It contradicts what is there, or an `Idempotency-Key` was used for another request.",
}


def build_openapi(app: FastAPI, keys: IdempotencyLimits | None = None) -> dict[str, Any]:
    """The document of all routes of `app`. With `keys`, POSTs may have an `Idempotency-Key`."""
    document = get_openapi(
        title="Meterline",
        version=__version__,
        openapi_version="3.1.0",
        description=_DESCRIPTION,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = _PROBLEM_SCHEMA
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            takes_key = keys is not None and method == "post" and path not in WITHOUT_KEY
            if keys is not None and takes_key:
                operation.setdefault("parameters", []).append(key_parameter(keys))
            _make_errors_true(operation, found="{" in path, clashing=takes_key)
    add_links(document.get("paths", {}))
    return document


def _make_errors_true(operation: dict[str, Any], *, found: bool, clashing: bool) -> None:
    responses: dict[str, Any] = operation.setdefault("responses", {})
    responses.pop("422", None)
    statuses = ["400"]
    if operation.get("security"):
        statuses += ["401", "403"]
        if any("ApiKey" in scheme for scheme in operation["security"]):
            # A server without any key needs none.
            operation["security"] = [*operation["security"], {}]
    statuses += ["404"] if found else []
    statuses += ["409"] if clashing else []
    for status in statuses:
        responses.setdefault(status, {**_PROBLEM, "description": _STATUS_TITLES[status]})
    responses.setdefault("default", _PROBLEM)
