"""Signatures, read by the specification's own library for Python."""

import base64
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from entitlements.notifications.signing import (
    SECRET_PATTERN,
    check_secret,
    generate_secret,
    signed_headers,
)
from meterline.kernel.clock import system_clock
from meterline.kernel.errors import ValidationError


def test_the_example_of_the_specification() -> None:
    """The figures of the specification's reference implementations."""
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        at,
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@given(st.binary(min_size=24, max_size=64), st.text(max_size=200), st.booleans())
def test_the_library_accepts_what_is_signed(key: bytes, text: str, prefixed: bool) -> None:
    encoded = base64.b64encode(key).decode()
    secret = f"whsec_{encoded}" if prefixed else encoded
    check_secret(secret)
    body = text.encode("utf-8", "surrogatepass")
    try:
        body.decode()
    except UnicodeDecodeError:
        body = b"{}"
    headers = signed_headers("01J5", system_clock(), body, [secret])
    Webhook(secret).verify(body, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers, json_parse=False)


def test_a_made_secret_is_one_that_is_taken() -> None:
    secret = generate_secret()
    check_secret(secret)
    assert re.fullmatch(SECRET_PATTERN, secret)
    assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"))) <= 64
    assert generate_secret() != secret


def test_while_a_secret_is_replaced_both_verify() -> None:
    old, new = generate_secret(), generate_secret()
    headers = signed_headers("01J5", system_clock(), b"{}", [new, old])
    for secret in (old, new):
        assert Webhook(secret).verify(b"{}", headers) == {}
    with pytest.raises(WebhookVerificationError):
        Webhook(generate_secret()).verify(b"{}", headers)


def test_a_retry_has_the_same_id_and_another_signature() -> None:
    secret = generate_secret()
    first = signed_headers("01J5", system_clock() - timedelta(seconds=60), b"{}", [secret])
    second = signed_headers("01J5", system_clock(), b"{}", [secret])
    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-timestamp"] != second["webhook-timestamp"]
    assert first["webhook-signature"] != second["webhook-signature"]
    Webhook(secret).verify(b"{}", first)
    Webhook(secret).verify(b"{}", second)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "short",
        "whsec_",
        "x" * 101,
        "ü" * 40,
        "a-b_" * 10,
        "=" * 40 + "a",
        "a" * 33,
        "aaaa" + "=" * 40,
    ],
)
def test_a_secret_that_libraries_cannot_use(secret: str) -> None:
    with pytest.raises(ValidationError):
        check_secret(secret)
