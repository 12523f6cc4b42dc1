"""Names of cut files, and the session and speaker that a listing's row refers to.

A file is named ``{session}_{speaker}_{NNNN}.wav``, NNNN being the 0-based line of the turn in its
session's RTTM, and its label is ``{session}_{speaker}`` (miaomiami/thesis, data_fixed.csv). If the
session or the speaker contains a ``_``, a label can be split in several ways. The table that `cut`
leaves beside its listing decides between them; without it such a label is refused, unless the
session or the speaker has AISHELL-4's form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...common.errors import InputError
from ...common.names import normal_name, shortened
from ..table import id_names, read_table
from ..text_files.delimited import check_columns, read_delimited
from .aishell4 import NAME
from .turns import Annotation, Note, Turn, check_name, name_notes

CUT_NAME = re.compile(r"(.+)_(\d{4,9})")
LOCAL_ID = re.compile(r"\d{3}-[MF]")  # a speaker as AISHELL-4 and the reference number them
CUT_TABLE = "segments.table.csv"  # written by `cut` beside its listing; it has all names
# Bytes of {session}_{speaker}, or of an id, in a file name: with number, suffix and a temporary
# file's prefix both stay below the file system's 255.
LONGEST = 215
LONGEST_ID = 230


class ListedFile(NamedTuple):
    """One row of the CSV, with the names that the cut's own table gives its file, if any."""

    path: str
    label: str
    place: str  # for messages
    session: str = ""
    speaker: str = ""  # as annotated, local to its session
    line: int = -1  # of the annotation; -1 if the table has none


def cut_stem(names: str, line: int | None = None) -> str:
    """Return a cut file's name without suffix, from ``{session}_{speaker}`` or from an id.

    >>> cut_stem("S1_001-M", 3), cut_stem("S1_001-M_0001.0000_0002.0000")
    ('S1_001-M_0003', 'S1_001-M_0001.0000_0002.0000')
    """
    if line is None:
        return shortened(names, LONGEST_ID)
    return f"{shortened(names, LONGEST)}_{line:04d}"


def read_listing(path: str | Path, annotation: Annotation, skip_bad: bool) -> list[ListedFile]:
    """Read the CSV's rows, with names from the cut's own table beside it.

    Without that table, or if a file is missing from it, the row's session is empty.
    """
    sheet = read_delimited(path, ("path", "label"), "correct the path")
    check_columns(sheet, ("path", "label"), path)
    annotation.notes += [Note("columns", str(path), note) for note in sheet.notes]
    annotation.notes += name_notes("label", sheet.rows["label"], str(path))
    beside = _cut_names(Path(path).with_name(CUT_TABLE))
    rows = []
    for index, (file, text) in enumerate(zip(sheet.rows["path"], sheet.rows["label"], strict=True)):
        place, label = f"{Path(path).name}, line {index + 2}", normal_name(text)
        row = beside.get(_name(file), ListedFile(file, label, place))
        if row.label == label:
            rows.append(row._replace(path=file, place=place))
            continue
        problem = InputError(
            f"{place}: label is {label!r}, expected {row.label!r} as in {CUT_TABLE}; correct the "
            f"row, or move {CUT_TABLE} away"
        )
        annotation.drop_or_raise(problem, place, skip=skip_bad)
    return rows


def _cut_names(path: Path) -> dict[str, ListedFile]:
    """Read the table that a cut left, as {file name: its row}; empty if there is none."""
    if not path.is_file():
        return {}
    table = read_table(path)
    lines = table["line"] if "line" in table else [-1] * len(table)
    rows = {}
    for row, line in zip(table.itertuples(), lines, strict=True):
        session, label = str(row.session), str(row.speaker)
        both = normal_name(id_names(str(row.segment_id)))
        speaker = (both if both.startswith(f"{session}_") else label).removeprefix(f"{session}_")
        rows[_name(str(row.audio))] = ListedFile("", label, "", session, speaker, int(line))
    return rows


def divide_labels(
    listed: Sequence[ListedFile], annotation: Annotation, skip_bad: bool, last_underscore: bool
) -> dict[ListedFile, Turn]:
    """Return each row's untimed turn, unless dropped; its `place` is the row's path."""
    turns = {}
    for row in listed:
        try:
            turns[row] = untimed_turn(row, last_underscore)
        except InputError as problem:
            annotation.drop_or_raise(problem, row.place, skip=skip_bad)
    return turns


def untimed_turn(row: ListedFile, last_underscore: bool) -> Turn:
    """Return the turn of one row, from the cut's table or by parsing its names."""
    if row.session:
        return Turn(row.session, row.speaker, math.nan, math.nan, row.line, row.path)
    return parse_row(row.path, row.label, row.place, last_underscore=last_underscore)


def parse_row(path: str, label: str, place: str = "csv", *, last_underscore: bool = False) -> Turn:
    """Parse a row's file name and label into a turn without times (NaN).

    >>> turn = parse_row("./segments/L_R001S01C01_001-M_0003.wav", "L_R001S01C01_001-M")
    >>> turn.session, turn.speaker, turn.line, turn.place
    ('L_R001S01C01', '001-M', 3, './segments/L_R001S01C01_001-M_0003.wav')

    Raises
    ------
    InputError
        File name and label do not match, or the label can be split in several ways.
    """
    match = CUT_NAME.fullmatch(file_stem(path))
    label = normal_name(label)
    if match is None or shortened(label, LONGEST) != match[1] or "_" not in label.strip("_"):
        raise InputError(
            f"{place}: path is {path!r} and label {label!r}, expected "
            "{session}_{speaker}_{NNNN}.wav and {session}_{speaker}; correct the row"
        )
    session, speaker = _divide(label, place, last_underscore)
    session = check_name(session, what="session", place=place)
    return Turn(session, speaker, math.nan, math.nan, int(match[2]), path)


def _name(path: str) -> str:
    """Return a file's name without folders, in its normal form."""
    return normal_name(PurePosixPath(path.replace("\\", "/")).name)


def file_stem(path: str) -> str:
    """Return a file's name without folders and suffix, in its normal form."""
    return PurePosixPath(_name(path)).stem


def _divide(label: str, place: str, last_underscore: bool) -> tuple[str, str]:
    """Split ``{session}_{speaker}``, provided that only one split is possible.

    That holds with a single ``_``, with a session or speaker of AISHELL-4's form, or if the user
    promises that speakers contain no ``_``.
    """
    words = label.split("_")
    pairs = [("_".join(words[:n]), "_".join(words[n:])) for n in range(1, len(words))]
    pairs = [pair for pair in pairs if all(pair)]
    if last_underscore or len(pairs) == 1 or LOCAL_ID.fullmatch(words[-1]):
        return pairs[-1]
    formed = [pair for pair in pairs if NAME.fullmatch(pair[0])]
    if len(formed) == 1:
        return formed[0]
    (first, *_, last) = pairs
    raise InputError(
        f"{place}: label is {label!r}, which may be speaker {last[1]!r} of session {last[0]!r} or "
        f"{first[1]!r} of {first[0]!r}, expected one '_'; pass --rttm-dir with the RTTMs from "
        f"which the files were cut, or --last-underscore for the first, or put {CUT_TABLE} beside "
        "the CSV"
    )
