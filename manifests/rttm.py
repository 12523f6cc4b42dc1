"""Read RTTM: one turn a line, ``SPEAKER session channel onset duration <NA> <NA> speaker <NA>``.

Nine or ten fields, separated by blanks; lines may stand in any order (AISHELL-4 groups them by
speaker). Empty lines and comments (``;;``) count as lines but hold nothing; the other line types
of the RTTM definition (NIST, RT-09 evaluation plan, appendix A) are counted and left out; any
other line is refused with its file and number.
"""

from __future__ import annotations

from pathlib import Path

from ..common.errors import InputError
from .annotation import (
    Note,
    Reading,
    Turn,
    check_turn,
    find_files,
    name_below,
    number,
    read_text,
)

OTHER_TYPES = frozenset(
    ("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT")
) | {"SU", "IP", "CB", "A/P", "SPKR-INFO"}


def read_rttm(path: str | Path, *, skip_bad: bool = False) -> Reading:
    """Read one RTTM file, or all ``*.rttm`` below a folder.

    Parameters
    ----------
    path
        File or folder, searched recursively.
    skip_bad
        Drop bad lines and note them, instead of stopping at the first.

    Returns
    -------
    Reading
        Turns in file and line order, times in seconds.

    Raises
    ------
    InputError
        A file cannot be read, or a line is bad (file and line number).
    """
    reading = Reading()
    for file in find_files(path, (".rttm",)):
        name = name_below(path, file)
        reading.add(_read_file(file, name, skip_bad), name)
    return reading


def _read_file(file: Path, name: str, skip_bad: bool) -> Reading:
    reading = Reading()
    others = 0
    for line, text in enumerate(read_text(file).split("\n")):
        fields = text.split()
        if not fields or fields[0].startswith(";;"):
            continue
        if fields[0] in OTHER_TYPES:
            others += 1
            continue
        place = f"{name}, line {line + 1}"
        try:
            reading.turns.append(parse_line(fields, line=line, place=place))
        except InputError as problem:
            reading.bad(problem, place, skip=skip_bad)
    if others:
        reading.notes.append(
            Note("ignored", name, f"{others} lines hold no turn (other than SPEAKER)")
        )
    return reading


def parse_line(fields: list[str], *, line: int, place: str) -> Turn:
    """Return the turn of one RTTM line, split at blanks; raise `InputError` if it is none.

    >>> text = "SPEAKER L_R002S03C01 1 35.8939 1.5251 <NA> <NA> 001-M <NA> <NA>"
    >>> parse_line(text.split(), line=0, place="a.rttm, line 1")[:3]
    ('L_R002S03C01', '001-M', 35.8939)
    """
    if fields[0] != "SPEAKER":
        raise InputError(
            f"{place}: type is {fields[0][:40]!r}, expected 'SPEAKER'; delete the line"
        )
    if len(fields) not in (9, 10):
        raise InputError(
            f"{place}: has {len(fields)} fields, expected 9 or 10; delete or correct the line"
        )
    start = number(fields[3], what="onset", place=place)
    duration = number(fields[4], what="duration", place=place)
    return check_turn(Turn(fields[1], fields[7], start, round(start + duration, 6), line, place))
