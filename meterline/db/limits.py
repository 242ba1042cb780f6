"""How a process uses its relational database."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DatabaseLimits:
    """Connections of one process, and how long things may take, in seconds.

    SQLite has one writer, and knows `readers` and `wait_seconds` only.
    """

    readers: int = 4
    """Transactions that read at the same time."""
    writers: int = 8
    """Transactions that may write at the same time."""
    hot: int = 2
    """Connections for single look-ups, which share statements."""
    wait_seconds: float = 30.0
    """How long a caller waits for a connection of the pool; on SQLite also for the write lock."""
    connect_seconds: float = 10.0
    """How long making a connection may take."""
    statement_seconds: float = 30.0
    """How long one statement may take; the server ends it. 0 is for ever, as below."""
    lock_seconds: float = 10.0
    """How long a statement waits for another transaction's lock."""
    idle_seconds: float = 60.0
    """How long a transaction may do nothing before the server ends it."""
    application_name: str = "meterline"
    """What `pg_stat_activity` shows."""
