"""Events of Stripe, as it signs and sends them, to a bench of plans."""

import itertools
import json
from typing import Any

import httpx
import stripe

from tests.support.planning import SECRET, Planning

_numbers = itertools.count(1)


async def prepared(bench: Planning) -> Planning:
    await bench.plan("free")
    await bench.plan("pro", stripePriceIds=["price_pro"], creditsPerPayment=5)
    await bench.plan("max", stripePriceIds=["price_max"])
    return bench


def invoice(
    bench: Planning,
    kind: str,
    *,
    after: int = 0,
    price: str = "price_pro",
    subscription: str = "sub_1",
    subject: str | None = "ann",
    old: bool = False,
    paid: int = 2_000,
    period: int = 0,
    number: str | None = None,
    **metadata: str,
) -> dict[str, Any]:
    """An event of an invoice; `after` are seconds after the bench's clock."""
    said = {**metadata} if subject is None else {"end_user_id": subject, **metadata}
    line: dict[str, Any] = {"amount": 2_000, "period": {"start": period, "end": period + 100}}
    one: dict[str, Any] = {"id": number or f"in_{next(_numbers)}", "amount_paid": paid}
    if old:
        line["price"] = {"id": price}
        one |= {"subscription": subscription, "subscription_details": {"metadata": said}}
    else:
        line["pricing"] = {"price_details": {"price": price}}
        details = {"subscription": subscription, "metadata": said}
        one["parent"] = {"subscription_details": details}
    refund = {"amount": -500, "pricing": {"price_details": {"price": "price_max"}},
              "period": {"start": period, "end": period + 999}}  # fmt: skip
    one["lines"] = {"data": [refund, line]}
    return event(bench, kind, one, after)


def ended(bench: Planning, *, after: int = 0, subscription: str = "sub_1") -> dict[str, Any]:
    one = {"id": subscription, "metadata": {"end_user_id": "ann"}}
    return event(bench, "customer.subscription.deleted", one, after)


def event(bench: Planning, kind: str, one: dict[str, Any], after: int) -> dict[str, Any]:
    created = int(bench.clock().timestamp()) + after
    return {
        "id": f"evt_{next(_numbers)}",
        "type": kind,
        "created": created,
        "data": {"object": one},
    }


async def post(
    bench: Planning, body: Any, secret: str = SECRET, header: str | None = None
) -> httpx.Response:
    text = body if isinstance(body, str) else json.dumps(body)
    if header is None:
        header = stripe.WebhookSignature.generate_signature_header(text, secret)
    # As a server reads them: a header has bytes, not characters.
    signature: Any = header.encode("latin-1")
    response: httpx.Response = await bench.send(
        "POST", "/stripe/webhook", text, headers={"stripe-signature": signature}
    )
    return response


async def send(bench: Planning, body: Any) -> Any:
    response = await post(bench, body)
    assert response.status_code == 200, response.text
    return response.json()


async def plan_of(bench: Planning, subject: str = "ann") -> str | None:
    response = await bench.send("GET", f"/subjects/{subject}/plan")
    return response.json()["plan"]["key"] if response.status_code == 200 else None
