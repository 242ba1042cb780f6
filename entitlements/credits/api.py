"""The HTTP API of credits, reservations, usage transactions and rates."""

import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from entitlements.api.exact import ExactRoute
from entitlements.api.parameters import Admin, Reader, ok
from entitlements.api.wire import Instant, Name, example_path, subject_path
from entitlements.credits import views
from entitlements.credits.ports import Bans
from entitlements.credits.rates import CreditOptions, Tokens
from entitlements.credits.rating import RateService
from entitlements.credits.service import CreditGrant, CreditService
from entitlements.credits.transactions import Start, Status, Transaction, TransactionService
from entitlements.holds.api import Spender, page_of, position_of
from entitlements.holds.model import Face, Hold, State
from entitlements.holds.service import HoldFilter, HoldRequest, HoldService, accepted
from entitlements.holds.wire import ConfirmHoldBody, Wire, number
from entitlements.specs import fault
from meterline.kernel.errors import NotFoundError
from meterline.kernel.instants import to_micros
from meterline.web.idempotency import EffectId
from meterline.web.json import ExactJSONResponse
from meterline.web.paging import decode_cursor, encode_cursor

_DESCRIPTION = "description"
ReservationId = Annotated[Name, example_path("reservation-1")]
TransactionId = Annotated[Name, example_path("transaction-1")]
ModelName = Annotated[Name, example_path("gpt-4o")]


class Nothing(Wire):
    """Nothing is to be said."""


def _router(tag: str) -> APIRouter:
    return APIRouter(
        prefix="/api/v1",
        tags=[tag],
        default_response_class=ExactJSONResponse,
        route_class=ExactRoute,
    )


def credits_router(service: CreditService, holds: HoldService) -> APIRouter:
    """`/subjects/{subject}/credits`. It comes before subjects, whose paths match."""
    api = _router("Credits")
    most = service.max_subject_length

    @api.post(
        "/subjects/{subject:subject}/credits",
        status_code=201,
        responses=ok(views.CreditGrantView, 201),
    )
    async def grant_credits(
        principal: Admin,
        subject: Annotated[Name, subject_path(most)],
        body: views.CreditsBody,
        effect: EffectId,
    ) -> Response:
        """Give credits: a grant on the subject's entitlement to `credits`, made if need be."""
        wanted = CreditGrant(
            body.amount, body.priority, body.expires_at, body.reason, body.metadata
        )
        issued, balance = await service.grant(principal.namespace, subject, wanted, effect)
        answer = {
            "grantId": issued.grant.id,
            "amount": number(issued.grant.amount),
            **views.credits_json(subject, balance),
        }
        return ExactJSONResponse(answer, status_code=201)

    @api.get("/subjects/{subject:subject}/credits", responses=ok(views.HistoryPage))
    async def get_credits(
        principal: Reader,
        subject: Annotated[Name, subject_path(most)],
        cursor: str | None = None,
        limit: Annotated[int | None, Query(ge=1, le=holds.limits.max_page)] = None,
    ) -> Response:
        """What a subject has, and how that came about: every entry, the newest first."""
        limit = _limit(holds, limit)
        before = None if cursor is None else int(decode_cursor(cursor, [int])[0])
        balance, found = await service.history(principal.namespace, subject, before, limit + 1)
        items = [views.entry_json(one) for one in found[:limit]]
        answer = {**views.credits_json(subject, balance), "items": items}
        if len(found) > limit:
            answer["nextCursor"] = encode_cursor([found[limit - 1].number])
        return ExactJSONResponse(answer)

    return api


