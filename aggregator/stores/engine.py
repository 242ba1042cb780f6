"""The port of the event store's engine: ClickHouse's SQL, wherever it runs."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aggregator.stores.layout import Layout

Params = Mapping[str, Any]
Settings = Mapping[str, str | int]


class Engine(Protocol):
    """Runs ClickHouse SQL. User input is bound as `{name:Type}` parameters, never spliced.

    Errors are `UnavailableError` (try again) or `EngineError` (the statement or its data are at
    fault); neither shows the engine's text to a caller.
    """

    @property
    def layout(self) -> Layout:
        """What statements must call the tables that they change."""
        ...

    async def query(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        """Rows of a read. Decimals are `Decimal`, instants are aware UTC datetimes."""
        ...

    async def fetch(self, sql: str, fmt: str, params: Params | None = None) -> bytes:
        """The answer of a read in one of the engine's formats, as bytes."""
        ...

    async def execute(
        self,
        sql: str,
        params: Params | None = None,
        settings: Settings | None = None,
        query_id: str | None = None,
    ) -> None:
        """Run a statement. With a `query_id`, `kill` can end it from elsewhere.

        It is sent once: after an `UnavailableError` it may have been done, may not, or may still
        be under way, but for longer than the options allow a statement.
        """
        ...

    async def load(
        self,
        table: str,
        columns: Sequence[str],
        fmt: str,
        body: bytes,
        settings: Settings | None = None,
    ) -> None:
        """Insert bytes in one of the engine's formats; sent once, as with `execute`."""
        ...

    async def kill(self, prefix: str) -> None:
        """End the statements whose `query_id` starts so, and wait until they have ended.

        An engine in this process has no others but its own, and does nothing.
        """
        ...

    async def prepare(self) -> None:
        """Make the database that the tables live in, if it is not there."""
        ...

    async def close(self) -> None:
        """Release every handle."""
        ...


class EngineError(Exception):
    """The engine refused a statement or its data. `code` is ClickHouse's error number.

    The message is truncated: the engine's text can carry parameter values.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"engine error {code}: {message[:300]}")
        self.code = code


class UnreadableError(EngineError):
    """The bytes given are not of the format said: trying again cannot help."""

    CODES = frozenset({6, 25, 26, 27, 32, 33, 38, 41, 53, 72, 117, 130, 131, 349})
    """ClickHouse's errors of parsing input; all others may pass by themselves."""
