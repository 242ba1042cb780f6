"""What the OpenAPI document says about `POST /api/v1/check`."""

from typing import Any

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


def check_operation() -> dict[str, Any]:
    """The operation, in the words of OpenAPI 3.1."""
    return {
        "tags": ["Plans"],
        "summary": "Check",
        "description": (
            "May this subject do this now? All limits hold at once: what one of them refuses has"
            " used nothing of any other. Rates count a request only when all admit it."
        ),
        "operationId": "check",
        "security": [{"ApiKey": []}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _BODY}}},
        "responses": {
            "200": {
                "description": "It may.",
                "headers": _RATE_HEADERS,
                "content": {"application/json": {"schema": _ANSWER}},
            },
            "400": _problem("The body is not understood."),
            "401": _problem("No valid API key."),
            "402": _problem("A month's limit, credits or a metered feature is used up."),
            "403": _problem("The subject is banned, or not entitled to the feature."),
            "429": _problem("A rate is reached; see `Retry-After`."),
            "503": _problem("The server cannot decide now."),
        },
    }


_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["subject"],
    "additionalProperties": False,
    "properties": {
        "subject": {"type": "string", "minLength": 1, "maxLength": 2048},
        "model": {"type": ["string", "null"], "description": "No limit looks at it yet."},
        "feature": {"type": ["string", "null"], "description": "A feature that is needed."},
        "estimate": {
            "description": "What is about to be used, as far as it is known.",
            "anyOf": [
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "tokens": {"type": ["integer", "null"], "minimum": 0},
                        "costUsd": {"type": ["number", "null"], "minimum": 0},
                        "credits": {"type": ["number", "null"], "minimum": 0},
                    },
                },
                {"type": "null"},
            ],
        },
        "dryRun": {"type": "boolean", "description": "Only look: use nothing of any rate."},
        "hold": {
            "description": "Set the estimates aside, so that no other check can use them.",
            "anyOf": [
                {"type": "boolean"},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"ttlSeconds": {"type": ["integer", "null"], "minimum": 1}},
                },
            ],
        },
    },
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


def _problem(text: str) -> dict[str, Any]:
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
    return {"description": text, "content": {"application/problem+json": {"schema": schema}}}
