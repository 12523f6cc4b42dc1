"""Read and write a CSV of turns as in audformat: ``file,start,end,speaker``.

Times are seconds, or what pandas writes for a duration (``0 days 00:00:01.500000``, ``00:00:01.5``,
``1.5s``), as in audformat's tables; `audformat.utils.read_csv` reads both. The session is the
column `session` if there is one, else the name in `file` without folder and suffix, else the name
of the CSV. The columns `text` and `channel` (from 0) are read if present. Output has seconds
unchanged, `session` only if the file name does not give it, `text` and `channel` only if a turn has
them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ...common.audio.containers import SUFFIXES
from ...common.errors import InputError
from ...common.files import atomic_write
from ..text_files.delimited import check_columns, decimal_points, read_delimited
from .turns import NUMBER, Annotation, Note, Turn, collect_turns, read_files

COLUMNS = ("file", "session", "start", "end", "speaker", "text", "channel")
DURATION = re.compile(
    r"(?:(\d{1,3}) days? )?(\d{1,4}):(\d\d):(\d\d(?:\.\d{1,9})?)|(\d{1,9}(?:\.\d{1,9})?) ?s"
)


def read_segmented_csv(path: str | Path, *, skip_bad: bool = False) -> Annotation:
    """Read one CSV of turns, or all ``*.csv`` below a folder.

    Parameters
    ----------
    path
        File or folder, searched recursively.
    skip_bad
        Drop bad rows and files, with a note each, instead of stopping at the first.

    Returns
    -------
    Annotation
        Turns in file order, times in seconds.

    Raises
    ------
    InputError
        A column is missing, or a row is bad (file and row).
    """
    return read_files(
        path, (".csv",), lambda file, name: _read(file, name, skip_bad), skip_bad=skip_bad
    )


def _read(file: Path, name: str, skip_bad: bool) -> Annotation:
    sheet = read_delimited(file, COLUMNS, "correct the path")
    check_columns(sheet, ("start", "end", "speaker"), name)
    if not {"session", "file"} & {*sheet.rows}:
        sheet = sheet._replace(rows=sheet.rows.assign(session=file.stem))
    rows = decimal_points(sheet, ("start", "end")).to_dict("records")
    annotation = collect_turns(enumerate(rows), _turn, name, unit="row", skip_bad=skip_bad)
    annotation.notes += [Note("columns", name, note) for note in sheet.notes]
    return annotation


def _turn(row: Mapping[str, str], index: int, place: str) -> Turn:
    channel = row.get("channel", "").strip()
    if not re.fullmatch(r"\d{0,4}", channel):
        raise InputError(
            f"{place}: channel is {channel!r}, expected an index from 0, or nothing; correct it"
        )
    return Turn(
        row["session"] if "session" in row else file_session(row["file"]),
        row["speaker"],
        parse_seconds(row["start"], "start", place),
        parse_seconds(row["end"], "end", place),
        *(index, place, channel, row.get("text", "")),
    )


def parse_seconds(text: str, what: str, place: str) -> float:
    """Return a time in seconds, given as seconds or as a pandas duration.

    >>> parse_seconds("0 days 00:01:01.500000", "start", "a.csv, row 1")
    61.5
    """
    text = text.strip()
    if NUMBER.fullmatch(text):
        return float(text) + 0.0
    match = DURATION.fullmatch(text)
    if match is None:
        raise InputError(
            f"{place}: {what} is {text[:40]!r}, expected seconds, or 0 days 00:00:01.5; correct it"
        )
    if match[5]:
        return float(match[5])
    hours = int(match[1] or 0) * 24 + int(match[2])
    return round((hours * 60 + int(match[3])) * 60 + float(match[4]), 9)


def file_session(file: str) -> str:
    r"""Return the session that an audio file is named after.

    >>> file_session("audio/a.b.wav"), file_session("a.b")
    ('a.b', 'a.b')
    """
    name = PurePosixPath(file.replace("\\", "/")).name
    stem, point, suffix = name.rpartition(".")
    return stem if point and stem and f".{suffix.lower()}" in SUFFIXES else name


def write_segmented_csv(
    turns: Sequence[Turn], path: str | Path, audio: Mapping[str, Path] | None = None
) -> None:
    """Write turns of any number of sessions as one CSV, times unchanged.

    Parameters
    ----------
    audio
        Session -> recording, for the column `file`; without it, `file` is the session.
    """
    files = {turn.session: str((audio or {}).get(turn.session, turn.session)) for turn in turns}
    columns = ["file", "start", "end", "speaker"]
    columns += (
        ["session"] if any(file_session(f) != session for session, f in files.items()) else []
    )
    columns += [name for name in ("text", "channel") if any(getattr(turn, name) for turn in turns)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for turn in turns:
        values = {**turn._asdict(), "file": files[turn.session]}
        writer.writerow([values[name] for name in columns])
    atomic_write(path, text.getvalue().encode())
