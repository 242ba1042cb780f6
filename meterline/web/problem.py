"""Errors on the wire: RFC 9457 problem details, exactly `application/problem+json`."""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from meterline.kernel.clock import system_clock
from meterline.kernel.errors import FieldError, MeterlineError, ValidationError
from meterline.kernel.ids import new_ulid
from meterline.web.json import encode

Headers = list[tuple[bytes, bytes]]

_SAFE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_MAX_SHOWN_ERRORS = 1000


def request_id_of(scope: MutableMapping[str, Any]) -> str:
    """The id of this request: the caller's `X-Request-Id` when it is harmless, else a new one."""
    known = scope.get("meterline.request_id")
    if isinstance(known, str):
        return known
    request_id = ""
    for name, value in scope.get("headers", ()):
        if name == b"x-request-id" and _SAFE_REQUEST_ID.fullmatch(value):
            request_id = value.decode("ascii")
    request_id = request_id or new_ulid(system_clock())
    scope["meterline.request_id"] = request_id
    return request_id


def problem_response(error: BaseException, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error. What is not a `MeterlineError` says no detail."""
    if not isinstance(error, MeterlineError):
        return _problem(500, "Internal Server Error", "", request_id)
    extensions = error.extensions
    if isinstance(error, ValidationError) and error.errors:
        extensions = {**extensions, "validationErrors": _shown(error.errors)}
    headers: Headers = []
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", str(error.retry_after_seconds).encode()))
    return _problem(error.status, error.title, error.detail, request_id, extensions, headers)


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of a FastAPI app a problem. An unexpected one is raised on, to be logged."""
    app.add_exception_handler(MeterlineError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_error)


def _problem(
    status: int,
    title: str,
    detail: str,
    request_id: str,
    extensions: Mapping[str, Any] | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> tuple[int, Headers, bytes]:
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    if detail:
        body["detail"] = detail
    body["instance"] = f"urn:request:{request_id}"
    if extensions:
        body["extensions"] = extensions
    content = encode(body)
    return (
        status,
        [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(content)).encode()),
            *headers,
        ],
        content,
    )


def _shown(errors: Sequence[FieldError]) -> list[dict[str, str]]:
    return [{"where": e.where, "reason": e.reason} for e in errors[:_MAX_SHOWN_ERRORS]]


def _response(problem: tuple[int, Headers, bytes]) -> Response:
    status, headers, body = problem
    response = Response(body, status_code=status)
    response.raw_headers = headers
    return response


async def _on_error(request: Request, error: Exception) -> Response:
    return _response(problem_response(error, request_id_of(request.scope)))


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [_fault(fault) for fault in error.errors()]
    first = f"{faults[0].where}: {faults[0].reason}" if faults else "invalid request"
    return await _on_error(request, ValidationError(first, errors=faults))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    try:
        title = HTTPStatus(error.status_code).phrase
    except ValueError:
        title = "Error"
    detail = error.detail if isinstance(error.detail, str) and error.detail != title else ""
    if error.status_code == 404 and not detail:
        detail = "there is nothing at this path"
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in (error.headers or {}).items()
    ]
    return _response(
        _problem(error.status_code, title, detail, request_id_of(request.scope), headers=headers)
    )


def _fault(fault: Mapping[str, Any]) -> FieldError:
    location = fault.get("loc", ())
    if fault.get("type") == "json_invalid":
        return FieldError("body", "the body is not valid JSON")
    where = ""
    for step in location:
        where += f"[{step}]" if isinstance(step, int) else f"{'.' if where else ''}{step}"
    return FieldError(where, str(fault.get("msg", "invalid")))
