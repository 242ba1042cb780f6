"""Pure: turns a row of a file (CSV cells or a JSON object) into the text of one CloudEvent.

Nothing here passes a number through a float: a cell or member that is a JSON number is written
into the event exactly as it was read. An event's `id` depends on the row alone, never on the run,
so that sending a row again is a duplicate that the server does not count.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring as quote

import msgspec


class RowError(ValueError):
    """A row that cannot become an event; the text says why."""


@dataclass(frozen=True, slots=True)
class RowMapping:
    """How the columns of a row become the attributes of an event.

    `type` None means that rows are CloudEvents already. `data_columns` empty means every column
    that is not used for the id, the time or the subject.
    """

    type: str | None = None
    source: str = "import"
    subject: str | None = None
    subject_column: str | None = None
    time_column: str | None = None
    time_format: str = "auto"
    id_columns: tuple[str, ...] = ()
    data_columns: tuple[str, ...] = ()


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").fullmatch
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ]([0-9]{2}:[0-9]{2})(:[0-9]{2}(?:\.[0-9]+)?)?)?"
    r" ?(Z|z|UTC|[+-][0-9]{2}:?[0-9]{2})?"
).fullmatch
_USUAL_TIME = re.compile(  # without groups: this is asked for each row
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z?"
).fullmatch
_UNIX = re.compile(r"(-?[0-9]{1,20})(?:\.([0-9]{1,30}))?").fullmatch
_UNIX_DIGITS = {"unix": 0, "unix_ms": 3, "unix_us": 6, "unix_ns": 9}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


def json_value(cell: str) -> str:
    """The JSON text of a CSV cell: the cell itself when it is a JSON number, else a string."""
    return cell if _NUMBER(cell) else quote(cell)


def time_text(value: str, time_format: str = "auto") -> str:
    """RFC 3339 text of a time: as `time_format` says, and UTC where it has no zone.

    `auto` reads ISO 8601 dates and times with `T` or a space, and seconds since 1970. Other
    formats: `unix`, `unix_ms`, `unix_us`, `unix_ns`, or a pattern for strptime that holds a `%`.
    """
    if time_format == "auto":
        if _USUAL_TIME(value):
            text = value if value[10] == "T" else f"{value[:10]}T{value[11:]}"
            return text if text[-1] == "Z" else f"{text}Z"
        match = _TIME(value)
        if match:
            day, minute, rest, zone = match.groups()
            return f"{day}T{minute or '00:00'}{rest or ':00'}{_zone(zone)}"
        return _unix_text(value, 0)
    if time_format in _UNIX_DIGITS:
        return _unix_text(value, _UNIX_DIGITS[time_format])
    try:
        parsed = datetime.strptime(value, time_format)
    except ValueError as error:
        raise RowError(f"time {_short(value)} does not match {time_format!r}") from error
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return parsed.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _zone(zone: str | None) -> str:
    if zone is None or zone in ("Z", "z", "UTC"):
        return "Z"
    return zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"


def _unix_text(value: str, fraction_digits: int) -> str:
    match = _UNIX(value)
    if not match:
        raise RowError(f"time {_short(value)} is not understood; see --time-format")
    whole, fraction = match.groups()
    seconds, part = divmod(int(whole), 10**fraction_digits)
    if fraction and int(whole) < 0:
        raise RowError(f"time {_short(value)} is before 1970 and has a fraction")
    digits = (f"{part:0{fraction_digits}}" if fraction_digits else "") + (fraction or "")
    try:
        day = _EPOCH + timedelta(seconds=seconds)
    except OverflowError as error:
        raise RowError(f"time {_short(value)} is out of range; see --time-format") from error
    text = day.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def row_id(parts: Sequence[str]) -> str:
    """One id of several column values: distinct tuples have distinct ids."""
    if len(parts) == 1:
        return parts[0]
    return ":".join(part.replace("%", "%25").replace(":", "%3A") for part in parts)


def hashed_id(row: int, content: str) -> str:
    """An id for a row that names none: of its place in the file and its content."""
    return hashlib.sha256(f"{row}\n{content}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


RowMapper = Callable[[int, Sequence[str]], str]
"""(number of the row from 1, its cells) -> the event's JSON text. Raises RowError."""


