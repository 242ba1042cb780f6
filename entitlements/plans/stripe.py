"""Stripe's signature of a webhook, checked by Stripe's own package. The only file that knows it."""

from collections.abc import Sequence

from meterline.kernel.errors import ValidationError


def check_signature(
    payload: bytes, header: str, secrets: Sequence[str], tolerance_seconds: int
) -> None:
    """Refuse a payload that was signed with none of the secrets, or too long ago."""
    # Imported when it is first needed: it takes a while, and few servers take webhooks.
    from stripe import SignatureVerificationError, WebhookSignature

    # Signatures are hexadecimal, and the package cannot compare anything else.
    if not header.isascii():
        raise ValidationError("Stripe-Signature: must be ASCII")
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        raise ValidationError("the body is not UTF-8") from None
    for secret in secrets:
        try:
            WebhookSignature.verify_header(text, header, secret, tolerance_seconds)
        except SignatureVerificationError:
            continue
        return
    raise ValidationError("Stripe-Signature: does not fit the body, or is too old")
