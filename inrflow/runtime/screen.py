"""Printing of labelled rows by commands, with text of files escaped so that it cannot control the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inrflow.runtime.safe_names import printable

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 120  # width of tables that are written to a file or a pipe


def screen() -> Console:
    """Console on standard output, as wide as the terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDTH, markup=False)


def show(rows: Sequence[tuple[str, object]], console: Console) -> None:
    """Print labelled rows."""
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", max_width=console.width // 3, overflow="fold")
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(Text(printable(label)), Text(printable(text)))
    console.print(table, highlight=False)
