"""Read and write WebVTT: cues with times in milliseconds, and voices (``<v Anna>text``).

Voices are read first; if a file has none, the forms of `subtitles.py` (Zoom's ``Anna: text``,
WhisperX's ``[Anna]: text``) are tried. Header lines, notes, styles, regions, cue ids and cue
settings are ignored. The session is the file's name. Output always has hours, whole milliseconds,
and ``<v Anna>text`` with ``& < >`` as entities; line breaks within a text become blanks.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path

from ...common.errors import InputError
from ...common.files import atomic_write
from ..text_files.kinds import check_kind
from .subtitles import ARROW, CueFormat, read_cue_files
from .turns import Annotation, Turn
from .writing import clock, milliseconds

SIGNATURE = re.compile(r"WEBVTT(?=[ \t\n]|$)")


def read_vtt(path: str | Path, *, skip_bad: bool = False, speakers: str = "any") -> Annotation:
    """Read one WebVTT file, or all ``*.vtt`` below a folder.

    Parameters
    ----------
    path
        File or folder, searched recursively.
    skip_bad
        Drop bad cues and files, with a note each, instead of stopping at the first.
    speakers
        How cues name who speaks, as for `read_srt`.

    Returns
    -------
    Annotation
        Turns in file order, times in seconds; `line` is the line of a cue's times, from 0.

    Raises
    ------
    InputError
        A file is of another kind, or a cue is bad (file and line number).
    """
    return read_cue_files(path, ".vtt", WEBVTT, form=speakers, skip_bad=skip_bad)


def _check_signature(text: str, file: Path, name: str) -> None:
    if SIGNATURE.match(text) or not text.strip():
        return
    if ARROW not in text:
        check_kind(text, file, name, "a WebVTT")
    first = text.partition("\n")[0]
    raise InputError(
        f"{name}, line 1: is {first[:40]!r}, expected 'WEBVTT'; write it there, "
        "or name the file .srt where it is one"
    )


WEBVTT = CueFormat("a WebVTT", check=_check_signature)


def write_vtt(turns: Sequence[Turn], path: str | Path) -> None:
    """Write the turns of one session as WebVTT with voices, whole milliseconds."""
    cues = ["WEBVTT\n"]
    for turn in turns:
        start, end = (clock(time) for time in milliseconds(turn))
        name, text = (_escaped(part) for part in (turn.speaker, turn.text))
        cues.append(f"{start} --> {end}\n<v {name}>{text}</v>\n")
    atomic_write(path, "\n".join(cues).encode())


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)