def reservations_router(
    service: CreditService, holds: HoldService, options: CreditOptions, bans: Bans
) -> APIRouter:
    """`/reservations`: holds on credits."""
    api = _router("Credits")

    async def reservation(namespace: str, reservation_id: str) -> Hold:
        hold = await holds.get(namespace, reservation_id)
        if hold.opening.face is not Face.RESERVATION:
            raise NotFoundError("there is no such reservation")
        return hold

    async def known(namespace: str, hold_id: str | None) -> bool:
        return hold_id is not None and await holds.find(namespace, hold_id) is not None

    @api.post("/reservations", status_code=201, responses=ok(views.ReservationView, 201, 402))
    async def reserve(
        principal: Spender, body: views.ReservationBody, effect: EffectId
    ) -> Response:
        """Set credits aside, unless that is more than what is available (402)."""
        reservation_id = body.id or effect
        banned = await bans.refusal(principal.namespace, body.account_id)
        # What was reserved before the ban is answered again, as ever.
        if banned is not None and not await known(principal.namespace, reservation_id):
            raise banned
        place = await service.ensure(principal.namespace, body.account_id)
        said = {} if body.description is None else {_DESCRIPTION: body.description}
        ttl = body.ttl_seconds
        asked = HoldRequest(
            place,
            body.amount,
            reservation_id,
            options.reservation_ttl_seconds if ttl is None else ttl,
            body.on_excess,
            body.metadata,
            face=Face.RESERVATION,
            model=body.model,
            details=json.dumps(said, separators=(",", ":")),
        )
        hold = await service.still_there(place, lambda: holds.request(asked))
        return _reservation(accepted(hold), 201)

    @api.get("/reservations", responses=ok(views.ReservationPage))
    async def list_reservations(
        principal: Reader,
        account_id: Annotated[str | None, Query(alias="accountId")] = None,
        status: State | None = None,
        cursor: str | None = None,
        limit: Annotated[int | None, Query(ge=1, le=holds.limits.max_page)] = None,
    ) -> Response:
        """Reservations, the newest first."""
        wanted = HoldFilter(
            account_id, face=Face.RESERVATION, state=status, before=position_of(cursor)
        )
        found, following = await page_of(holds, principal.namespace, wanted, limit)
        items = [_reservation_json(one) for one in found]
        return ExactJSONResponse({"items": items, **following})

    @api.get("/reservations/{reservation_id}", responses=ok(views.ReservationView))
    async def get_reservation(principal: Reader, reservation_id: ReservationId) -> Response:
        """A reservation, as it is now."""
        return _reservation(await reservation(principal.namespace, reservation_id))

    @api.post("/reservations/{reservation_id}/confirm", responses=ok(views.ReservationView))
    async def confirm_reservation(
        principal: Spender,
        reservation_id: ReservationId,
        _effect: EffectId,
        body: ConfirmHoldBody | None = None,
    ) -> Response:
        """Use what is reserved, or less of it; the rest is given back."""
        hold = await reservation(principal.namespace, reservation_id)
        amount = None if body is None else body.amount
        place = hold.opening.place
        return _reservation(
            await holds.confirm(principal.namespace, reservation_id, amount, place=place)
        )

    @api.post("/reservations/{reservation_id}/release", responses=ok(views.ReservationView))
    async def release_reservation(
        principal: Spender,
        reservation_id: ReservationId,
        _effect: EffectId,
        body: Nothing | None = None,
    ) -> Response:
        """Give back all that is reserved."""
        hold = await reservation(principal.namespace, reservation_id)
        place = hold.opening.place
        return _reservation(await holds.release(principal.namespace, reservation_id, place=place))

    return api


def transactions_router(service: TransactionService, holds: HoldService) -> APIRouter:
    """`/usage-transactions`."""
    api = _router("Credits")

    @api.post("/usage-transactions", status_code=201, responses=ok(views.StartedView, 201))
    async def start_transaction(
        principal: Spender, body: views.StartBody, effect: EffectId
    ) -> Response:
        """Begin a model call: hold what it may cost. `continue` says whether to make it."""
        wanted = Start(
            body.user_id,
            body.model,
            _tokens("provisionalTokens", body.provisional_tokens),
            body.feature_identifier,
            body.metadata,
            body.transaction_id or effect,
        )
        started = await service.start(principal.namespace, wanted)
        return ExactJSONResponse(await _started(service, started), status_code=201)

    @api.get("/usage-transactions", responses=ok(views.TransactionPage))
    async def list_transactions(
        principal: Reader,
        user_id: Annotated[str | None, Query(alias="userId")] = None,
        model: str | None = None,
        status: Status | None = None,
        begin: Annotated[Instant | None, Query(alias="from")] = None,
        end: Annotated[Instant | None, Query(alias="to")] = None,
        cursor: str | None = None,
        limit: Annotated[int | None, Query(ge=1, le=holds.limits.max_page)] = None,
    ) -> Response:
        """Transactions, the newest first."""
        wanted = HoldFilter(
            user_id,
            face=Face.TRANSACTION,
            states=_STATES[status] if status else (),
            success=_SUCCESS.get(status) if status else None,
            model=model,
            since=_micros(begin),
            until=_micros(end),
            before=position_of(cursor),
        )
        found, following = await page_of(holds, principal.namespace, wanted, limit)
        items = [views.transaction_json(Transaction(one)) for one in found]
        return ExactJSONResponse({"items": items, **following})

    @api.get("/usage-transactions/{transaction_id}", responses=ok(views.TransactionView))
    async def get_transaction(principal: Reader, transaction_id: TransactionId) -> Response:
        """A transaction, as it is now."""
        one = await service.get(principal.namespace, transaction_id)
        return ExactJSONResponse(views.transaction_json(one))

    @api.post("/usage-transactions/{transaction_id}/complete", responses=ok(views.CompletedView))
    async def complete_transaction(
        principal: Spender,
        transaction_id: TransactionId,
        body: views.CompleteBody,
        _effect: EffectId,
    ) -> Response:
        """End a model call: charge the tokens that it needed."""
        one = await service.complete(
            principal.namespace,
            transaction_id,
            success=body.success,
            finalized=_tokens("finalizedTokens", body.finalized_tokens),
        )
        answer = {
            "transactionId": transaction_id,
            "creditsUsed": number(one.credits_used),
            "balance": number(await service.left(one)),
            "balanceAdjustment": number(one.adjustment),
        }
        return ExactJSONResponse(answer)

    return api


