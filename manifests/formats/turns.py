"""Shared by the readers of annotations: files, names, numbers, bad lines, listed recordings.

A reader turns annotation files into an `Annotation`: turns exactly as annotated, and notes on
everything that it dropped or that the user should know. `manifests/formats/build.py` builds the
segment table from it.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...common.audio.decoding import check_length, count_samples, read_header
from ...common.counts import agree, counted
from ...common.errors import InputError
from ...common.files import atomic_write, list_files
from ...common.names import changed_names, is_placeholder, normal_name
from ..table import MAX_SECONDS
from ..text_files.kinds import READERS

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")  # float() also takes nan and 1_0
UNREADABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # not allowed in a turn's text
LONGEST_NAME = 100  # characters; `cut` shortens names that are too long for a file name


class Turn(NamedTuple):
    """One speaker's stretch of speech, as annotated."""

    session: str
    speaker: str  # as in the file, local to its session
    start: float  # s
    end: float  # s
    line: int  # 0-based, in its file (TextGrid: number of the speech interval)
    place: str  # "file, line N" for messages
    channel: str = ""  # 0-based index in its recording; "" if the annotation has none
    text: str = ""  # what is said, if annotated


class Listed(NamedTuple):
    """The location of a session's recording, according to an annotation."""

    path: str  # as written
    place: str  # "file, line N" for messages
    bases: tuple[Path, ...]  # base folders of a relative path; the first that has it counts
    other_name: str = ""  # another name that the file may have, besides the session's
    refusal: str = ""  # what the entry is, if it is not a path

    @property
    def file(self) -> Path | None:
        """Return the recording, or None if there is no such file."""
        files = () if self.refusal else (base / self.path for base in self.bases)
        return next((file for file in files if os.path.isfile(file)), None)


class Note(NamedTuple):
    """Something the user should know: its kind, place and message."""

    kind: str
    place: str
    message: str


@dataclass
class Annotation:
    """Turns in file order, notes on what was dropped, clipped or repaired, listed recordings."""

    turns: list[Turn] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    recordings: dict[str, Listed] = field(default_factory=dict)  # by session, where listed

    def __repr__(self) -> str:
        """Return the numbers of turns and notes, in one line: a meeting has hundreds of turns."""
        turns, notes = counted(len(self.turns), "turn"), counted(len(self.notes), "note")
        return f"<Annotation {turns}, {notes}>"

    def add(self, part: Annotation, name: str) -> None:
        """Append the content of one file; note if it has no turns.

        Raises
        ------
        InputError
            It lists a recording for a session that differs from an earlier file's.
        """
        for session, listed in part.recordings.items():
            check_same_recording(session, listed, self.recordings.get(session, listed))
        self.recordings |= part.recordings
        self.turns += part.turns
        self.notes += part.notes
        if not part.turns:
            self.notes.append(Note("empty", name, "the file holds no turn"))

    def drop_or_raise(self, problem: InputError, place: str, *, skip: bool) -> None:
        """Raise `problem`, mentioning --skip-bad; with `skip`, note the dropped line instead."""
        if not skip:
            option = "" if "--skip-bad" in str(problem) else ", or pass --skip-bad"
            raise InputError(f"{problem}{option}") from problem
        self.notes.append(Note("dropped", place, str(problem)))


def check_same_recording(session: str, listed: Listed, before: Listed) -> None:
    """Raise `InputError` if two lists name different files as a session's recording."""
    if (listed.path, listed.bases) == (before.path, before.bases):
        return
    file, other = (os.path.abspath(e.file or e.bases[0] / e.path) for e in (listed, before))
    if file != other:
        raise InputError(
            f"{listed.place}: the recording of {session!r} is {file!r}, and in {before.place} "
            f"{other!r}, expected one; give one of them another name, or read the files one "
            "by one"
        )


