"""Read delimited text (CSV) as people and spreadsheets save it: every cell as text.

The separator is whichever of ``,``, ``;`` and tab yields most of the expected columns. Quotes, a
byte order mark, any line end, blanks after separators, empty rows, empty columns and pandas' index
column are accepted and ignored. A column name that differs from an expected one only in case or
surrounding blanks is read as that column, with a note; a name that looks misspelt is noted too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...common.counts import counted
from ...common.errors import InputError
from .decoding import decode
from .kinds import kind_of

if TYPE_CHECKING:
    import pandas as pd


SEPARATORS = (",", ";", "\t")
INDEX = re.compile(r"(Unnamed: \d+.*)?")  # what pandas calls the column of row numbers
MOST_NAMES = 5  # files listed if a folder was given instead of a file
LIKENESS = 0.75  # similarity, 0..1, from which a column name counts as a misspelt expected one


class Sheet(NamedTuple):
    """A delimited file: its cells as text, its separator, and notes about its columns."""

    rows: pd.DataFrame
    separator: str
    notes: list[str]


def read_delimited(path: str | Path, columns: Iterable[str], repair: str) -> Sheet:
    """Read a delimited file; `columns` are the names expected in its first line.

    Raises
    ------
    InputError
        The file is missing (`repair` says what to do), damaged or not text; a column with content
        has no name; or two columns share a name.
    """
    import pandas as pd

    columns = list(columns)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {repair}") from None
    except IsADirectoryError:
        inside = ", ".join(sorted(file.name for file in Path(path).glob("*.csv"))[:MOST_NAMES])
        raise InputError(
            f"{path}: is a folder, expected a file; name one in it ({inside or 'no .csv'})"
        ) from None
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror}); {repair}") from None
    text = re.sub(r'\A\s*"?sep=."?\n', "", decode(data, path))
    if not text.strip():
        size = counted(len(data), "byte")
        raise InputError(f"{path}: is empty, {size}, expected a table; write it again")
    separator, spaced = _separator(text, columns)
    try:
        cells = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,
            dtype="str",
            na_filter=False,
            skipinitialspace=spaced,
        )
    except (ValueError, OverflowError) as problem:  # pandas' own errors are ValueErrors
        reason = " ".join(str(problem).split())  # some reasons have several lines
        raise InputError(f"{path}: cannot be read ({reason}); write it again") from None
    rows = _without_empty(cells, path)
    names, notes = expected_names(list(rows.columns), columns, path)
    return Sheet(rows.set_axis(names, axis=1), separator, notes)


def _separator(text: str, columns: Sequence[str]) -> tuple[str, bool]:
    """Guess from the first line the separator, and whether blanks follow it."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    header = {
        sign: [cell.strip('" \t').casefold() for cell in first.split(sign)] for sign in SEPARATORS
    }
    best = max(SEPARATORS, key=lambda sign: len(set(header[sign]) & set(columns)))
    later = first.split(best)[1:]
    return best, bool(later) and all(cell.startswith(" ") for cell in later)


def _without_empty(cells: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Return the rows below the header, with its column names, without empty rows or columns."""
    header = [str(cell).strip() for cell in cells.iloc[0]]
    rows = cells.iloc[1:]
    empty = rows[0] == ""
    if empty.any():
        rows = rows[~(empty & (rows == "").all(axis=1))]
    rows = rows.reset_index(drop=True)
    used = [place for place, name in enumerate(header) if not _is_idle(rows, place, name)]
    for place in used:
        if not header[place]:
            filled = rows[place][rows[place] != ""]
            raise InputError(
                f"{path}: column {place + 1} has no name but holds {filled.iloc[0]!r}, expected a "
                "name in the first line; write one there"
            )
    names = [header[place] for place in used]
    double = [name for name in names if names.count(name) > 1]
    if double:
        raise InputError(f"{path}: column {double[0]!r} occurs twice, expected once; delete one")
    return rows[used].set_axis(names, axis=1)


def _is_idle(rows: pd.DataFrame, place: int, name: str) -> bool:
    """Return whether an unnamed column is empty or merely numbers the rows."""
    if not INDEX.fullmatch(name):
        return False
    column = rows[place]
    return bool((column == "").all() or (place == 0 and column.str.fullmatch(r"\d+").all()))


def expected_names(
    names: Sequence[str], columns: Sequence[str], where: str | Path
) -> tuple[list[str], list[str]]:
    """Return `names` with near matches spelt as in `columns`, and notes on what changed.

    >>> expected_names(["Split ", "speakers", "text"], ["split", "speaker"], "t.csv")[0]
    ['split', 'speakers', 'text']
    """
    notes: list[str] = []
    new: list[str] = []
    for name in names:
        plain = str(name).strip().casefold()
        meant = name not in columns and plain in columns and plain not in [*names, *new]
        if meant:
            notes.append(f"{where}: column {name!r} is read as {plain!r}")
        new.append(plain if meant else name)
    for name in new:
        absent = [column for column in columns if column not in new]
        near = (
            [] if name in columns else get_close_matches(str(name).casefold(), absent, 1, LIKENESS)
        )
        if near:
            notes.append(
                f"{where}: column {name!r} is carried along but not used; if it is meant for "
                f"{near[0]!r}, rename it"
            )
    return new, notes


def check_columns(sheet: Sheet, needed: Sequence[str], where: str | Path) -> None:
    """Raise `InputError` if a needed column is missing, saying what the file seems to be."""
    names = list(sheet.rows.columns)
    missing = [name for name in needed if name not in names]
    if not missing:
        return
    kind = kind_of(sheet.separator.join(names), where)
    if kind is not None:
        raise InputError(f"{where}: is {kind.name}, expected columns {list(needed)}; {kind.repair}")
    raise InputError(
        f"{where}: columns {missing} are missing, found {names}; {misspelt(names, missing)}"
    )


def misspelt(names: Sequence[str], missing: Sequence[str]) -> str:
    """Suggest which columns to rename to get the missing ones, or else to add them."""
    pairs = [
        (get_close_matches(column, map(str, names), 1, LIKENESS), column) for column in missing
    ]
    renames = [f"rename {near[0]!r} to {column!r}" for near, column in pairs if near]
    return ", ".join(renames) or f"write {','.join(missing)} into the first line"


def decimal_points(sheet: Sheet, columns: Sequence[str]) -> pd.DataFrame:
    """Replace decimal commas by points in `columns`, if the sheet uses decimal commas.

    If the separator is a comma, or some numbers have a point, ``1,234`` may well mean a thousand:
    it is left as it is, and will not parse as a number.
    """
    rows = sheet.rows
    if sheet.separator == "," or any(_holds(rows[name], ".") for name in columns):
        return rows
    changed = [name for name in columns if _holds(rows[name], ",")]
    return rows.assign(**{name: rows[name].str.replace(",", ".", regex=False) for name in changed})


def _holds(column: pd.Series, sign: str) -> bool:
    return bool(column.str.contains(sign, regex=False).any())
