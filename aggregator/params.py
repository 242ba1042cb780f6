"""A meter query as the parameters of a GET request. Pure."""

import re
from collections.abc import Iterable

from aggregator.query import QueryInput
from meterline.kernel.errors import FieldError, ValidationError

_FILTER = re.compile(r"filterGroupBy\[([^\[\]]*)\](?:\[\])?")
# In a query string `+` is a space, unless it is sent as %2B; few write the offset of a time so.
_LOST_PLUS = re.compile(r" (?=\d\d:\d\d$)")


def query_input(params: Iterable[tuple[str, str]]) -> QueryInput:
    """The query that parameters spell.

    `subject`, `subject[]`, `groupBy`, `groupBy[]` and `filterGroupBy[key]` may be repeated; of
    several values of one filter any fits. Other parameters given twice are an error, and what is
    no parameter of a query is ignored.
    """
    once: dict[str, str] = {}
    lists: dict[str, list[str]] = {"subject": [], "groupBy": []}
    filters: dict[str, list[str]] = {}
    for name, value in params:
        plain = name.removesuffix("[]")
        if plain in lists:
            lists[plain].append(value)
        elif match := _FILTER.fullmatch(name):
            filters.setdefault(match[1], []).append(value)
        elif name in ("filterCustomerId", "filterCustomerId[]"):
            raise _fault(name, "there are no customers here: take subject")
        elif name == "advancedMeterGroupByFilters":
            raise _fault(name, "send operators in the body of a POST")
        elif name in once:
            raise _fault(name, "is given more than once")
        elif name in ("from", "to", "windowSize", "windowTimeZone"):
            once[name] = value
    return QueryInput(
        begin=_instant(once.get("from")),
        end=_instant(once.get("to")),
        window_size=once.get("windowSize"),
        time_zone=once.get("windowTimeZone"),
        subjects=lists["subject"],
        group_by=lists["groupBy"],
        filters={key: values[0] if len(values) == 1 else values for key, values in filters.items()},
    )


def range_input(params: Iterable[tuple[str, str]]) -> tuple[str | None, str | None]:
    """`from` and `to` of parameters."""
    given = query_input((name, value) for name, value in params if name in ("from", "to"))
    return given.begin, given.end


def _instant(text: str | None) -> str | None:
    return None if text is None else _LOST_PLUS.sub("+", text)


def _fault(where: str, reason: str) -> ValidationError:
    return ValidationError(f"{where}: {reason}", errors=[FieldError(where, reason)])
