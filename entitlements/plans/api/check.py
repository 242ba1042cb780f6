"""`POST /api/v1/check`, in front of the framework: it is asked before every call of a model."""

import asyncio
from decimal import Decimal
from typing import Any

import msgspec

from entitlements.plans.api.encode import decision_json, rate_headers, refusal_json
from entitlements.plans.checks import CheckRequest, CheckService, check_hold
from entitlements.plans.model import Decision, Estimate, Outcome, Refusal
from entitlements.plans.options import PlanOptions
from entitlements.specs import fault
from meterline.kernel.errors import MeterlineError, ValidationError
from meterline.kernel.meters import is_storable
from meterline.kernel.quantity import ValueFault, format_number, parse_value
from meterline.kernel.text import is_text
from meterline.web.asgi import (
    BodyTimeoutError,
    ClientGoneError,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    send_problem,
    send_response,
)
from meterline.web.auth import Authenticator
from meterline.web.idempotency import effect_of
from meterline.web.json import encode
from meterline.web.problem import request_id_of

_TYPE = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", b"application/problem+json")
_STATUS = {
    Outcome.BANNED: (403, "Forbidden"),
    Outcome.FEATURE: (403, "Forbidden"),
    Outcome.USAGE: (402, "Payment Required"),
    Outcome.RATE: (429, "Too Many Requests"),
}
_BODY_SECONDS = 30.0


class _Estimate(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    tokens: Decimal | None = None
    cost_usd: Decimal | None = None
    credits: Decimal | None = None


class _Hold(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    ttl_seconds: int | None = None


class _Body(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    subject: str
    model: str | None = None
    feature: str | None = None
    estimate: _Estimate | None = None
    dry_run: bool = False
    hold: bool | _Hold = False


_DECODER = msgspec.json.Decoder(_Body)


class CheckEndpoint:
    """Answers 200 when the subject may, else a problem that says which limit is in the way."""

    def __init__(self, service: CheckService, authenticator: Authenticator) -> None:
        self._service = service
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            sent = header(scope, b"authorization")
            principal = await self._authenticator.authenticate(
                None if sent is None else sent.decode("latin-1")
            )
            principal.require("read")
            body = await self._read(receive)
            asked = read_check(body, self._service.options)
            if asked.hold_seconds is not None:
                # It takes from a balance, as opening a hold by its own address does.
                principal.require("ingest")
            decision = await self._service.check(principal.namespace, asked, effect_of(scope))
        except ClientGoneError:
            return
        except MeterlineError as error:
            await send_problem(send, error, request_id_of(scope))
            return
        await send_response(send, *response(decision, request_id_of(scope)))

    async def _read(self, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                return await read_body(receive, self._service.options.max_check_bytes)
        except TimeoutError:
            raise BodyTimeoutError(f"the body did not arrive within {_BODY_SECONDS:g} s") from None


def read_check(body: bytes, options: PlanOptions) -> CheckRequest:
    """What a body asks; `ValidationError` says what is wrong with it."""
    try:
        given = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise fault("body", "the body is not valid JSON") from None
    most = options.max_subject_length
    if not 1 <= len(given.subject) <= most or not is_text(given.subject):
        raise fault("subject", f"must have 1 to {most} characters, and no control characters")
    if given.feature is not None and not is_storable(given.feature):
        raise fault("feature", "must not hold NUL")
    estimate = Estimate()
    if given.estimate is not None:
        of = given.estimate
        estimate = Estimate(
            _amount("tokens", of.tokens),
            _amount("costUsd", of.cost_usd),
            _amount("credits", of.credits),
        )
        if estimate.tokens is not None and estimate.tokens != estimate.tokens.to_integral_value():
            raise fault("estimate.tokens", "must be a whole number")
    seconds = None
    if given.hold is not False:
        wanted = None if given.hold is True else given.hold.ttl_seconds
        most = options.max_hold_ttl_seconds
        if wanted is not None and not 1 <= wanted <= most:
            raise fault("hold.ttlSeconds", f"must be from 1 to {most}")
        if given.dry_run:
            raise fault("hold", "a dry run sets nothing aside")
        seconds = check_hold(estimate, options, wanted)
    return CheckRequest(given.subject, given.feature, estimate, not given.dry_run, seconds)


def response(decision: Decision, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of a decision."""
    refusal = decision.refusal
    headers = rate_headers(decision.limits)
    if refusal is None:
        body = encode(decision_json(decision))
        return 200, [_TYPE, (b"content-length", b"%d" % len(body)), *headers], body
    status, title = _STATUS[refusal.outcome]
    if refusal.outcome is Outcome.RATE:
        headers.append((b"retry-after", b"%d" % (refusal.retry_after_seconds or 1)))
    body = encode(_problem(decision, refusal, status, title, request_id))
    return status, [_PROBLEM, (b"content-length", b"%d" % len(body)), *headers], body


def _problem(
    decision: Decision, refusal: Refusal, status: int, title: str, request_id: str
) -> dict[str, Any]:
    said = refusal_json(refusal) | {"subject": decision.subject, "outcome": refusal.outcome.value}
    if decision.plan is not None:
        said["plan"] = decision.plan
    return {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": refusal.detail,
        "instance": f"urn:request:{request_id}",
        **said,
        # Where all of our problems have what programs read.
        "extensions": said,
    }


def _amount(name: str, value: Decimal | None) -> Decimal | None:
    if value is None:
        return None
    where = f"estimate.{name}"
    if not value.is_finite() or value < 0:
        raise fault(where, "must be a number that is not negative")
    if abs(value.adjusted()) > 100:
        raise fault(where, "has too many digits")
    parsed = parse_value(format_number(value))
    if isinstance(parsed, ValueFault):
        raise fault(where, "has too many digits")
    return parsed


def _invalid(error: msgspec.ValidationError) -> ValidationError:
    text, _, path = str(error).partition(" - at `$")
    where = path.rstrip("`").lstrip(".") or "body"
    return fault(where, text[:1].lower() + text[1:])
