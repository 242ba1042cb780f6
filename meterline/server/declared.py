"""Meters declared in a file, against those that exist: what has to change. Pure.

A declaration is the body of `POST /api/v1/meters`. Meters that no file declares are left alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from meterline.kernel.errors import FieldError, ValidationError

Document = Mapping[str, Any]

# What a meter is by: changing one of these would change what its past answers meant.
_FIXED = ("aggregation", "eventType", "valueProperty", "eventFrom")
_CHANGEABLE: Mapping[str, Any] = {"description": None, "groupBy": {}, "metadata": {}}
_KNOWN = {"slug", "name", *_FIXED, *_CHANGEABLE}


@dataclass(frozen=True, slots=True)
class Change:
    """One meter that differs. `fields` maps a field's name to (is, should be).

    A `conflict` cannot be made by changing the meter: it has to be deleted first, by a person.
    """

    kind: Literal["create", "update", "conflict"]
    slug: str
    document: Document
    fields: Mapping[str, tuple[Any, Any]]


def plan_changes(declared: Sequence[Document], existing: Iterable[Document]) -> list[Change]:
    """What makes the existing meters as declared, in the order of the declarations."""
    _check(declared)
    by_slug = {meter["slug"]: meter for meter in existing}
    changes: list[Change] = []
    for document in declared:
        current = by_slug.get(document["slug"])
        if current is None:
            changes.append(Change("create", document["slug"], document, {}))
            continue
        fields = dict(_differences(document, current))
        if fields:
            fixed = any(name in _FIXED for name in fields)
            kind: Literal["update", "conflict"] = "conflict" if fixed else "update"
            changes.append(Change(kind, document["slug"], document, fields))
    return changes


def describe_changes(changes: Iterable[Change]) -> Iterator[str]:
    """The diff for people, a line each."""
    for change in changes:
        sign = {"create": "+", "update": "~", "conflict": "!"}[change.kind]
        what = f"{sign} meter {change.slug}"
        if change.kind == "create":
            document = change.document
            yield (
                f"{what}: {document.get('aggregation')} of"
                f" {document.get('valueProperty', 'events')} in {document.get('eventType')!r}"
            )
            continue
        if change.kind == "conflict":
            what += " cannot be changed in place; delete it first, or give it another slug"
        yield what
        for name, (is_now, should_be) in change.fields.items():
            yield f"    {name}: {is_now!r} -> {should_be!r}"


def update_body(change: Change, existing: Document | None = None) -> dict[str, Any]:
    """The body of the PUT that makes an update."""
    document = change.document
    body = {name: document.get(name, default) for name, default in _CHANGEABLE.items()}
    name = document.get("name") or (existing or {}).get("name")
    if name:
        body["name"] = name
    return {key: value for key, value in body.items() if value is not None}


def _check(declared: Sequence[object]) -> None:
    errors: list[FieldError] = []
    seen: set[object] = set()
    for index, document in enumerate(declared):
        where = f"meters[{index}]"
        if not isinstance(document, Mapping):
            errors.append(FieldError(where, "must be a mapping"))
            continue
        slug = document.get("slug")
        if not isinstance(slug, str):
            errors.append(FieldError(f"{where}.slug", "is missing"))
        elif slug in seen:
            errors.append(FieldError(f"{where}.slug", f"{slug!r} is declared twice"))
        seen.add(slug)
        for name in sorted(set(map(str, document)) - _KNOWN):
            errors.append(FieldError(f"{where}.{name}", "there is no such field"))
    if errors:
        detail = "; ".join(f"{error.where}: {error.reason}" for error in errors)
        raise ValidationError(detail, errors=errors)


def _differences(document: Document, current: Document) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name in _FIXED:
        is_now, should_be = current.get(name), document.get(name)
        # Without `eventFrom` a declaration does not say from when: any is right.
        if name == "eventFrom" and should_be is None:
            continue
        if _comparable(name, is_now) != _comparable(name, should_be):
            yield name, (is_now, should_be)
    if document.get("name") and document["name"] != current.get("name"):
        yield "name", (current.get("name"), document["name"])
    for name, default in _CHANGEABLE.items():
        is_now, should_be = current.get(name) or default, document.get(name) or default
        if is_now != should_be:
            yield name, (is_now, should_be)


def _comparable(name: str, value: Any) -> Any:
    if name == "aggregation" and isinstance(value, str):
        return value.upper()
    if name == "eventFrom" and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return value
    return value
