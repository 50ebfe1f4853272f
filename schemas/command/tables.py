"""What a command prints beside plain lines: consoles and tables, whole in a log and in a narrow window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_NO_EDGE = 100_000  # characters: wider than any table


def make_console(file: Any = None) -> Console:
    """A console that prints lines as they are: neither broken nor searched for markup, which a path can look like."""
    from rich.console import Console

    return Console(file=file, soft_wrap=True, highlight=False, markup=False, emoji=False)


def print_whole(console: Console, table: Any) -> None:
    """Prints a table in its own width: in a window that is narrower its lines are broken by the window, not cut."""
    from rich.console import Console

    wide = Console(
        file=console.file,
        width=_NO_EDGE,
        force_terminal=console.is_terminal and not console.is_dumb_terminal,  # to Rich all dumb ones have 80 columns
        color_system=console.color_system,  # type: ignore[arg-type]
        no_color=console.no_color,
        markup=False,
        emoji=False,
        highlight=False,
    )
    wide.print(table)


def print_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1
) -> None:
    """A title and a table whose first `left` columns are text and whose others are figures."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print()
    if title:
        console.print(title, style="bold")
    print_whole(console, table)