def rates_router(service: RateService, holds: HoldService) -> APIRouter:
    """`/credit-rates`."""
    api = _router("Credits")

    @api.post("/credit-rates", status_code=201, responses=ok(views.CreditRateView, 201))
    async def create_rate(principal: Admin, body: views.RateBody, _effect: EffectId) -> Response:
        """Set what a million tokens of a model cost, instead of its price."""
        made = await service.put(principal.namespace, body.rate())
        return ExactJSONResponse(views.rate_json(made), status_code=201)

    @api.get("/credit-rates", responses=ok(views.RatePage))
    async def list_rates(
        principal: Reader,
        cursor: str | None = None,
        limit: Annotated[int | None, Query(ge=1, le=holds.limits.max_page)] = None,
    ) -> Response:
        """Rates, by model."""
        limit = _limit(holds, limit)
        after = None if cursor is None else str(decode_cursor(cursor, [str])[0])
        found = await service.list(principal.namespace, after, limit + 1)
        answer: dict[str, Any] = {"items": [views.rate_json(one) for one in found[:limit]]}
        if len(found) > limit:
            answer["nextCursor"] = encode_cursor([found[limit - 1].model])
        return ExactJSONResponse(answer)

    @api.get("/credit-rates/{model:path}", responses=ok(views.CreditRateView))
    async def get_rate(principal: Reader, model: ModelName) -> Response:
        """The rate of a model."""
        return ExactJSONResponse(views.rate_json(await service.get(principal.namespace, model)))

    @api.put("/credit-rates/{model:path}", responses=ok(views.CreditRateView))
    async def put_rate(principal: Admin, model: ModelName, body: views.RateBody) -> Response:
        """Set the rate of a model."""
        if body.model != model:
            raise fault("model", "is not the one of the address")
        return ExactJSONResponse(
            views.rate_json(await service.put(principal.namespace, body.rate()))
        )

    @api.delete("/credit-rates/{model:path}", status_code=204)
    async def delete_rate(principal: Admin, model: ModelName) -> None:
        """Forget the rate of a model: its price counts again."""
        await service.delete(principal.namespace, model)

    return api


_STATES = {
    Status.STARTED: (State.OPEN,),
    Status.COMPLETED: (State.CONFIRMED,),
    Status.FAILED: (State.CONFIRMED, State.RELEASED),
    Status.REFUSED: (State.FAILED,),
    Status.EXPIRED: (State.EXPIRED,),
}
_MESSAGES = {
    Status.STARTED: "started",
    Status.COMPLETED: "completed already",
    Status.FAILED: "completed already, without success",
    Status.REFUSED: "insufficient credits",
    Status.EXPIRED: "expired: use a new id",
}
_SUCCESS = {Status.COMPLETED: True, Status.FAILED: False}


def _tokens(where: str, body: views.TokensBody | None) -> Tokens | None:
    """What a body counts: a part is at most its whole, as in usage records."""
    if body is None:
        return None
    if body.cached_tokens > body.input_tokens:
        raise fault(f"{where}.cachedTokens", "must be at most inputTokens, which they are part of")
    return body.tokens()


async def _started(service: TransactionService, one: Transaction) -> dict[str, Any]:
    left = await service.left(one)
    # With nothing to hold, there must be something left.
    may = one.status is Status.STARTED and (one.hold.amount > 0 or left > 0)
    lacking = one.status is Status.STARTED and not may
    return {
        "transactionId": one.hold.id,
        "continue": may,
        "balance": number(left),
        "creditsUsed": number(one.credits_used),
        "message": _MESSAGES[Status.REFUSED if lacking else one.status],
    }


def _reservation(hold: Hold, status: int = 200) -> Response:
    return ExactJSONResponse(_reservation_json(hold), status_code=status)


def _reservation_json(hold: Hold) -> dict[str, Any]:
    description = json.loads(hold.opening.details).get(_DESCRIPTION)
    return views.reservation_json(hold, description)


def _limit(holds: HoldService, limit: int | None) -> int:
    most = holds.limits.max_page
    limit = holds.limits.default_page if limit is None else limit
    if limit > most:
        raise fault("limit", f"must be at most {most}")
    return limit


def _micros(instant: datetime | None) -> int | None:
    return None if instant is None else to_micros(instant)
