"""Read and write RTTM, one turn a line.

``SPEAKER session channel onset duration <NA> <NA> speaker <NA> <NA>``, in ten fields (RT-09: NeMo,
pyannote, VBx, dscore, spyder, 3D-Speaker) or only the first nine (RT-03 to RT-06, LDC, EEND),
separated by blanks; lines may come in any order (AISHELL-4 groups them by speaker). Every field is
checked, so that a line shifted by a blank inside a name is refused, never read with half a name.
Empty lines and comments (``;;``) count as lines but are skipped; the other line types of the RTTM
definition (NIST, RT-09 evaluation plan, appendix A) are counted and left out; any other line is
refused with its file and number.

Channels count from 1, or from 0 in sessions where a 0 occurs; A and B are the first and second. If
all turns of a session name the first channel (or none), that is taken to mean nothing, since most
writers put a 1 there whatever the recording has. In any other session each turn keeps its channel.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import atomic_write
from ..text_files.decoding import read_text
from ..text_files.kinds import check_kind
from .turns import (
    Annotation,
    Note,
    Turn,
    check_turn,
    name_notes,
    parse_float,
    read_files,
)
from .writing import decimal_seconds, microseconds, without_blanks

OTHER_TYPES = frozenset(
    ("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT")
) | {"SU", "IP", "CB", "A/P", "SPKR-INFO"}
FIELDS = ("type", "session", "channel", "onset", "duration", "transcript", "subtype", "speaker")
EMPTY = ("<na>", "na", "n/a", "-")  # values of an empty field
CHANNEL = re.compile(r"\d{1,4}|[A-Ha-h]")
CONFIDENCE = re.compile(r"0?\.\d+|[01]\.0*|0\.\d+([eE]-\d+)?")  # a bare 1 ends "Speaker 1"


def read_rttm(path: str | Path, *, skip_bad: bool = False) -> Annotation:
    """Read one RTTM file, or all ``*.rttm`` below a folder.

    Parameters
    ----------
    path
        File or folder, searched recursively.
    skip_bad
        Drop bad lines, with a note each, instead of stopping at the first.

    Returns
    -------
    Annotation
        Turns in file and line order, times in seconds.

    Raises
    ------
    InputError
        A file cannot be read, or a line is bad (file and line number).
    """
    annotation = read_files(
        path,
        (".rttm",),
        lambda file, name: _read_rows(_rows(file, name), name, skip_bad),
        skip_bad=skip_bad,
    )
    _index_channels(annotation)
    return annotation


def write_rttm(turns: Sequence[Turn], path: str | Path) -> None:
    """Write turns of any number of sessions as one RTTM of ten fields, times to the microsecond.

    Blanks in names become ``_``. Channels are counted from 1; a turn without one has channel 1.

    Raises
    ------
    InputError
        Two names would become one, or the file cannot be written.
    """
    lines = []
    for turn in without_blanks(turns, "RTTM"):
        start, end = microseconds(turn)
        lines.append(
            f"SPEAKER {turn.session} {int(turn.channel or 0) + 1} {decimal_seconds(start)} "
            f"{decimal_seconds(end - start)} <NA> <NA> {turn.speaker} <NA> <NA>\n"
        )
    atomic_write(path, "".join(lines).encode())


def _rows(file: Path, name: str) -> list[tuple[int, list[str]]]:
    """Return (0-based line, fields) of each line; raise `InputError` if none looks like RTTM."""
    text = read_text(file)
    rows = [(line, words.split()) for line, words in enumerate(text.split("\n"))]
    rows = [(line, row) for line, row in rows if row and not row[0].startswith(";;")]
    if not any(row[0] == "SPEAKER" or row[0] in OTHER_TYPES for _, row in rows):
        check_kind(text, file, name, "an RTTM")
    return rows


def _read_rows(rows: list[tuple[int, list[str]]], name: str, skip_bad: bool) -> Annotation:
    annotation = Annotation()
    for line, row in rows:
        place = f"{name}, line {line + 1}"
        try:
            if row[0] not in OTHER_TYPES:
                annotation.turns.append(parse_line(row, line=line, place=place))
        except InputError as problem:
            annotation.drop_or_raise(problem, place, skip=skip_bad)
    others = sum(row[0] in OTHER_TYPES for _, row in rows)
    if others:
        annotation.notes.append(
            Note(
                "ignored", name, f"{counted(others, 'line', 'holds')} no turn (other than SPEAKER)"
            )
        )
    for what, field in (("session", 1), ("speaker", 7)):
        names = (row[field] for _, row in rows if row[0] == "SPEAKER" and len(row) > 8)
        annotation.notes += name_notes(what, names, name)
    return annotation


def parse_line(fields: list[str], *, line: int, place: str) -> Turn:
    """Parse one RTTM line, split at blanks, into a turn, or raise `InputError`.

    The channel is kept as written; it is empty if the line names none.

    >>> text = "SPEAKER L_R002S03C01 1 35.8939 1.5251 <NA> <NA> 001-M <NA> <NA>"
    >>> parse_line(text.split(), line=0, place="a.rttm, line 1")[:3]
    ('L_R002S03C01', '001-M', 35.8939)
    """
    if fields[0] != "SPEAKER":
        raise InputError(
            f"{place}: type is {fields[0][:40]!r}, expected 'SPEAKER'; delete the line"
        )
    _check_fields(fields, place)
    start = parse_float(fields[3], what="onset", place=place)
    duration = parse_float(fields[4], what="duration", place=place)
    channel = "" if fields[2].lower() in EMPTY else fields[2].upper()
    channel = str(int(channel)) if channel.isdecimal() else channel
    end = round(start + duration, 6)
    return check_turn(Turn(fields[1], fields[7], start, end, line, place, channel))


def _check_fields(fields: list[str], place: str) -> None:
    """Raise `InputError` if there are too many or too few fields, or one does not belong there."""
    if len(fields) < 9:
        raise InputError(
            f"{place}: has {counted(len(fields), 'field')}, expected 9 or 10 (up to the "
            "confidence, so that a line cut short is not read with half a name); delete or "
            "correct the line"
        )
    if len(fields) > 10:
        raise InputError(
            f"{place}: has {counted(len(fields), 'field')}, expected 9 or 10: a blank in the "
            "session or the speaker?; write '_' for it, or delete the line"
        )
    if not CHANNEL.fullmatch(fields[2]) and fields[2].lower() not in EMPTY:
        raise _shifted(place, "channel", fields[2], "a number, A, B or <NA>")
    for field in (5, 6):
        if fields[field].lower() not in EMPTY:
            raise _shifted(place, FIELDS[field], fields[field], "<NA>")
    if fields[8].lower() not in EMPTY and not CONFIDENCE.fullmatch(fields[8]):
        raise _shifted(place, "confidence", fields[8], "<NA> or 0.0 to 1.0 with a decimal point")
    if len(fields) == 10 and fields[9].lower() not in EMPTY:
        parse_float(fields[9], what="look-ahead time", place=place)


def _shifted(place: str, what: str, value: str, expected: str) -> InputError:
    return InputError(
        f"{place}: {what} is {value[:40]!r}, expected {expected}: a blank in the session or the "
        "speaker shifts the fields; write '_' for it, or correct the line"
    )


def _index_channels(annotation: Annotation) -> None:
    """Turn channels as written into 0-based indices, session by session; see the module."""
    by_session: dict[str, dict[str, Turn]] = defaultdict(dict)
    for turn in annotation.turns:
        by_session[turn.session].setdefault(turn.channel, turn)
    indices = {session: _indices(channels) for session, channels in by_session.items()}
    annotation.turns = [
        turn._replace(channel=indices[turn.session].get(turn.channel, ""))
        for turn in annotation.turns
    ]
    for session, channels in indices.items():
        if channels:
            pairs = (
                f"{name or '<NA>'} as {index or '--channel'}" for name, index in channels.items()
            )
            message = (
                f"turns are read from the channels that they name: {', '.join(pairs)} (from 0)"
            )
            annotation.notes.append(Note("channel", session, message))


def _indices(channels: dict[str, Turn]) -> dict[str, str]:
    """Return {channel as written: 0-based index} of a session; empty if channels mean nothing."""
    names = sorted(set(channels) - {""})
    letters = [name for name in names if name.isalpha()]
    if letters and len(letters) < len(names):
        other = next(name for name in names if not name.isalpha())
        raise InputError(
            f"{channels[letters[0]].place}: channel is {letters[0]!r}, expected a number as in "
            f"{channels[other].place}; name the channels of a session in one way"
        )
    first = 0 if "0" in names else 1
    numbers = {name: "ABCDEFGH".index(name) if letters else int(name) - first for name in names}
    if set(numbers.values()) <= {0}:
        return {}
    return {name: str(numbers[name]) if name else "" for name in sorted(channels)}
