"""Where a listing goes on. Pure."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')
_PLACES = ("cursor", "offset", "page")


def items_of(answer: Any) -> list[Any]:
    """The items of a page: in an object, or the answer itself."""
    return list(answer.get("items", ()) if isinstance(answer, Mapping) else answer)


def following(answer: Any, link: str | None) -> dict[str, str] | None:
    """The parameters of the next page, None at the end."""
    if isinstance(answer, Mapping):
        if answer.get("nextCursor") is not None:
            return {"cursor": answer["nextCursor"]}
        page, size, total = (answer.get(name) for name in ("page", "pageSize", "totalCount"))
        if page and size and total and page * size < total:
            return {"page": str(page + 1)}
        return None
    found = _NEXT.search(link or "")
    if found is None:
        return None
    asked = dict(parse_qsl(urlsplit(found[1]).query))
    return {name: asked[name] for name in _PLACES if name in asked} or None
