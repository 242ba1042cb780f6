"""Meters: what is counted of the events of one type."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from meterline.kernel.errors import FieldError, ValidationError
from meterline.kernel.ids import is_ulid
from meterline.kernel.jsonpath import parse_path

MAX_NAME_LENGTH = 256
MAX_DESCRIPTION_LENGTH = 1024
MAX_EVENT_TYPE_LENGTH = 1024
MAX_GROUP_BY = 32
MAX_METADATA = 50
MAX_METADATA_KEY_LENGTH = 256
MAX_METADATA_VALUE_LENGTH = 1024

_SLUG = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*")
_GROUP_KEY = re.compile(r"[a-zA-Z_][0-9a-zA-Z_]{0,63}")
_RESERVED_GROUP_KEYS = frozenset({"subject"})


class Aggregation(StrEnum):
    """How the values of a window become one."""

    SUM = "SUM"
    COUNT = "COUNT"
    AVG = "AVG"
    MIN = "MIN"
    MAX = "MAX"
    UNIQUE_COUNT = "UNIQUE_COUNT"
    LATEST = "LATEST"


@dataclass(frozen=True, slots=True)
class Meter:
    """An aggregation over the events of one type in one namespace.

    Paths are in canonical spelling. Events before `event_from` are not counted.
    """

    id: str
    namespace: str
    slug: str
    name: str
    description: str | None
    aggregation: Aggregation
    event_type: str
    value_property: str | None
    group_by: Mapping[str, str]
    event_from: datetime | None
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MeterSpec:
    """What a caller says of a meter, checked and in canonical form."""

    slug: str
    name: str
    description: str | None
    aggregation: Aggregation
    event_type: str
    value_property: str | None
    group_by: Mapping[str, str]
    event_from: datetime | None
    metadata: Mapping[str, str]


def is_slug(text: str) -> bool:
    """Whether `text` can be the slug of a meter."""
    return len(text) <= 64 and _SLUG.fullmatch(text) is not None


def validate_meter(
    *,
    slug: str,
    aggregation: str,
    event_type: str,
    name: str | None = None,
    description: str | None = None,
    value_property: str | None = None,
    group_by: Mapping[str, str] | None = None,
    event_from: datetime | None = None,
    metadata: Mapping[str, str] | None = None,
) -> MeterSpec:
    """Check all rules of a meter at once; `ValidationError.errors` lists every fault."""
    faults = _Faults()
    if not is_slug(slug):
        faults.add("slug", f"must match ^{_SLUG.pattern}$ and have 1 to 64 characters")
    elif is_ulid(slug):
        faults.add("slug", "must not look like an id")
    if aggregation not in Aggregation.__members__:
        faults.add("aggregation", f"must be one of {', '.join(Aggregation)}")
    if not 1 <= len(event_type) <= MAX_EVENT_TYPE_LENGTH:
        faults.add("eventType", f"must have 1 to {MAX_EVENT_TYPE_LENGTH} characters")
    value_path = _value_path(faults, aggregation, value_property)
    paths = _group_paths(faults, group_by or {}, value_path)
    _check_words(faults, name, description, metadata or {})
    for where, text in (("eventType", event_type), ("name", name), ("description", description)):
        if text is not None and not is_storable(text):
            faults.add(where, "must not hold NUL or half a surrogate pair")
    faults.check()
    return MeterSpec(
        slug=slug,
        name=name or slug,
        description=description,
        aggregation=Aggregation(aggregation),
        event_type=event_type,
        value_property=value_path,
        group_by=paths,
        event_from=event_from,
        metadata=dict(metadata or {}),
    )


def is_storable(text: str) -> bool:
    """Whether every database keeps this text as it is (no NUL, no half surrogate pair)."""
    return "\0" not in text and text.encode("utf-8", "replace").decode() == text


class _Faults:
    def __init__(self) -> None:
        self._errors: list[FieldError] = []

    def add(self, where: str, reason: str) -> None:
        self._errors.append(FieldError(where, reason))

    def path(self, where: str, text: str) -> str | None:
        """The canonical spelling of a path; a fault is noted."""
        try:
            return parse_path(text).text
        except ValidationError as error:
            self.add(where, error.detail)
            return None

    def check(self) -> None:
        if self._errors:
            detail = "; ".join(f"{error.where}: {error.reason}" for error in self._errors[:3])
            raise ValidationError(f"invalid meter: {detail}", errors=self._errors)


def _value_path(faults: _Faults, aggregation: str, value_property: str | None) -> str | None:
    if aggregation == Aggregation.COUNT:
        if value_property:
            faults.add("valueProperty", "must be absent: COUNT counts events")
        return None
    if not value_property:
        faults.add("valueProperty", f"is required for {aggregation}")
        return None
    return faults.path("valueProperty", value_property)


def _group_paths(
    faults: _Faults, group_by: Mapping[str, str], value_path: str | None
) -> dict[str, str]:
    if len(group_by) > MAX_GROUP_BY:
        faults.add("groupBy", f"must have at most {MAX_GROUP_BY} keys")
    paths: dict[str, str] = {}
    for key, text in group_by.items():
        where = f"groupBy.{key}"
        if _GROUP_KEY.fullmatch(key) is None or key in _RESERVED_GROUP_KEYS:
            faults.add(where, f"key must match ^{_GROUP_KEY.pattern}$ and not be 'subject'")
            continue
        path = faults.path(where, text)
        if path is not None and path == value_path:
            faults.add(where, "must differ from valueProperty")
        elif path is not None:
            paths[key] = path
    return paths


def _check_words(
    faults: _Faults, name: str | None, description: str | None, metadata: Mapping[str, str]
) -> None:
    if name is not None and not 1 <= len(name) <= MAX_NAME_LENGTH:
        faults.add("name", f"must have 1 to {MAX_NAME_LENGTH} characters")
    if description is not None and len(description) > MAX_DESCRIPTION_LENGTH:
        faults.add("description", f"must have at most {MAX_DESCRIPTION_LENGTH} characters")
    if len(metadata) > MAX_METADATA:
        faults.add("metadata", f"must have at most {MAX_METADATA} keys")
    for key, value in metadata.items():
        if not 1 <= len(key) <= MAX_METADATA_KEY_LENGTH or len(value) > MAX_METADATA_VALUE_LENGTH:
            faults.add(
                "metadata",
                f"keys have 1 to {MAX_METADATA_KEY_LENGTH} characters, "
                f"values at most {MAX_METADATA_VALUE_LENGTH}",
            )
        elif not is_storable(key) or not is_storable(value):
            faults.add("metadata", "must not hold NUL or half a surrogate pair")
