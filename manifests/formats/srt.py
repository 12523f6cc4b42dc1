"""Read and write SRT (SubRip): numbered cues with times in milliseconds.

SRT has no speakers; they are read from the cues' text in the forms of `subtitles.py`, and written
as in WhisperX, ``[name]: text``. Coordinates after the times, markup and cue numbers are ignored.
The session is the file's name. Output has whole milliseconds with a comma, numbers from 1, UTF-8
and LF; line breaks within a text become blanks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...common.files import atomic_write
from .subtitles import CueFormat, in_brackets, read_cue_files
from .turns import Annotation, Turn
from .writing import clock, milliseconds

SRT = CueFormat("an SRT")


def read_srt(path: str | Path, *, skip_bad: bool = False, speakers: str = "any") -> Annotation:
    """Read one SRT file, or all ``*.srt`` below a folder.

    Parameters
    ----------
    path
        File or folder, searched recursively.
    skip_bad
        Drop bad cues and files, with a note each, instead of stopping at the first.
    speakers
        How cues name who speaks: ``brackets`` (``[Anna]: text``), ``colon`` (``Anna: text``),
        ``number`` (``(speaker 0)text``), ``voice`` (``<v Anna>text``), or ``any``, the first of
        these that a file has.

    Returns
    -------
    Annotation
        Turns in file order, times in seconds; `line` is the line of a cue's times, from 0.

    Raises
    ------
    InputError
        A file is of another kind, or a cue is bad (file and line number).
    """
    return read_cue_files(path, ".srt", SRT, form=speakers, skip_bad=skip_bad)


def write_srt(turns: Sequence[Turn], path: str | Path) -> None:
    """Write the turns of one session as SRT, whole milliseconds.

    Raises
    ------
    InputError
        A speaker's name holds ``]: ``, or the file cannot be written.
    """
    cues = []
    for number, (turn, text) in enumerate(in_brackets(turns, "SRT"), 1):
        start, end = (clock(time, ",") for time in milliseconds(turn))
        cues.append(f"{number}\n{start} --> {end}\n{text}\n")
    atomic_write(path, "\n".join(cues).encode())
