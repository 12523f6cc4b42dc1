"""What the readers of RTTM, TextGrid and CSV share: files, text, names, numbers, bad lines.

A reader turns annotation files into a `Reading`: turns exactly as annotated, and everything that
it dropped or found remarkable. `manifests/assemble.py` makes the segment table of it.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..common.audio import check_length, count_samples, read_header
from ..common.errors import InputError
from ..common.files import list_files, write_whole
from .table import LATEST

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")  # float() also takes nan and 1_0
LONGEST_NAME = 100  # bytes; two of them and two times fit in the 255 of a file's name


class Turn(NamedTuple):
    """One speaker's stretch of speech, as annotated."""

    session: str
    speaker: str  # as in the file, local to its session
    start: float  # s
    end: float  # s
    line: int  # 0-based, in its file (TextGrid: number of the speech interval)
    place: str  # "file, line N" for messages
    channel: str = ""  # 0-based index in its recording; "" where the annotation names none


class Note(NamedTuple):
    """Something a user should know: what kind, where, what."""

    kind: str
    place: str
    message: str


@dataclass
class Reading:
    """Turns in file order, and notes on what was dropped, clipped or repaired."""

    turns: list[Turn] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def add(self, part: Reading, name: str) -> None:
        """Take what was read of one file; note where that is no turn at all."""
        self.turns += part.turns
        self.notes += part.notes
        if not part.turns:
            self.notes.append(Note("empty", name, "the file holds no turn"))

    def bad(self, problem: InputError, place: str, *, skip: bool) -> None:
        """Raise `problem`, or with `skip` note that its line was dropped."""
        if not skip:
            raise problem
        self.notes.append(Note("dropped", place, str(problem)))


def find_files(path: str | Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the file `path`, or all files below the folder `path` with one of `suffixes`, sorted.

    Links to folders are followed, and no folder or file is read twice. A Mac's ``._*`` twins are
    passed over.

    Raises
    ------
    InputError
        There is no such file or folder, or the folder holds no such file.
    """
    path = Path(path)
    if os.path.isfile(path):  # Path.is_file raises where a name is too long for the disk
        return [path]
    if not os.path.isdir(path):
        raise InputError(f"{path}: no such file or folder; correct the path")
    files = list_files(path, suffixes)
    if not files:
        raise InputError(
            f"{path}: holds 0 files with suffix {', '.join(suffixes)}; correct the path"
        )
    return files


def name_below(path: str | Path, file: Path) -> str:
    """Return how messages call a file found by `find_files`: its path below the folder `path`."""
    return file.name if file == Path(path) else file.relative_to(path).as_posix()


def read_text(path: Path) -> str:
    """Return a text file's content: UTF-8, or UTF-16 where it has a mark or every other byte is 0.

    Raises
    ------
    InputError
        The bytes are neither, or the file cannot be opened.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise InputError(
            f"{path}: cannot be read ({problem.strerror}), expected a text file; correct or "
            "delete it"
        ) from None
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif data[1:2] == b"\0":
        encoding = "utf-16-le"
    elif data[:1] == b"\0":
        encoding = "utf-16-be"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as problem:
        raise InputError(
            f"{path}: byte {problem.start} is not {encoding}, expected UTF-8 or UTF-16 text; "
            "convert the file"
        ) from None


def audio_seconds(file: Path) -> float:
    """Return the length of an audio file (s), as far as it decodes.

    Raises
    ------
    InputError
        The file is missing or no audio, or its header tells a wrong length.
    """
    header = read_header(file)
    check_length(header)
    return count_samples(header) / header.rate


def number(text: str, *, what: str, place: str) -> float:
    """Return a finite number, or raise `InputError` naming `what` and `place`."""
    value = float(text) if NUMBER.fullmatch(text) else math.inf
    if not math.isfinite(value):
        raise InputError(
            f"{place}: {what} is {_short(text)}, expected a finite number; correct the line"
        )
    return value


def plain_name(text: str, *, what: str, place: str) -> str:
    """Return `text` if it can stand in a file name as it is, or raise `InputError`."""
    fine = text not in ("", ".", "..") and text.isprintable() and len(text.encode()) <= LONGEST_NAME
    fine = fine and text == text.strip()
    if not fine or "/" in text or "\\" in text or ".." in text:
        raise InputError(
            f"{place}: {what} is {_short(text)}, expected a plain name of at most {LONGEST_NAME} "
            "bytes without '/', '\\\\', '..', control characters or blanks around it; correct the "
            "line"
        )
    return text


def check_turn(turn: Turn) -> Turn:
    """Return `turn` if its names are plain and its times in order, or raise `InputError`."""
    plain_name(turn.session, what="session", place=turn.place)
    plain_name(turn.speaker, what="speaker", place=turn.place)
    if not 0 <= turn.start < math.inf:
        raise InputError(
            f"{turn.place}: start is '{turn.start:g}' s, expected >= 0; correct the line"
        )
    if turn.end > LATEST:
        raise InputError(
            f"{turn.place}: end is '{turn.end:g}' s, expected at most {LATEST:g}; correct the line"
        )
    if not turn.start < turn.end:
        raise InputError(
            f"{turn.place}: duration is '{turn.end - turn.start:g}' s, expected > 0; "
            "delete or correct the line"
        )
    return turn


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def rows_left_out(notes: Sequence[Note]) -> bool:
    """Return whether what was noted includes rows that could not be used."""
    return any(note.kind == "dropped" for note in notes)


def write_notes(notes: Sequence[tuple[str, str, str]], table_path: str | Path) -> Path | None:
    """Write notes as ``TABLE.notes.csv`` beside their table; return its path, None without notes.

    The file of an earlier run is removed where this run has nothing to note.
    """
    path = Path(f"{table_path}.notes.csv")
    if not notes:
        path.unlink(missing_ok=True)
        return None
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Note._fields, *notes])
    write_whole(path, text.getvalue().encode())
    return path
