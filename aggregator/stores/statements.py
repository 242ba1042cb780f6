"""What becomes of statements on their way to the engine, and of its errors. Pure."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from aggregator.stores.engine import EngineError, Params, Settings, UnreadableError
from meterline.kernel.errors import MeterlineError, UnavailableError, ValidationError

MAX_FIELD_BYTES = 100_000
"""A server refuses a parameter of more than 128 KiB (`http_max_field_value_size`)."""

_INSERT = re.compile(r"\s*INSERT INTO \w+(?: \([^)]*\))?")
_TIMEOUT_EXCEEDED = 159
_MEMORY_LIMIT_EXCEEDED = 241
_PREFIX = re.compile(r"^Received ClickHouse exception, code: \d+, server response: ")
_OF_A_PROXY = re.compile(r"received HTTP status (?:408|429|5\d\d)\b")
_TRY_AGAIN = frozenset(
    {
        159,  # TIMEOUT_EXCEEDED
        160,  # TOO_SLOW
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        203,  # NO_FREE_CONNECTION
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        218,  # TABLE_IS_DROPPED
        225,  # NO_ZOOKEEPER
        236,  # ABORTED: the server shuts down
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY: a replica without Keeper
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS
        279,  # ALL_CONNECTION_TRIES_FAILED
        285,  # TOO_FEW_LIVE_REPLICAS
        286,  # UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
        289,  # REPLICA_IS_NOT_IN_QUORUM
        297,  # SHARD_HAS_NO_CONNECTIONS
        319,  # UNKNOWN_STATUS_OF_INSERT
        341,  # UNFINISHED
        373,  # SESSION_IS_LOCKED
        394,  # QUERY_WAS_CANCELLED
        415,  # ALL_REPLICAS_LOST
        425,  # SYSTEM_ERROR
        439,  # CANNOT_SCHEDULE_TASK
        473,  # DEADLOCK_AVOIDED
        516,  # AUTHENTICATION_FAILED: for people to mend, while the data waits
        519,  # NO_REMOTE_SHARD_AVAILABLE
        667,  # NOT_INITIALIZED
        692,  # TOO_MANY_MUTATIONS
        695,  # ASYNC_LOAD_FAILED
        700,  # USER_SESSION_LIMIT_EXCEEDED
        722,  # ASYNC_LOAD_WAIT_FAILED
        733,  # TABLE_IS_BEING_RESTARTED
        735,  # QUERY_WAS_CANCELLED_BY_CLIENT
        745,  # SERVER_OVERLOADED
        749,  # TCP_CONNECTION_LIMIT_REACHED
        999,  # KEEPER_EXCEPTION
    }
)
"""ClickHouse's errors that pass by themselves, or once somebody mends the server."""


def with_settings(sql: str, settings: Settings) -> tuple[str, dict[str, str | int]]:
    """An INSERT with its settings written into it, and what is left to be set around it."""
    found = _INSERT.match(sql)
    if found is None or not settings:
        return sql, dict(settings)
    clause = ", ".join(f"{name} = {_literal(value)}" for name, value in settings.items())
    return f"{found[0]} SETTINGS {clause} {sql[found.end() :]}", {}


def _literal(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def in_parts(sql: str, params: Params) -> tuple[str, dict[str, Any]]:
    """A statement whose parameters are each short enough for one HTTP field.

    A long list becomes several, which the engine puts together again.
    """
    parts: dict[str, Any] = {}
    for name, value in params.items():
        slices = list(_slices(value)) if isinstance(value, list) else [value]
        if len(slices) <= 1:
            parts[name] = value
            continue
        names = [f"{name}_{number}" for number in range(len(slices))]
        parts.update(zip(names, slices, strict=True))
        sql = re.sub(
            rf"\{{{name}:([^}}]+)\}}",
            lambda found, names=names: (  # type: ignore[misc]
                f"arrayConcat({', '.join(f'{{{one}:{found[1]}}}' for one in names)})"
            ),
            sql,
        )
    return sql, parts


def _slices(values: Sequence[Any]) -> Iterator[list[Any]]:
    part: list[Any] = []
    size = 0
    for value in values:
        # Quotes, comma, and a backslash before every character at worst.
        length = 3 + (2 * len(value.encode()) if isinstance(value, str) else len(str(value)))
        if part and size + length > MAX_FIELD_BYTES:
            yield part
            part, size = [], 0
        part.append(value)
        size += length
    if part:
        yield part


def translated(error: Exception, *, limited: bool, lost: bool) -> MeterlineError | EngineError:
    """What the driver's error means to a caller.

    `limited`: of a statement that has the limits of a caller's query. `lost`: of the connection.
    """
    code = int(getattr(error, "code", None) or 0)
    kind = UnreadableError if code in UnreadableError.CODES else EngineError
    short = kind(code, _PREFIX.sub("", str(error)))
    if code == _TIMEOUT_EXCEEDED and limited:
        return ValidationError(
            "the query takes longer than query.timeout_seconds allows; ask for less at once"
        )
    if code == _MEMORY_LIMIT_EXCEEDED and limited:
        unavailable = UnavailableError("the query needs more memory than query.memory_bytes allows")
    elif code in _TRY_AGAIN:
        unavailable = UnavailableError("the event store cannot do it now")
    elif code == 0 and (lost or _OF_A_PROXY.search(str(error))):
        unavailable = UnavailableError("the event store does not answer")
    else:
        return short
    unavailable.__cause__ = short
    return unavailable
