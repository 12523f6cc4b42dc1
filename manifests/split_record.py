"""The record of how a table was divided into train, valid and test; it travels with the table.

In memory it is ``table.attrs["split"]``, which pandas preserves through row selection, `assign` and
the like; on disk it is ``TABLE.split.json``, which `table.write_table` writes beside the table and
`table.read_table` reads back. Thus a random split, whose scores are too good, is reported as leaky
by anything that uses the table, from a command or from Python. A table without a record was divided
by somebody else: its method is "unknown".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.counts import counted
from ..common.errors import InputError
from ..common.files import atomic_write
from ..common.outputs import BESIDE_TABLE

if TYPE_CHECKING:
    import pandas as pd


KEY = "split"  # of `DataFrame.attrs`
SUFFIX = ".split.json"
UNKNOWN = "unknown"


def record_of(table: pd.DataFrame) -> dict[str, Any] | None:
    """Return how a table was split, or None if there is no record.

    Raises
    ------
    InputError
        ``table.attrs["split"]`` is not a record.
    """
    record = table.attrs.get(KEY)
    if record is None:
        return None
    if isinstance(record, str):  # an error message from `read_record_into`
        raise InputError(record)
    try:
        return _checked(record)
    except (ValueError, TypeError) as problem:
        raise InputError(
            f"table: attrs['{KEY}'] is no record of a split ({problem}), expected what split_table "
            f"leaves there; delete it, or split the table again"
        ) from None


def split_method(table: pd.DataFrame | str | Path) -> str:
    """Return how a table, or a table file, was split: "chronological", "random (leaky)" ...

    "unknown" without a record.

    Examples
    --------
    >>> import pandas as pd
    >>> split_method(pd.DataFrame())
    'unknown'
    """
    record = read_record(table) if isinstance(table, (str, Path)) else record_of(table)
    if record is None:
        return UNKNOWN
    return "random (leaky)" if record["method"] == "random" else str(record["method"])


def write_record(record: dict[str, Any], table_path: str | Path) -> None:
    """Write how a table was split beside it, as ``TABLE.split.json``."""
    atomic_write(record_path(table_path), json.dumps(record, indent=1).encode())


def read_record(table_path: str | Path) -> dict[str, Any] | None:
    """Return how a table was split, or None if there is no record beside it.

    Raises
    ------
    InputError
        The record is damaged.
    """
    path = record_path(table_path)
    if not path.exists():
        return None
    try:
        return _checked(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError) as problem:
        raise InputError(f"{path}: cannot be read ({problem}); run spk-manifests split") from None


def read_record_into(table: pd.DataFrame, path: str | Path) -> None:
    """Attach the record beside a table's file to the table that was read from it.

    A damaged record only matters to those who need it, and not, for example, when the table is
    split again: `record_of` raises then.
    """
    table.attrs = {}
    try:
        record = read_record(path)
    except InputError as problem:
        table.attrs[KEY] = str(problem)
    else:
        table.attrs |= {} if record is None else {KEY: record}


def keep_record(record: dict[str, Any] | None, path: str | Path) -> None:
    """Write a record beside a table's file; without one, remove an earlier table's record."""
    if record is not None:
        write_record(record, path)
    elif _is_record(record_path(path)):
        record_path(path).unlink(missing_ok=True)


def record_path(table_path: str | Path) -> Path:
    """Return the path of the record of a table's file."""
    return Path(f"{table_path}{SUFFIX}")


def summarise(record: dict[str, Any]) -> str:
    """Return one line: the method, the counts, what was purged and why, and untested speakers."""
    counts = ", ".join(f"{count} {name}" for name, count in record["counts"].items())
    reasons = ", ".join(f"{count} {why}" for why, count in record["purged"].items() if count)
    text = f"{record['method']}{' (leaky)' if record['leaky'] else ''}: {counts}"
    text += f" ({reasons})" if reasons else ""
    for name in ("untrained", "untested"):
        if record[name]:
            text += f"; {counted(len(record[name]), 'speaker')} {name}"
    return text


def _checked(record: Any) -> dict[str, Any]:
    """Return a record in the form that `split_table` makes; `ValueError` says what is wrong."""
    forms = {"method": str, "parameters": dict, "counts": dict, "purged": dict, "leaky": bool}
    forms |= {"untrained": list, "untested": list}
    wrong = [k for k, kind in forms.items() if not isinstance(dict(record).get(k), kind)]
    counts = [] if wrong else [*record["counts"].values(), *record["purged"].values()]
    if wrong or not all(type(count) is int for count in counts):
        raise ValueError(f"{', '.join(wrong) or 'counts'} missing or of another type")
    return dict(record)


def _is_record(path: Path) -> bool:
    """Return whether a file begins like a record; any other file is the user's own."""
    try:
        with path.open("rb") as file:
            return file.read(64).startswith(BESIDE_TABLE[SUFFIX])
    except OSError:
        return False
