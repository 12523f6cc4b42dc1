"""Apply corrections to a segment table's labels, and record the old and new names.

A corrections file is a CSV with the columns `COLUMNS`, one row per turn; other columns are ignored.
Rows may be deleted and names changed by hand before it is applied. An empty ``suggested`` removes
the turn. ``table`` is a fingerprint of the turns and labels that the corrections were made for: a
table that has changed since is refused. Segment ids do not change, so that the features in a store
still belong to their turns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.counts import counted
from ..common.errors import InputError
from ..common.files import atomic_write
from ..common.log import log
from ..common.names import normal_name
from ..common.outputs import BESIDE_CORRECTED
from .split_record import KEY, record_of
from .table import check_table, read_table, write_table
from .text_files.delimited import read_delimited

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("segment_id", "session", "labelled", "suggested")
FINGERPRINT = "table"
EVERY_TURN = "proposed"  # a column only of audit.csv, whose rows are not all corrections
(SUFFIX,) = BESIDE_CORRECTED
MAKER = "make it with spk-classify audit"


@dataclass(frozen=True, eq=False)
class Corrected:
    """A corrected table, the applied corrections (`COLUMNS`), and the file of their record."""

    table: pd.DataFrame
    applied: pd.DataFrame
    record: str = ""

    def __repr__(self) -> str:
        """Return what was corrected, in one line."""
        return f"<Corrected {self.summary}>"

    @property
    def summary(self) -> str:
        """Return one line: how many turns were corrected, removed and left, and the record."""
        return (
            f"{counted(len(self.applied) - self.removed, 'label')} corrected, "
            f"{counted(self.removed, 'turn')} removed, {counted(len(self.table), 'turn')} left; "
            f"see {self.record}"
        )

    @property
    def removed(self) -> int:
        """Return how many turns were removed."""
        return int((self.applied["suggested"] == "").sum())


def fingerprint(table: pd.DataFrame) -> str:
    """Return 16 hexadecimal digits of a table's turns and labels, whatever the order of rows."""
    columns = ["segment_id", "session", "speaker", "start", "end"]
    rows = table[columns].sort_values("segment_id")
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()[:16]


def read_corrections(path: str | Path) -> pd.DataFrame:
    """Read a corrections file, with names in their normal form.

    Raises
    ------
    InputError
        The file cannot be read, lacks one of `COLUMNS`, or is the audit's list of every turn.
    """
    sheet = read_delimited(path, [*COLUMNS, FINGERPRINT], MAKER)
    for note in sheet.notes:
        log(note)
    rows = sheet.rows
    missing = [name for name in COLUMNS if name not in rows]
    if missing:
        raise InputError(
            f"{path}: columns {missing} are missing, found {list(rows.columns)}, expected "
            f"{list(COLUMNS)}; {MAKER}"
        )
    if EVERY_TURN in rows:
        raise InputError(
            f"{path}: column {EVERY_TURN!r} is that of audit.csv, which lists every turn, expected "
            "corrections; name corrections.csv beside it, or delete the column and the rows of "
            "turns that are to stay"
        )
    names = {name: rows[name].map(normal_name) for name in COLUMNS[1:]}
    return rows.assign(**names)


def correct_table(
    table: pd.DataFrame, corrections: pd.DataFrame, *, where: str = "corrections"
) -> Corrected:
    """Apply corrections to a segment table.

    Parameters
    ----------
    table
        Segment table; its order and other columns do not change.
    corrections
        As returned by `read_corrections`.
    where
        The corrections file, for messages.

    Raises
    ------
    InputError
        The corrections are for another table, or for another state of this one; a turn is unknown
        or given twice, has another label than `labelled`, or gets a label that its session does
        not have.
    """
    table = check_table(table)
    _check_same_table(table, corrections, where)
    _check_rows(table, corrections, where)
    new = dict(zip(corrections["segment_id"], corrections["suggested"], strict=True))
    turns = zip(table["segment_id"], table["speaker"], strict=True)
    corrected = table.assign(speaker=[new.get(turn, speaker) for turn, speaker in turns])
    rest = corrected[corrected["speaker"] != ""].reset_index(drop=True)
    if not len(rest):
        raise InputError(
            f"{where}: all {counted(len(table), 'turn', 'is')} removed, expected some to be left; "
            "delete rows with an empty suggested"
        )
    record = record_of(table)
    if record is not None:
        rest.attrs[KEY] = record
    return Corrected(rest, corrections[list(COLUMNS)].reset_index(drop=True))


def _check_same_table(table: pd.DataFrame, corrections: pd.DataFrame, where: str) -> None:
    if FINGERPRINT not in corrections:
        return
    now, then = fingerprint(table), sorted({*corrections[FINGERPRINT]} - {""})
    other = [mark for mark in then if mark != now]
    if other:
        raise InputError(
            f"{where}: was made for a table with fingerprint {other[0]}, found {now}, expected the "
            "same turns and labels; audit this table again, or name the one that was audited"
        )


def _check_rows(table: pd.DataFrame, corrections: pd.DataFrame, where: str) -> None:
    """Refuse rows that do not match the table's."""
    ids = corrections["segment_id"]
    _refuse(where, corrections, ids.duplicated(), "given before", "each turn once")
    unknown = ~ids.isin(set(table["segment_id"]))
    _refuse(where, corrections, unknown, "not in the table", "turns of the table")
    rows = table.set_index("segment_id").loc[ids]
    for column, mine, fault in (
        ("session", "session", "in another session of the table"),
        ("speaker", "labelled", "labelled otherwise in the table"),
    ):
        other = rows[column].to_numpy(str) != corrections[mine].to_numpy(str)
        _refuse(where, corrections, other, fault, "the same")
    pairs = set(zip(table["session"], table["speaker"], strict=True))
    names = zip(corrections["session"], corrections["suggested"], strict=True)
    strange = [name[1] != "" and name not in pairs for name in names]
    _refuse(where, corrections, strange, "given a label its session lacks", "one that it has")


def _refuse(
    where: str, corrections: pd.DataFrame, wrong: Sequence[bool] | Any, fault: str, expected: str
) -> None:
    rows = [row for row, is_wrong in enumerate(wrong) if is_wrong]
    if rows:
        first = corrections.iloc[rows[0]]
        suggested = first["suggested"]
        raise InputError(
            f"{where}: {counted(len(rows), 'turn', 'is', of=len(corrections))} {fault}, first "
            f"{first['segment_id']!r} ({first['labelled']!r} to {suggested!r}), expected "
            f"{expected}; correct or delete the row"
        )


def record_bytes(corrected: Corrected, before: pd.DataFrame) -> bytes:
    """Return the record of a correction, as JSON."""
    rows = corrected.applied.rename(columns={"labelled": "was", "suggested": "is"})
    document = {
        "corrections": len(rows),
        "removed": corrected.removed,
        "before": fingerprint(before),
        "after": fingerprint(corrected.table),
        "rows": rows.to_dict("records"),
    }
    return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()


def correct_file(table: str | Path, corrections: str | Path, output: str | Path) -> Corrected:
    """Correct the table in a file, and write it to another file with the record beside it.

    Raises
    ------
    InputError
        As for `read_corrections` and `correct_table`, or a file cannot be written.
    """
    before = read_table(table)
    done = correct_table(before, read_corrections(corrections), where=str(corrections))
    record = Path(f"{output}{SUFFIX}")
    content = record_bytes(done, before)
    write_table(done.table, output)
    atomic_write(record, content)
    return Corrected(done.table, done.applied, str(record))
