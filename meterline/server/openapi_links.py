"""How what one operation answers is used by others: the links of the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

_HOLDS = "/api/v1/subjects/{subject}/entitlements/{entitlement}/holds"
_ABOVE = {"subject": "$request.path.subject", "entitlement": "$request.path.entitlement"}

_BELOW: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "/api/v1/plans": ("/api/v1/plans/{plan}", {"plan": "$response.body#/key"}),
    "/api/v1/prices": ("/api/v1/prices/{price_id}", {"price_id": "$response.body#/id"}),
    "/api/v1/credit-rates": (
        "/api/v1/credit-rates/{model}",
        {"model": "$response.body#/model"},
    ),
    "/api/v1/reservations": (
        "/api/v1/reservations/{reservation_id}",
        {"reservation_id": "$response.body#/transactionId"},
    ),
    "/api/v1/usage-transactions": (
        "/api/v1/usage-transactions/{transaction_id}",
        {"transaction_id": "$response.body#/transactionId"},
    ),
    "/api/v1/subjects/{subject}/credits": (
        "/api/v1/subjects/{subject}/credits",
        {"subject": "$request.path.subject"},
    ),
    _HOLDS: (f"{_HOLDS}/{{hold_id}}", {**_ABOVE, "hold_id": "$response.body#/id"}),
}
"""By the path whose POST makes something: the path of what it made, and its parameters."""


def add_links(paths: Mapping[str, Mapping[str, dict[str, Any]]]) -> None:
    """Link what POSTs make with what can be done with it."""
    for made, (below, parameters) in _BELOW.items():
        for path, operations in paths.items():
            if path == below or (path.startswith(f"{below}/") and "{" not in path[len(below) :]):
                for method, operation in operations.items():
                    if (path, method) != (made, "post"):
                        _link(paths, made, operation, parameters)


def _link(
    paths: Mapping[str, Mapping[str, dict[str, Any]]],
    made: str,
    operation: dict[str, Any],
    parameters: Mapping[str, str],
) -> None:
    responses = paths.get(made, {}).get("post", {}).get("responses", {})
    answer = responses.get("201")
    if answer is not None:
        name = operation["operationId"]
        links = answer.setdefault("links", {})
        links[name] = {"operationId": name, "parameters": dict(parameters)}
