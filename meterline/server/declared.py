"""Meters declared in a file, against those that exist: what has to change. Pure.

A declaration is the body of `POST /api/v1/meters`. Meters that no file declares are left alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from meterline.kernel.errors import FieldError, ValidationError
from meterline.kernel.meters import Meter, MeterSpec, validate_meter

# What `PUT /api/v1/meters/{slug}` can change; another value of the rest makes it another meter.
_CHANGEABLE = ("name", "description", "group_by", "metadata")
_FIELDS = ("aggregation", "event_type", "value_property", "event_from", *_CHANGEABLE)


class DeclaredMeter(BaseModel):
    """One declaration."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )

    slug: str
    aggregation: str
    event_type: str
    name: str | None = None
    description: str | None = None
    value_property: str | None = None
    group_by: dict[str, str] = {}
    event_from: AwareDatetime | None = None
    metadata: dict[str, str] = {}

    def spec(self) -> MeterSpec:
        """The meter meant, in canonical form; `ValidationError` if there is no such meter."""
        return validate_meter(**self.model_dump())


class ExistingMeter(DeclaredMeter):
    """A meter as the API shows it."""

    model_config = ConfigDict(extra="ignore")


@dataclass(frozen=True, slots=True)
class Change:
    """One meter that differs. `fields` maps a field's name to (is, should be).

    `replace` is more than an update can do: the meter is in fact another one. Nothing is lost
    with the old one, since a meter is a view of the stored events.
    """

    kind: Literal["create", "update", "replace"]
    spec: MeterSpec
    fields: Mapping[str, tuple[Any, Any]]


def declared_specs(declared: Iterable[DeclaredMeter]) -> list[MeterSpec]:
    """The declared meters in canonical form; `ValidationError` names every fault."""
    specs: dict[str, MeterSpec] = {}
    errors: list[FieldError] = []
    for index, meter in enumerate(declared):
        try:
            if meter.slug in specs:
                raise ValidationError(f"{meter.slug!r} is declared twice")
            specs[meter.slug] = meter.spec()
        except ValidationError as error:
            errors.append(FieldError(f"meters[{index}]", error.detail))
    if errors:
        detail = "; ".join(f"{error.where}: {error.reason}" for error in errors)
        raise ValidationError(detail, errors=errors)
    return list(specs.values())


def plan_changes(
    declared: Sequence[MeterSpec], existing: Iterable[Meter | MeterSpec]
) -> list[Change]:
    """What makes the existing meters as declared, in the order of the declarations."""
    by_slug = {meter.slug: meter for meter in existing}
    changes: list[Change] = []
    for spec in declared:
        current = by_slug.get(spec.slug)
        if current is None:
            changes.append(Change("create", spec, {}))
            continue
        fields = {
            name: (is_now, should_be)
            for name in _FIELDS
            if (is_now := _value(current, name)) != (should_be := _value(spec, name))
        }
        if fields:
            kind: Literal["update", "replace"] = (
                "update" if set(fields) <= set(_CHANGEABLE) else "replace"
            )
            changes.append(Change(kind, spec, fields))
    return changes


def describe_changes(changes: Iterable[Change]) -> Iterator[str]:
    """The diff for people."""
    for change in changes:
        spec = change.spec
        if change.kind == "create":
            value = f" of {spec.value_property}" if spec.value_property else ""
            yield f"+ meter {spec.slug}: {spec.aggregation}{value} over {spec.event_type!r}"
            continue
        yield f"{'~' if change.kind == 'update' else '!'} meter {spec.slug}"
        for name, (is_now, should_be) in change.fields.items():
            yield f"    {to_camel(name)}: {_shown(is_now)} -> {_shown(should_be)}"


def creation_body(spec: MeterSpec) -> dict[str, Any]:
    """The body of the POST that makes the meter."""
    meter = DeclaredMeter(
        slug=spec.slug,
        **{name: _value(spec, name) for name in _FIELDS},
    )
    return meter.model_dump(mode="json", by_alias=True, exclude_none=True)


def update_body(spec: MeterSpec) -> dict[str, Any]:
    """The body of the PUT that makes an update."""
    return {to_camel(name): _value(spec, name) or "" for name in ("name", "description")} | {
        to_camel(name): _value(spec, name) for name in ("group_by", "metadata")
    }


def _value(meter: Meter | MeterSpec, name: str) -> Any:
    value = getattr(meter, name)
    if name == "description":
        return value or None
    return dict(value) if isinstance(value, Mapping) else value


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
