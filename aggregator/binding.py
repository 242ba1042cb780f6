"""Binding values into SQL. Text never becomes part of a statement."""

from typing import Any


class Binder:
    """Collects parameters: `bind(value)` answers the placeholder to write in their place."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self._names: dict[tuple[str, Any], str] = {}

    def __call__(self, value: Any, type_name: str = "String") -> str:
        """A placeholder for `value` as ClickHouse's `type_name`; equal values share one."""
        key = (type_name, value if not isinstance(value, list) else tuple(value))
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = f"p{len(self._names)}"
            self.params[name] = value
        return f"{{{name}:{type_name}}}"
