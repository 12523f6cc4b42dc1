"""Read and write timed text: one turn a line, ``[00:00:01.000 --> 00:00:02.500] [Anna]: text``.

This is the form of whisper's and whisper.cpp's output in a terminal, with speakers as in WhisperX.
Lines without times continue the turn above. A text without any times, such as WhisperX's own
``.txt``, is refused: it does not say when anybody speaks. The session is the file's name. Times are
whole milliseconds; line breaks within a text become blanks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ...common.files import atomic_write
from .subtitles import CLOCK, CueFormat, in_brackets, read_cue_files
from .turns import Annotation, Turn
from .writing import clock, milliseconds

TIMED_TEXT = CueFormat(
    "a text", times=re.compile(rf"\s*\[\s*{CLOCK}\s*-->\s*{CLOCK}\s*\](.*)"), clean=str
)


def read_txt(path: str | Path, *, skip_bad: bool = False, speakers: str = "any") -> Annotation:
    """Read one file of timed text, or all ``*.txt`` below a folder.

    Parameters
    ----------
    path
        File or folder, searched recursively.
    skip_bad
        Drop bad lines and files, with a note each, instead of stopping at the first.
    speakers
        How lines name who speaks, as for `read_srt`.

    Returns
    -------
    Annotation
        Turns in file order, times in seconds.

    Raises
    ------
    InputError
        A file has no times, or a line is bad (file and line number).
    """
    return read_cue_files(path, ".txt", TIMED_TEXT, form=speakers, skip_bad=skip_bad)


def write_txt(turns: Sequence[Turn], path: str | Path) -> None:
    """Write the turns of one session as timed text, whole milliseconds.

    Raises
    ------
    InputError
        A speaker's name holds ``]: ``, or the file cannot be written.
    """
    lines = []
    for turn, text in in_brackets(turns, "TXT"):
        start, end = map(clock, milliseconds(turn))
        lines.append(f"[{start} --> {end}] {text}\n")
    atomic_write(path, "".join(lines).encode())
