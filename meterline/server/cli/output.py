"""Tables on a terminal or in a pipe."""

from rich.console import Console
from rich.table import Table

_PIPE_WIDTH = 10_000


def print_table(table: Table) -> None:
    """Fit a terminal; in a pipe, never cut a cell short."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    console.print(table)
