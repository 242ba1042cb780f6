"""What channels and rules may be. Pure; every refusal names its field."""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from entitlements.notifications.guard import refused_host
from entitlements.notifications.model import EventType, RuleSpec
from entitlements.notifications.options import NotificationLimits
from entitlements.notifications.signing import check_secret
from meterline.kernel.errors import FieldError, ValidationError

_MAX_HEADER_LENGTH = 4_096
_MAX_LEAD_DAYS = 366
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
_FIELD_VALUE = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?", re.ASCII)
_URL = re.compile(r"[!-~]+", re.ASCII)
_OURS = frozenset(
    ("host", "content-length", "content-type", "transfer-encoding", "connection", "keep-alive",
     "te", "trailer", "upgrade", "expect", "proxy-authorization", "proxy-connection", "user-agent")
)  # fmt: skip


def fail(faults: Iterable[FieldError]) -> None:
    """`ValidationError` when there are faults."""
    errors = list(faults)
    if errors:
        raise ValidationError(f"{errors[0].where}: {errors[0].reason}", errors=errors)


def channel_faults(
    url: str,
    headers: Mapping[str, str],
    secret: str | None,
    limits: NotificationLimits,
    *,
    allow_private: bool,
) -> Iterable[FieldError]:
    """What is wrong with a channel."""
    reason = _url_fault(url, limits, allow_private=allow_private)
    if reason:
        yield FieldError("url", reason)
    if len(headers) > limits.max_headers:
        yield FieldError("customHeaders", f"more than {limits.max_headers} headers")
    for key, value in headers.items():
        reason = _header_fault(key, value)
        if reason:
            yield FieldError(f"customHeaders.{key[:128]}", reason)
    if secret is not None:
        try:
            check_secret(secret)
        except ValidationError as error:
            yield FieldError("signingSecret", error.detail)


def rule_faults(spec: RuleSpec, limits: NotificationLimits) -> Iterable[FieldError]:
    """What is wrong with a rule, apart from channels and features that do not exist."""
    if not 1 <= len(spec.channels) <= limits.max_channels_of_rule:
        yield FieldError("channels", f"1 to {limits.max_channels_of_rule} channels")
    elif len({one.upper() for one in spec.channels}) < len(spec.channels):
        yield FieldError("channels", "a channel twice")
    if spec.type is EventType.BALANCE_THRESHOLD:
        yield from _threshold_faults(spec, limits)
    if spec.lead_time is not None and spec.lead_time.mean.days > _MAX_LEAD_DAYS:
        yield FieldError("leadTime", f"must be at most {_MAX_LEAD_DAYS} days")


def _threshold_faults(spec: RuleSpec, limits: NotificationLimits) -> Iterable[FieldError]:
    if not 1 <= len(spec.thresholds) <= limits.max_thresholds:
        yield FieldError("thresholds", f"1 to {limits.max_thresholds} thresholds")
    if len({(one.type, one.value) for one in spec.thresholds}) < len(spec.thresholds):
        yield FieldError("thresholds", "a threshold twice")


def _url_fault(url: str, limits: NotificationLimits, *, allow_private: bool) -> str:
    if len(url) > limits.max_url_length:
        return f"more than {limits.max_url_length} characters"
    if not _URL.fullmatch(url):
        return "must be a URL; what is not ASCII has to be encoded"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "must be a URL"
    if parts.scheme.lower() not in ("http", "https") or not host or port == 0:
        return "must be a URL of http or https with a host"
    if parts.username is not None or parts.password is not None:
        return "must have no user name and no password; use customHeaders"
    if parts.fragment:
        return "must have no fragment"
    if not allow_private and refused_host(host):
        return "must be on the public internet (setting notifications.allow_private_targets)"
    return ""


def _header_fault(name: str, value: str) -> str:
    if not _TOKEN.fullmatch(name):
        return "is not a header's name"
    if name.lower() in _OURS or name.lower().startswith("webhook-"):
        return "cannot be set"
    if len(value) > _MAX_HEADER_LENGTH or (value and not _FIELD_VALUE.fullmatch(value)):
        return f"must be at most {_MAX_HEADER_LENGTH} visible ASCII characters"
    return ""
