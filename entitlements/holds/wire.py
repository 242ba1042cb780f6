"""Holds on the wire: bodies in, JSON out. Pure; numbers keep every digit."""

import json
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from entitlements.api.exact import Amount, JsonText, PositiveAmount, read_body_as
from entitlements.api.views import Number, Time
from entitlements.api.wire import Metadata, Text
from entitlements.holds.model import ID_PATTERN, Hold, OnExcess, State
from entitlements.specs import fault
from meterline.kernel.instants import format_micros
from meterline.kernel.meters import (
    MAX_METADATA,
    MAX_METADATA_KEY_LENGTH,
    MAX_METADATA_VALUE_LENGTH,
    is_storable,
)
from meterline.kernel.quantity import ValueFault, format_number, parse_value
from meterline.web.json import encode

MAX_MODEL_LENGTH = 256
_ABSENT = msgspec.Raw(b"null")
T = TypeVar("T")


class OpenHold(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """A hold to open. Numbers are as they were sent."""

    amount: msgspec.Raw
    id: str | None = None
    ttl_seconds: msgspec.Raw = _ABSENT
    on_excess: OnExcess = OnExcess.DENY
    model: str | None = None
    metadata: dict[str, str] | None = None


class ConfirmHold(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """A hold to confirm, all of it when no amount is said."""

    amount: msgspec.Raw = _ABSENT


class ReleaseHold(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A hold to give back: nothing is to be said."""


_open = msgspec.json.Decoder(OpenHold)
_confirm = msgspec.json.Decoder(ConfirmHold)
_release = msgspec.json.Decoder(ReleaseHold)


def read_open(body: bytes) -> OpenHold:
    """What a body asks for, or `ValidationError`."""
    asked = _read(_open, body)
    if asked.model is not None:
        check_text("model", asked.model, MAX_MODEL_LENGTH)
    check_metadata(asked.metadata or {})
    return asked


def read_confirm(body: bytes) -> Decimal | None:
    """The amount that a body says, or `ValidationError`."""
    asked = _read(_confirm, body)
    return optional_amount("amount", asked.amount)


def check_release(body: bytes) -> None:
    """`ValidationError` when a body says anything."""
    _read(_release, body)


def amount_of(where: str, raw: msgspec.Raw, *, positive: bool = False) -> Decimal:
    """A JSON number, exactly; zero only unless it must be positive."""
    text = bytes(raw).decode()
    parsed = parse_value(text) if text[:1] in "-0123456789" else ValueFault("must be a number")
    if isinstance(parsed, ValueFault):
        raise fault(where, parsed.reason)
    if parsed < 0 or (positive and not parsed):
        raise fault(where, "must be positive" if positive else "must not be negative")
    return parsed


def optional_amount(where: str, raw: msgspec.Raw) -> Decimal | None:
    """The same; None when it is absent or null."""
    return None if bytes(raw) == b"null" else amount_of(where, raw)


def check_text(where: str, text: str, most: int) -> None:
    """Refuse a text that is empty, too long, or that no database keeps."""
    if not 1 <= len(text) <= most or not is_storable(text):
        raise fault(where, f"must have 1 to {most} characters, and no NUL")


def check_metadata(metadata: dict[str, str]) -> None:
    """The same rules as for all metadata."""
    if len(metadata) > MAX_METADATA:
        raise fault("metadata", f"must have at most {MAX_METADATA} keys")
    for key, text in metadata.items():
        if not 1 <= len(key) <= MAX_METADATA_KEY_LENGTH or len(text) > MAX_METADATA_VALUE_LENGTH:
            raise fault(
                "metadata",
                f"keys have 1 to {MAX_METADATA_KEY_LENGTH} characters,"
                f" values at most {MAX_METADATA_VALUE_LENGTH}",
            )
        if not is_storable(key + text):
            raise fault("metadata", "must not hold NUL or half a surrogate pair")


def hold_json(hold: Hold) -> dict[str, Any]:
    """A hold. It says the same of a closed hold for ever."""
    of = hold.opening
    answer: dict[str, Any] = {
        "id": of.id,
        "subjectKey": of.place.subject,
        "featureKey": of.place.feature_key,
        "entitlementId": hold.entitlement_id,
        "status": hold.state.value,
        "amount": number(of.amount),
        "onExcess": of.on_excess.value,
        "ttlSeconds": number(of.ttl_seconds),
        "createdAt": instant(hold.created_at),
    }
    if hold.expires_at is not None:
        answer["expiresAt"] = instant(hold.expires_at)
    if hold.closed_at is not None:
        answer["closedAt"] = instant(hold.closed_at)
    if hold.confirmed is not None:
        answer["confirmedAmount"] = number(hold.confirmed)
        answer["excessAmount"] = number(hold.excess)
    if hold.state is not State.OPEN and hold.state is not State.FAILED:
        answer["releasedAmount"] = number(hold.released)
    if of.model is not None:
        answer["model"] = of.model
    answer["metadata"] = json.loads(of.metadata) if of.metadata != "{}" else {}
    return answer


def hold_bytes(hold: Hold) -> bytes:
    """The same as a body."""
    return encode(hold_json(hold))


def number(value: Decimal) -> msgspec.Raw:
    """A JSON number with every digit."""
    return msgspec.Raw(format_number(value).encode())


def instant(micros: int) -> str:
    """RFC 3339."""
    return format_micros(micros)


def _read(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    return read_body_as(decoder, body or b"{}")


HoldId = Annotated[JsonText, Field(json_schema_extra={"pattern": ID_PATTERN, "maxLength": 255})]
"""An id that a caller gives; how long it may be is a setting."""


class Wire(BaseModel):
    """A body in camelCase; a misspelt field is refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class OpenHoldBody(Wire):
    """A hold to open."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"amount": 5}]})

    amount: PositiveAmount
    id: HoldId | None = Field(
        None, description="With an id it can be sent again: it is opened once."
    )
    ttl_seconds: Amount | None = Field(
        None, description="When it expires by itself; 0 is never. A setting if absent."
    )
    on_excess: Literal["deny", "charge"] = Field(
        "deny", description="Whether more than was held may be confirmed."
    )
    model: Text | None = Field(
        None,
        min_length=1,
        max_length=MAX_MODEL_LENGTH,
        description="The model of the usage it becomes.",
    )
    metadata: Metadata | None = None


class ConfirmHoldBody(Wire):
    """A hold to confirm."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"amount": 3}]})

    amount: Amount | None = Field(None, description="All of it if absent; the rest is given back.")


class ReleaseHoldBody(Wire):
    """A hold to release: nothing is to be said."""


class HoldView(BaseModel):
    """A hold."""

    id: str
    subjectKey: str
    featureKey: str
    entitlementId: str
    status: Literal["open", "confirmed", "released", "expired", "failed"]
    amount: Number
    onExcess: Literal["deny", "charge"]
    ttlSeconds: Number
    createdAt: Time
    expiresAt: Time | None = None
    closedAt: Time | None = None
    confirmedAmount: Number | None = None
    excessAmount: Number | None = Field(
        None, description="How much more was confirmed than held: it was charged at once."
    )
    releasedAmount: Number | None = None
    model: str | None = None
    metadata: dict[str, str]


class HoldPage(BaseModel):
    """Some holds."""

    items: list[HoldView]
    nextCursor: str | None = None
