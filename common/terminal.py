"""How a command's results look: aligned plain text, or tables and colours on a terminal.

What goes to a file or a pipe is plain text, the same bytes on every machine. On a terminal, rich
draws tables in the available width: column names are broken after ``_``, and columns that still do
not fit follow below, beside the first columns. Nothing is coloured if ``NO_COLOR`` is set or
``TERM`` is dumb.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table as RichTable

Row = Mapping[str, str]  # a table's row: column -> text
GAP = 2  # blanks between columns
CHOSEN = "chosen"  # the column whose "yes" marks the chosen row


@dataclass(frozen=True)
class Table:
    """Rows of text under their column names, with a title line above if there is a title.

    `text` is the plain-text form, if it is not `format_columns` of the rows.
    """

    rows: Sequence[Row]
    title: str = ""
    text: str = ""

    def __str__(self) -> str:
        """Return the plain text."""
        above = f"{self.title}\n" if self.title else ""
        return above + (self.text or format_columns(self.rows))


def frame_table(frame: pd.DataFrame) -> Table:
    """Return a data frame as a table, its numbers as pandas writes them."""
    text = frame.to_string(index=False)
    if frame.empty:
        return Table([], text=text)
    columns = {
        str(name): [
            cell.strip() for cell in frame[[name]].to_string(index=False, header=False).split("\n")
        ]
        for name in frame.columns
    }
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return Table(rows, text=text)


def format_columns(rows: Sequence[Row]) -> str:
    """Format rows as aligned columns under their keys, numbers to the right.

    >>> print(format_columns([{"layer": "3", "name": "ridge"}, {"layer": "12", "name": "lda"}]))
    layer  name
        3  ridge
       12  lda
    """
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    right = [_are_numbers(column[1:]) for column in zip(*table, strict=True)]
    lines = []
    for line in table:
        cells = zip(line, widths, right, strict=True)
        lines.append("  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in cells).rstrip())
    return "\n".join(lines)


def _are_numbers(cells: Sequence[str]) -> bool:
    return all(map(_is_number, cells))


def _is_number(text: str) -> bool:
    digits = text.replace("e-", "").replace("e+", "").replace(".", "", 1).replace("-", "", 1)
    return text == "" or digits.isdigit()


def plain(*parts: str | Table) -> str:
    """Return the parts of a result, one below the other, as plain text."""
    return "\n".join(map(str, parts))


def show(*parts: str | Table) -> None:
    """Print the parts of a result, one below the other, on stdout; tables suit the terminal."""
    if not sys.stdout.isatty():
        click.echo(plain(*parts))
        return
    for part in parts:
        if isinstance(part, str) or not part.rows:
            click.echo(str(part))
        else:
            _draw(part)


def warn_of(line: str) -> None:
    """Print a line that qualifies a result, such as a doubt or a gap: yellow on a terminal."""
    click.echo(paint(line, sys.stdout, fg="yellow"))


def problem_text(message: str) -> str:
    """Return an error as printed on stderr: its place, up to the first colon, in red."""
    place, colon, rest = message.partition(": ")
    return paint(place + colon[:1], sys.stderr, fg="red", bold=True) + colon[1:] + rest


def paint(text: str, stream: TextIO, **style: Any) -> str:
    """Return a text in a style of `click.style`, unchanged if `stream` shows no colours."""
    return click.style(text, **style) if has_colours(stream) else text


def has_colours(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that may be coloured (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def _draw(table: Table) -> None:
    """Draw a table on the terminal, in as many pieces as its width needs."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, color_system="auto" if has_colours(sys.stdout) else None)
    if table.title:
        console.print(Text(table.title, style="bold"))
    for number, piece in enumerate(_pieces(table.rows, console.width)):
        if number:
            console.print()
        console.print(_drawn(piece))


def _pieces(rows: Sequence[Row], width: int) -> list[list[Row]]:
    """Split a table's rows into pieces of a few columns each, none wider than `width`.

    Column names are broken where needed. Each piece after the first begins with the columns that
    tell the rows apart, and omits rows that have nothing else to show.
    """
    if _sum(_width(rows, name) for name in rows[0]) <= width:
        return [list(rows)]
    rows = [{_broken(name): text for name, text in row.items()} for row in rows]
    keys = _keys(rows, width // 2)
    pieces = [list[str]()]
    for name in rows[0]:
        columns = [*pieces[-1], name]
        if pieces[-1] and _sum(_width(rows, column) for column in columns) > width:
            columns = [*keys, name] if name not in keys else [name]
            pieces.append(columns)
        pieces[-1] = columns
    return [
        [
            {name: row[name] for name in columns}
            for row in rows
            if number == 0 or any(row[name] for name in columns if name not in keys)
        ]
        for number, columns in enumerate(pieces)
    ]


def _keys(rows: Sequence[Row], most: int) -> list[str]:
    """Return the columns that tell rows apart: the first, and the text columns right after it.

    If they are wider than `most` characters, columns are dropped from the left.
    """
    first, *others = rows[0]
    words = takewhile(lambda name: not _are_numbers([row[name] for row in rows]), others)
    keys = [first, *words]
    while len(keys) > 1 and _sum(_width(rows, name) for name in keys) > most:
        del keys[0]
    return keys


def _width(rows: Sequence[Row], name: str) -> int:
    return max(*map(len, name.split("\n")), *(len(row[name]) for row in rows), 0)


def _sum(widths: Iterable[int]) -> int:
    every = list(widths)
    return sum(every) + GAP * (len(every) - 1)


def _broken(name: str) -> str:
    r"""Return a column's name over several lines.

    >>> _broken("valid_log_loss")
    'valid_\nlog_\nloss'
    """
    return name.replace("_", "_\n")


def _drawn(rows: Sequence[Row]) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold cyan")
    for name in rows[0]:
        side: Literal["left", "right"]
        side = "right" if _are_numbers([row[name] for row in rows]) else "left"
        drawn.add_column(Text(name), justify=side, vertical="bottom", overflow="fold")
    for row in rows:
        style = "bold green" if row.get(CHOSEN) == "yes" else None
        drawn.add_row(*map(Text, row.values()), style=style)
    return drawn
