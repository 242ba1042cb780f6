"""What the value of a CloudEvents attribute may be. Pure; every check answers with a fault or None.

The rules are those of the CloudEvents 1.0.2 type system, RFC 3339 and RFC 3986; where these leave
a choice, `docs/ingest.md` says which one is made here.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import AddressValueError, IPv6Address

from meterline.web.media import parse_media_type

FIRST_TIME = datetime(1900, 1, 1, tzinfo=UTC)
END_OF_TIME = datetime(2200, 1, 1, tzinfo=UTC)

# C0, DEL and C1 controls, surrogates, and the code points that Unicode never assigns.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)
_NAME = re.compile(r"[a-z0-9]+")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,9})")
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")

_SEGMENT = r"[A-Za-z0-9._~!$&'()*+,;=:@%-]"
_HOST = (
    r"(?:\[([0-9A-Fa-f:.]+)\]|\[v[0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+\]"
    r"|[A-Za-z0-9._~!$&'()*+,;=%-]*)"
)
_URI_REFERENCE = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?"
    rf"(?://(?:[A-Za-z0-9._~!$&'()*+,;=:%-]*@)?{_HOST}(?::[0-9]*)?(?:/{_SEGMENT}*)*"
    rf"|(?P<path>/?(?:{_SEGMENT}+(?:/{_SEGMENT}*)*)?))"
    rf"(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
    rf"(?P<fragment>#[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
# Days (in UTC) that ended with a leap second, as announced by the IERS up to Bulletin C 72.
_JUNE_LEAPS = (1972, 1981, 1982, 1983, 1985, 1992, 1993, 1994, 1997, 2012, 2015)
_DECEMBER_LEAPS = (
    *(1972, 1973, 1974, 1975, 1976, 1977, 1978, 1979, 1987, 1989, 1990, 1995, 1998),
    *(2005, 2008, 2016),
)
_LEAP_DAYS = frozenset(
    [f"{year}-06-30" for year in _JUNE_LEAPS] + [f"{year}-12-31" for year in _DECEMBER_LEAPS]
)


def text_fault(text: str) -> str | None:
    """The fault of a CloudEvents String: a character that it must not hold."""
    # Most text is printable ASCII, which C code finds out faster than the expression would.
    if text.isascii() and text.isprintable():
        return None
    match = _FORBIDDEN.search(text)
    if match is None:
        return None
    return f"holds U+{ord(match[0]):04X}, a character that attributes must not hold"


def name_fault(name: str, max_length: int) -> str | None:
    """The fault of an extension attribute's name."""
    if _NAME.fullmatch(name) is None:
        return "attribute names consist of lower-case letters a-z and digits"
    if len(name) > max_length:
        return f"the attribute name has more than {max_length} characters"
    return None


SourceFault = Callable[[str], str | None]
"""Says why a text is no source that is accepted; None when it is one."""

RESERVED_SOURCES = "meterline:"
"""How the sources of events begin that this server writes itself."""


def callers_source_fault(text: str) -> str | None:
    """Why a caller may not give this source. Who could write our own events could settle holds."""
    if text.startswith(RESERVED_SOURCES):
        return f"must not begin with {RESERVED_SOURCES!r}, which is for events of this server"
    return uri_reference_fault(text)


def uri_reference_fault(text: str) -> str | None:
    """The fault of a URI reference (RFC 3986, section 4.1)."""
    return None if _uri(text) is not None else "must be a URI reference (RFC 3986)"


def absolute_uri_fault(text: str) -> str | None:
    """The fault of an absolute URI (RFC 3986, section 4.3: a scheme, and no fragment)."""
    match = _uri(text)
    if match is None or match["scheme"] is None or match["fragment"] is not None:
        return "must be an absolute URI (RFC 3986, section 4.3)"
    return None


def media_type_fault(text: str) -> str | None:
    """The fault of a media type (RFC 2046)."""
    if text != text.strip(" \t") or parse_media_type(text) is None:
        return "must be a media type (RFC 2046)"
    return None


def is_json(content_type: str | None) -> bool:
    """Whether data of this type is JSON; it is when nothing is said."""
    if content_type is None:
        return True
    media = parse_media_type(content_type)
    subtype = media.essence.partition("/")[2] if media else ""
    return subtype == "json" or subtype.endswith("+json")


def base64_fault(text: str) -> str | None:
    """The fault of base64 (RFC 4648, section 4: that alphabet, padded, nothing else)."""
    return None if _BASE64.fullmatch(text) else "must be base64 (RFC 4648, section 4)"


def integer_of(text: str) -> int | None:
    """The CloudEvents Integer that a JSON number spells, None when it spells none."""
    if _INTEGER.fullmatch(text) is None:
        return None
    value = int(text)
    return value if -(2**31) <= value < 2**31 else None


def read_time(text: str) -> tuple[str, str | None]:
    """A Timestamp as it is kept, and its fault.

    It is kept as sent, but in upper case, with at most nine digits of a second, and a leap second
    as the first instant after it.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        return text, "must be an RFC 3339 timestamp"
    day, hour, minute, second, fraction, sign, offset_hour, offset_minute = match.groups()
    is_leap = second == "60"
    try:
        local = datetime.fromisoformat(f"{day}T{hour}:{minute}:{'59' if is_leap else second}+00:00")
    except ValueError:
        return text, "must be an RFC 3339 timestamp: there is no such date or time of day"
    if hour > "23" or (offset_hour or "") > "23" or (offset_minute or "") > "59":
        return text, "must be an RFC 3339 timestamp: there is no such time of day or offset"
    instant = local
    try:
        if sign is not None:
            offset = timedelta(hours=int(offset_hour), minutes=int(offset_minute))
            instant = local - offset if sign == "+" else local + offset
        in_range = FIRST_TIME <= instant < END_OF_TIME
    except OverflowError:
        in_range = False
    if not in_range:
        return text, "must lie within the years 1900 to 2199"
    if is_leap:
        return _after_leap_second(text, instant, fraction)
    if fraction is not None and len(fraction) > 9:
        text = text.replace(fraction, fraction[:9], 1)
    return text.upper(), None


def _after_leap_second(
    text: str, instant: datetime, fraction: str | None
) -> tuple[str, str | None]:
    if f"{instant:%H:%M:%S}" != "23:59:59" or f"{instant:%Y-%m-%d}" not in _LEAP_DAYS:
        return text, "must be an RFC 3339 timestamp: no leap second was announced then"
    after = f"{instant + timedelta(seconds=1):%Y-%m-%dT%H:%M:%S}"
    return f"{after}.{fraction[:9]}Z" if fraction else f"{after}Z", None


def _uri(text: str) -> re.Match[str] | None:
    match = _URI_REFERENCE.fullmatch(text)
    if match is None or ("%" in text and _BAD_PERCENT.search(text)):
        return None
    path = match["path"]
    if path is not None:
        # A relative path must not look like a scheme, nor a path like an authority.
        first = path.partition("/")[0]
        if path.startswith("//") or (match["scheme"] is None and ":" in first):
            return None
    if match[2] is not None:
        try:
            IPv6Address(match[2])
        except AddressValueError:
            return None
    return match
