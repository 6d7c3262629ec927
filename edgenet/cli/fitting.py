"""Tables of figures on a terminal that is narrower than they are."""

from __future__ import annotations

import io

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

UNBROKEN = 10_000
"""Columns of what is no terminal: a table is as wide there as what it says, and a file's name is never broken."""

_LIST = 12
"""Rows from beyond which a table is a list, read down its columns, and stays one."""


def fitting(table: Table, width: int) -> list[Table]:
    """Lay a table of few rows on its side, in as many parts as that takes, where its figures would be broken.

    Rich folds a cell that has no room: 12.34 ms reads as 12.3 and, a line below, 4 ms.

    Args:
        table: its figures are in the columns that are justified to the right.
        width: columns of the terminal.
    """
    figures = (str(cell) for column in table.columns if column.justify == "right" for cell in column.cells)
    drawn = _drawn(table, width)
    if table.row_count > _LIST or all(word in drawn for figure in figures for word in figure.split()):
        return [table]
    parts: list[Table] = []
    first = 0
    while first < table.row_count:
        part = _on_its_side(table, first, 1)
        for count in range(2, table.row_count - first + 1):
            more = _on_its_side(table, first, count)
            if max(map(cell_len, _drawn(more, UNBROKEN).splitlines())) > width:
                break
            part = more
        parts.append(part)
        first += len(part.columns) - 1
    parts[0].title, parts[-1].caption = table.title, table.caption
    return parts


def _on_its_side(table: Table, first: int, count: int) -> Table:
    """Draw so many rows of a table as columns, its own columns' names to their left."""
    turned = Table(show_header=False)
    turned.add_column(style="bold")
    for _ in range(count):
        turned.add_column(overflow="fold")
    for column in table.columns:
        turned.add_row(column.header, *list(column.cells)[first : first + count])
    return turned


def _drawn(table: Table, width: int) -> str:
    text = io.StringIO()
    Console(file=text, width=width, highlight=False, markup=False, emoji=False).print(table)
    return text.getvalue()
