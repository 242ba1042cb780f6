"""What the OpenAPI document says about `POST /api/v1/check`."""

from typing import Any

from entitlements.plans.options import PlanOptions
from meterline.kernel.quantity import FRACTION_DIGITS, INTEGER_DIGITS
from meterline.kernel.text import TEXT_PATTERN

_AMOUNT = {"type": "number", "minimum": 0}
_NUMBER = {"type": "number"}
_TEXT = {"type": "string"}
_SAID: dict[str, Any] = {
    "allowed": {"type": "boolean"},
    "subject": _TEXT,
    "plan": _TEXT,
    "outcome": {"enum": ["banned", "feature", "usage", "rate"]},
    "limitType": {"type": "string", "description": "The limit that is in the way."},
    "limit": _NUMBER,
    "current": _NUMBER,
    "retryAfter": {"type": "integer", "description": "Seconds until it may be tried again."},
    "windowSeconds": {"type": "integer"},
}


def check_operation(options: PlanOptions) -> dict[str, Any]:
    """The operation, in the words of OpenAPI 3.1, for a server with these options."""
    return {
        "tags": ["Plans"],
        "summary": "Check",
        "description": (
            "May this subject do this now? All limits hold at once: what one of them refuses has"
            " used nothing of any other. Rates count a request only when all admit it."
        ),
        "operationId": "check",
        "security": [{"ApiKey": []}],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _body(options)}},
        },
        "responses": {
            "200": {
                "description": "It may.",
                "headers": _RATE_HEADERS,
                "content": {"application/json": {"schema": _ANSWER}},
            },
            "400": _problem("The body is not understood."),
            "401": _problem("No valid API key."),
            "402": _problem("A month's limit, credits or a metered feature is used up."),
            "403": _problem(
                "The subject is banned, or not entitled to the feature; or the API key may not"
                " set anything aside."
            ),
            "413": _problem("The body is too large."),
            "429": _problem("A rate is reached; see `Retry-After`.", _RETRY_HEADERS),
            "503": _problem("The server cannot decide now."),
        },
    }


_ESTIMATES = ("tokens", "costUsd", "credits")
_TEXT_AMOUNT = f"^[0-9]{{1,{INTEGER_DIGITS}}}(\\.[0-9]{{1,{FRACTION_DIGITS}}})?$"
_ESTIMATE: dict[str, Any] = {
    "type": ["number", "string", "null"],
    "minimum": 0,
    "exclusiveMaximum": 10**INTEGER_DIGITS,
    "pattern": _TEXT_AMOUNT,
}
_TOKENS = {**_ESTIMATE, "type": ["integer", "string", "null"], "pattern": "^[0-9]{1,20}$"}
_WITH_ESTIMATE: dict[str, Any] = {
    "required": ["estimate"],
    "properties": {
        "estimate": {
            "anyOf": [
                {"required": [name], "properties": {name: {"type": ["number", "string"]}}}
                for name in _ESTIMATES
            ],
            "type": "object",
        },
        "dryRun": {"const": False},
    },
}
_WITHOUT_HOLD: dict[str, Any] = {"properties": {"hold": {"const": False}}}


def _body(options: PlanOptions) -> dict[str, Any]:
    text = {"type": ["string", "null"], "pattern": "^[^\\u0000]*$"}
    seconds = {"type": ["integer", "null"], "minimum": 1, "maximum": options.max_hold_ttl_seconds}
    return {
        "type": "object",
        "required": ["subject"],
        "additionalProperties": False,
        "properties": {
            "subject": {
                "type": "string",
                "minLength": 1,
                "maxLength": options.max_subject_length,
                "pattern": TEXT_PATTERN,
            },
            "model": {**text, "description": "No limit looks at it yet."},
            "feature": {**text, "description": "A feature that is needed."},
            "estimate": {
                "description": "What is about to be used, as far as it is known.",
                "type": ["object", "null"],
                "additionalProperties": False,
                "properties": {"tokens": _TOKENS, "costUsd": _ESTIMATE, "credits": _ESTIMATE},
            },
            "dryRun": {"type": "boolean", "description": "Only look: use nothing of any rate."},
            "hold": {
                "description": "Set the estimates aside, so that no other check can use them. It"
                " needs one, and the scope `ingest`, and is not for a dry run.",
                "type": ["boolean", "object"],
                "additionalProperties": False,
                "properties": {"ttlSeconds": seconds},
            },
        },
        "anyOf": [_WITHOUT_HOLD, _WITH_ESTIMATE],
        "examples": [
            {"subject": "customer-1", "estimate": {"tokens": 1200, "costUsd": 0.01}, "hold": True}
        ],
    }


_ANSWER: dict[str, Any] = {
    "type": "object",
    "required": ["allowed", "subject", "checkId", "limits"],
    "properties": {
        "allowed": {"const": True},
        "subject": _TEXT,
        "checkId": _TEXT,
        "plan": _TEXT,
        "limits": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["limitType", "limit", "current", "remaining", "resetsInSeconds"],
                "properties": {
                    "limitType": _TEXT,
                    "limit": _AMOUNT,
                    "current": _NUMBER,
                    "remaining": _AMOUNT,
                    "resetsInSeconds": {"type": "integer"},
                },
            },
        },
        "holds": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "featureKey", "amount"],
                "properties": {"id": _TEXT, "featureKey": _TEXT, "amount": _AMOUNT},
            },
        },
    },
}
_RATE_HEADERS: dict[str, Any] = {
    "RateLimit-Policy": {"schema": _TEXT, "description": "The rates that hold."},
    "RateLimit": {"schema": _TEXT, "description": "What is left of them, and until when."},
}


_RETRY_HEADERS: dict[str, Any] = {
    **_RATE_HEADERS,
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."},
}


def _problem(text: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer"},
            "detail": _TEXT,
            "instance": _TEXT,
            **_SAID,
            "extensions": {"type": "object"},
        },
    }
    told = {"description": text, "content": {"application/problem+json": {"schema": schema}}}
    return told if headers is None else {**told, "headers": headers}