def csv_mapper(mapping: RowMapping, header: Sequence[str]) -> RowMapper:
    """A mapper for the rows of a CSV file with this header. Raises RowError."""
    place = _places(header)

    def index(column: str) -> int:
        if column not in place:
            raise RowError(f"no column {column!r}; the file has {', '.join(header)}")
        return place[column]

    width = len(header)
    ids = [index(column) for column in mapping.id_columns]
    subject_at = index(mapping.subject_column) if mapping.subject_column else -1
    time_at = index(mapping.time_column) if mapping.time_column else -1
    used = {*ids, subject_at, time_at}
    data = [index(column) for column in mapping.data_columns] or [
        at for at in range(width) if at not in used
    ]
    names = [f"{quote(header[at])}:" for at in data]
    tail = _fixed_attributes(mapping)
    time_format = mapping.time_format

    def event(row: int, cells: Sequence[str]) -> str:
        if len(cells) != width:
            raise RowError(f"{len(cells)} cells, but the header has {width}")
        text = tail
        if subject_at >= 0:
            text += f',"subject":{quote(cells[subject_at])}'
        if time_at >= 0:
            text += f',"time":"{time_text(cells[time_at], time_format)}"'
        values = ",".join(
            [name + json_value(cells[at]) for name, at in zip(names, data, strict=True)]
        )
        text += f',"data":{{{values}}}}}'
        return _with_id(row, [cells[at] for at in ids], text)

    return event


def _places(header: Sequence[str]) -> dict[str, int]:
    place = {name: at for at, name in enumerate(header)}
    if len(place) != len(header):
        raise RowError("two columns have the same name")
    return place


def _fixed_attributes(mapping: RowMapping) -> str:
    text = f',"source":{quote(mapping.source)},"type":{quote(mapping.type or "")}'
    if mapping.subject is not None:
        text += f',"subject":{quote(mapping.subject)}'
    return text


def _with_id(row: int, parts: Sequence[str], rest: str) -> str:
    if parts and not any(parts):
        raise RowError("the id columns are empty")
    identity = row_id(parts) if parts else hashed_id(row, rest)
    return f'{{"specversion":"1.0","id":{quote(identity)}{rest}'


ObjectMapper = Callable[[int, str], str]
"""(number of the row from 1, JSON text of an object) -> the event's JSON text."""


def object_mapper(mapping: RowMapping) -> ObjectMapper:
    """A mapper for JSON objects: CloudEvents when no type is given, else records to be mapped."""
    return _record_mapper(mapping) if mapping.type is not None else cloudevent


def cloudevent(row: int, text: str) -> str:
    """A CloudEvent as it stands; one without an id gets an id of its place and content."""
    members = _members(text)
    if "id" in members:
        return text
    if "type" not in members:
        raise RowError("not a CloudEvent: no id and no type; to map other records give --type")
    return f'{{"id":"{hashed_id(row, text)}",{text.lstrip()[1:]}'


def _record_mapper(mapping: RowMapping) -> ObjectMapper:
    fixed = _fixed_attributes(mapping)
    used = {mapping.subject_column, mapping.time_column, *mapping.id_columns}

    def event(row: int, text: str) -> str:
        members = _members(text)
        result = fixed
        if mapping.subject_column:
            result += f',"subject":{quote(_plain(members, mapping.subject_column))}'
        if mapping.time_column:
            time = time_text(_plain(members, mapping.time_column), mapping.time_format)
            result += f',"time":"{time}"'
        wanted = mapping.data_columns or [name for name in members if name not in used]
        values = ",".join(f"{quote(name)}:{members[name]}" for name in wanted if name in members)
        result += f',"data":{{{values}}}}}'
        return _with_id(row, [_plain(members, name) for name in mapping.id_columns], result)

    return event


def _members(text: str) -> dict[str, str]:
    try:
        return {name: bytes(raw).decode() for name, raw in _decode_object(text).items()}
    except msgspec.DecodeError as error:
        raise RowError(f"not a JSON object: {error}") from error


def _plain(members: Mapping[str, str], name: str) -> str:
    """The text of a member that is a string or a number."""
    raw = members.get(name)
    if raw is None or raw == "null":
        raise RowError(f"no member {name!r}")
    if raw[0] == '"':
        return _decode_text(raw)
    if not _NUMBER(raw):
        raise RowError(f"member {name!r} is neither a string nor a number")
    return raw


def _short(value: str) -> str:
    return json.dumps(value if len(value) <= 40 else value[:37] + "...")
