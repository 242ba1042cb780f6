"""What an event of Stripe says that matters here. Pure; nothing in an event is taken for granted.

Stripe moved a subscription's details from the invoice itself to `parent` in 2025; both are read,
and the lines, whose metadata is a copy of the subscription's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from meterline.kernel.errors import ValidationError
from meterline.kernel.instants import LATEST, from_micros
from meterline.kernel.meters import is_storable
from meterline.kernel.quantity import parse_value

_SUBJECT = ("end_user_id",)
_PLAN = ("plan", "meterline_plan", "parmot_plan_name")
_FALLBACK = ("fallback_plan", "parmot_fallback_plan_name")
_CREDITS = ("credits",)
_MAX_ID = 255
_MOST = 2**62


class Kind(StrEnum):
    """What happened, as far as plans are concerned."""

    PAID = "paid"
    FAILED = "failed"
    ENDED = "ended"


_KINDS = {
    "invoice.paid": Kind.PAID,
    "invoice.payment_succeeded": Kind.PAID,
    "invoice.payment_failed": Kind.FAILED,
    "customer.subscription.deleted": Kind.ENDED,
}


@dataclass(frozen=True, slots=True)
class Notice:
    """An event. `kind` is None when its type is none that is used here."""

    id: str
    type: str
    created_at: datetime
    kind: Kind | None = None
    subject: str | None = None
    subscription: str | None = None
    prices: tuple[str, ...] = ()
    """The most telling first."""
    plan: str | None = None
    """As the metadata names it."""
    fallback: str | None = None
    credits: Decimal | None = None
    """As the metadata names them."""
    invoice: str | None = None
    is_charged: bool = False
    """Money was paid, not only nothing."""
    period_start: int | None = None
    """Of what is paid for, in seconds since 1970."""
    period_end: int | None = None


def read_notice(event: Any) -> Notice:
    """The notice; `ValidationError` when it is no event of Stripe."""
    top = _object(event)
    event_id, kind = _text(top.get("id")), _text(top.get("type"))
    created = top.get("created")
    if not event_id or not kind or not isinstance(created, int) or isinstance(created, bool):
        raise ValidationError("the body is no event of Stripe")
    if not 0 <= created < LATEST.timestamp():
        raise ValidationError("created: is no time")
    at = from_micros(created * 1_000_000)
    subject = _object(_object(top.get("data")).get("object"))
    match _KINDS.get(kind):
        case None:
            return Notice(event_id, kind, at)
        case Kind.ENDED:
            return _of_subscription(Notice(event_id, kind, at, Kind.ENDED), subject)
        case found:
            return _of_invoice(Notice(event_id, kind, at, found), subject)


def _of_subscription(notice: Notice, subscription: Mapping[str, Any]) -> Notice:
    metadata = _object(subscription.get("metadata"))
    return _with_metadata(notice, [metadata], _reference(subscription.get("id")))


def _of_invoice(notice: Notice, invoice: Mapping[str, Any]) -> Notice:
    parent = _object(_object(invoice.get("parent")).get("subscription_details"))
    old = _object(invoice.get("subscription_details"))
    lines = list(_lines(invoice))
    said = [parent.get("metadata"), old.get("metadata"), *(one.get("metadata") for one in lines)]
    metadata = [_object(one) for one in (*said, invoice.get("metadata"))]
    subscription = (
        _reference(parent.get("subscription"))
        or _reference(invoice.get("subscription"))
        or next(filter(None, map(_subscription_of, lines)), None)
    )
    charged = [one for one in lines if _whole(one.get("amount")) >= 0]
    ranked = sorted(charged or lines, key=_rank, reverse=True)
    prices = tuple(dict.fromkeys(filter(None, map(_price, ranked))))
    period = _object(ranked[0].get("period")) if ranked else {}
    return replace(
        _with_metadata(notice, metadata, subscription),
        prices=prices,
        invoice=_reference(invoice.get("id")),
        is_charged=_whole(invoice.get("amount_paid")) > 0,
        period_start=_whole(period.get("start")) if ranked else None,
        period_end=_whole(period.get("end")) if ranked else None,
    )


def _with_metadata(
    notice: Notice, metadata: list[Mapping[str, Any]], subscription: str | None
) -> Notice:
    credits = _first(metadata, _CREDITS)
    amount = None if credits is None else parse_value(credits)
    return replace(
        notice,
        subject=_first(metadata, _SUBJECT),
        subscription=subscription,
        plan=_first(metadata, _PLAN),
        fallback=_first(metadata, _FALLBACK),
        credits=amount if isinstance(amount, Decimal) and amount > 0 else None,
    )


def _lines(invoice: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    data = _object(invoice.get("lines")).get("data")
    for line in data if isinstance(data, list) else ():
        yield _object(line)


def _rank(line: Mapping[str, Any]) -> tuple[int, int]:
    """Of several lines, the one that charges for the latest time tells the plan."""
    return _whole(_object(line.get("period")).get("end")), _whole(line.get("amount"))


def _price(line: Mapping[str, Any]) -> str | None:
    details = _object(_object(line.get("pricing")).get("price_details"))
    return (
        _reference(details.get("price"))
        or _reference(line.get("price"))
        or _reference(line.get("plan"))
    )


def _subscription_of(line: Mapping[str, Any]) -> str | None:
    details = _object(_object(line.get("parent")).get("subscription_item_details"))
    return _reference(details.get("subscription")) or _reference(line.get("subscription"))


def _first(metadata: list[Mapping[str, Any]], names: tuple[str, ...]) -> str | None:
    for one in metadata:
        for name in names:
            found = one.get(name)
            if isinstance(found, str) and found and is_storable(found):
                return found
    return None


def _reference(value: Any) -> str | None:
    """An id, or the id of an object that was expanded in its place."""
    if isinstance(value, Mapping):
        value = value.get("id")
    return _text(value)


def _text(value: Any) -> str | None:
    if isinstance(value, str) and 1 <= len(value) <= _MAX_ID and is_storable(value):
        return value
    return None


def _whole(value: Any) -> int:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and abs(value) < _MOST else 0


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