def find_files(path: str | Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the file `path`, or all files with one of `suffixes` below the folder `path`, sorted.

    Links to folders are followed, and no folder or file is read twice. macOS's ``._*`` files are
    ignored.

    Raises
    ------
    InputError
        There is no such file or folder, or the folder has no such file.
    """
    path = Path(path)
    if os.path.isfile(path):  # Path.is_file raises if a name is too long for the file system
        return [path]
    if not os.path.isdir(path):
        raise InputError(f"{path}: no such file or folder; correct the path")
    files = list_files(path, suffixes)
    if not files:
        raise InputError(f"{path}: holds 0 files with suffix {', '.join(suffixes)}{_others(path)}")
    return files


def _others(folder: Path) -> str:
    """Return which annotations a folder holds instead, if any, and what to do."""
    present = Counter(file.suffix.lower() for file in list_files(folder, tuple(READERS)))
    if not present:
        return "; correct the path"
    ((suffix, number),) = present.most_common(1)
    return f", but {number} with {suffix}; run spk-manifests {READERS[suffix]} on it"


def relative_name(path: str | Path, file: Path) -> str:
    """Return the name that messages use for a file from `find_files`: its path below `path`."""
    return file.name if file == Path(path) else file.relative_to(path).as_posix()


def read_files(
    path: str | Path,
    suffixes: tuple[str, ...],
    read: Callable[[Path, str], Annotation],
    *,
    skip_bad: bool = False,
) -> Annotation:
    """Read one file, or all with one of `suffixes` below a folder, in the order of their paths.

    Parameters
    ----------
    read
        Reads one file; the second argument is its name for messages.
    skip_bad
        Leave out files that cannot be read, with a note each.

    Raises
    ------
    InputError
        There is no file, or one cannot be read.
    """
    annotation = Annotation()
    for file in find_files(path, suffixes):
        name = relative_name(path, file)
        try:
            annotation.add(read(file, name), name)
        except InputError as problem:  # the whole file is dropped
            if file == Path(path) and not skip_bad:
                raise
            annotation.drop_or_raise(problem, name, skip=skip_bad)
    return annotation


def collect_turns(
    rows: Iterable[tuple[int, Any]],
    parse: Callable[[Any, int, str], Turn],
    name: str,
    *,
    unit: str = "line",
    skip_bad: bool = False,
) -> Annotation:
    """Return the checked turns that `parse` makes from a file's rows, and notes on the others.

    A row without a speaker, or whose end is at its start, gives no turn; such rows are counted.

    Parameters
    ----------
    rows
        (number from 0, row).
    parse
        Makes a turn from a row, its number and its place.
    name, unit
        Names of the file and its rows in messages.
    skip_bad
        Drop bad rows, with a note each, instead of stopping at the first.
    """
    annotation, names = Annotation(), dict[str, set[str]](session=set(), speaker=set())
    left_out: Counter[str] = Counter()
    for index, row in rows:
        place = f"{name}, {unit} {index + 1}"
        try:
            turn = parse(row, index, place)
            if not turn.speaker.strip():
                left_out["without speaker"] += 1
            elif turn.start == turn.end:
                left_out["of 0 s"] += 1
            else:
                annotation.turns.append(check_turn(turn))
                names["session"].add(turn.session)
                names["speaker"].add(turn.speaker)
        except InputError as problem:
            annotation.drop_or_raise(problem, place, skip=skip_bad)
    for what, count in left_out.items():
        gives = agree(count, "gives", "give")
        message = f"{counted(count, unit)} {what} {gives} no turn"
        annotation.notes.append(Note("ignored", name, message))
    for what, written in names.items():
        annotation.notes += name_notes(what, written, name)
    return annotation


def audio_seconds(file: Path) -> float:
    """Return the decodable length of an audio file (s).

    Raises
    ------
    InputError
        The file is missing or not audio, or its header claims a wrong length.
    """
    header = read_header(file)
    check_length(header)
    return count_samples(header) / header.rate


def parse_float(text: str, *, what: str, place: str) -> float:
    """Parse a finite number, or raise `InputError` naming `what` and `place`."""
    value = float(text) if NUMBER.fullmatch(text) else math.inf
    if not math.isfinite(value):
        raise InputError(
            f"{place}: {what} is {_short(text)}, expected a finite number; correct the line"
        )
    return value + 0.0  # -0 is 0


def check_name(text: str, *, what: str, place: str, repair: str = "correct the line") -> str:
    """Normalise a name, or raise `InputError`, which ends in `repair`, if it is unusable.

    A name must be fit for a file name, and not a placeholder such as ``<NA>``.
    """
    name = normal_name(text)
    if is_placeholder(name):
        raise InputError(
            f"{place}: {what} is {_short(text)}, expected a name, not a placeholder; {repair}"
        )
    fine = name not in ("", ".", "..") and name.isprintable() and len(name) <= LONGEST_NAME
    if not fine or "/" in name or "\\" in name or ".." in name:
        raise InputError(
            f"{place}: {what} is {_short(text)}, expected a plain name of at most {LONGEST_NAME} "
            f"characters without '/', '\\\\', '..' or control characters; {repair}"
        )
    return name


def name_notes(what: str, names: Iterable[str], place: str) -> list[Note]:
    """Return a note if any of `names` had to be normalised."""
    message = changed_names(names)
    return [Note("renamed", place, f"{what}: {message}")] if message else []


def check_turn(turn: Turn) -> Turn:
    """Return `turn` with normalised names and plain text, or raise `InputError`.

    Text is on one line, without control characters.

    Raises
    ------
    InputError
        A name or time is wrong.
    """
    turn = turn._replace(
        session=check_name(turn.session, what="session", place=turn.place),
        speaker=check_name(turn.speaker, what="speaker", place=turn.place),
        text=" ".join(UNREADABLE.sub(" ", turn.text).split()) if turn.text else "",
    )
    if not 0 <= turn.start < math.inf:
        raise InputError(
            f"{turn.place}: start is '{turn.start:g}' s, expected >= 0; correct the line"
        )
    if turn.end > MAX_SECONDS:
        raise InputError(
            f"{turn.place}: end is '{turn.end:g}' s, expected at most {MAX_SECONDS:g}; "
            "correct the line"
        )
    if not turn.start < turn.end:
        raise InputError(
            f"{turn.place}: duration is '{turn.end - turn.start:g}' s, expected > 0; "
            "delete or correct the line"
        )
    return turn


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def count_speakers(turns: Iterable[Turn], shown: int = 8) -> str:
    """List who speaks and how often, the most frequent first.

    >>> count_speakers([Turn("S1", "Anna", 0, 1, 0, "row 1")])
    "1 'Anna'"
    """
    counts = Counter(turn.speaker for turn in turns)
    more = ", ..." if len(counts) > shown else ""
    return ", ".join(f"{count} {who!r}" for who, count in counts.most_common(shown)) + more


def rows_left_out(notes: Sequence[Note]) -> bool:
    """Return whether any of the notes is about a dropped row."""
    return any(note.kind == "dropped" for note in notes)


def write_notes(notes: Sequence[tuple[str, str, str]], table_path: str | Path) -> Path | None:
    """Write notes to ``TABLE.notes.csv`` beside their table; return its path, None without notes.

    Without notes, the file of an earlier run is removed.
    """
    path = Path(f"{table_path}.notes.csv")
    if not notes:
        path.unlink(missing_ok=True)
        return None
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Note._fields, *notes])
    atomic_write(path, text.getvalue().encode(errors="backslashreplace"))
    return path
