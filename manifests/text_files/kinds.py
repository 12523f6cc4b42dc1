"""Identify text files of an unexpected kind, and say how to convert them.

Only files that a reader could not use are examined. Where one line of awk converts the file to
RTTM, the error's repair is that command, ready to be pasted.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from ...common.errors import InputError
from .decoding import PRAAT_TEXT

READERS = {".rttm": "rttm", ".textgrid": "textgrid", ".eaf": "eaf", ".srt": "srt", ".vtt": "vtt"}
ELAN = "run spk-manifests eaf on the .eaf that it was exported from"
NUMBER = r"[-+]?(?:\d{1,20}\.?\d{0,20}|\.\d{1,20})(?:[eE][-+]?\d{1,3})?"
CLOCK = r"\d{1,4}:\d\d(?::\d\d)?[.,]\d{1,6}"
NEMO = r'\s*\[?\s*\{(?!.{0,4000}"segments").{0,4000}"audio_file(?:path|name)"'  # its first line
MARKS = (  # how a file begins, what it is, what to do
    (r'(File type = )?"?ooTextFile', "a text file of Praat", "run spk-manifests textgrid on it"),
    (r'"Praat chronological TextGrid', "a chronological TextGrid of Praat", PRAAT_TEXT),
    (r"(?s).{0,2000}<ANNOTATION_DOCUMENT", "an ELAN file (.eaf)", "run spk-manifests eaf on it"),
    (r"<\w|<\?xml|<!", "an XML file", "export it as RTTM, or as a Praat TextGrid"),
    (rf"\[{CLOCK} --> {CLOCK}\]", "a text with times", "run spk-manifests txt on it"),
    (NEMO, "a NeMo manifest", "run spk-manifests nemo on it"),
    (r"[{\[]", "a JSON file", "run spk-manifests whisperx or lhotse on it"),
    (r"WEBVTT", "a subtitle file (WebVTT)", "run spk-manifests vtt on it"),
    (rf"(?s:.{{0,80}}){CLOCK} --> {CLOCK}", "a subtitle file (SRT)", "run spk-manifests srt on it"),
    (r"(SPEAKER|SPKR-INFO)\s", "an RTTM", "run spk-manifests rttm on it"),
)


class Kind(NamedTuple):
    """A kind of file, and what a user can do with it."""

    name: str
    repair: str


def kind_of(text: str, path: str | Path) -> Kind | None:
    """Identify a text file of an unexpected kind; None if unknown.

    >>> kind_of("utt1 S1 1.00 4.00", "segments").name
    'a Kaldi segments file'
    """
    head = text.lstrip("\ufeff \n\r\t")
    lines = [line for line in head.split("\n", 20)[:20] if line.strip()]
    for pattern, name, repair in MARKS:
        if re.match(pattern, head):
            return Kind(name, repair)
    for look in (_elan_text, _audacity, _stm, _uem, _segments, _ctm, _delimited):
        kind = look(lines, Path(path)) if lines else None
        if kind is not None:
            return kind
    return None


def check_kind(text: str, path: str | Path, name: str, expected: str) -> None:
    """Raise `InputError` if a text is of another kind that `kind_of` can identify."""
    kind = kind_of(text, path)
    if kind is not None:
        raise InputError(f"{name}: is {kind.name}, expected {expected}; {kind.repair}")


def _rttm(path: Path, program: str, times: str, speaker: str) -> str:
    """Return an awk command that converts a file to RTTM."""
    line = f'print "SPEAKER",{times},"<NA> <NA>",{speaker},"<NA> <NA>"}}'
    old, new = shlex.quote(str(path)), shlex.quote(f"{path.stem}.rttm")
    return f"convert it, awk -v OFMT=%.6f '{program}{line}' {old} > {new}"


def _name(path: Path) -> str:
    """Return the session's name, taken from the file name, as an awk string."""
    return '"' + re.sub(r"[^\w.-]", "_", path.stem) + '"'


def _numeric(fields: list[str], first: int, stop: int) -> bool:
    return len(fields) >= stop and all(re.fullmatch(NUMBER, x) for x in fields[first:stop])


def _elan_text(lines: list[str], path: Path) -> Kind | None:
    clocks = re.findall(rf"(?:^|\t){CLOCK}(?=\t|$)", lines[0])
    return Kind("tab-delimited text of ELAN", ELAN) if len(clocks) > 1 else None


def _audacity(lines: list[str], path: Path) -> Kind | None:
    if not re.fullmatch(rf"{NUMBER}\t{NUMBER}\t.*", lines[0]):
        return None
    program = 'BEGIN{FS="\\t"}{gsub(/ /,"_",$3);'
    times = f"{_name(path)},1,$1,$2-$1"
    return Kind("a label track of Audacity", _rttm(path, program, times, "$3"))


def _stm(lines: list[str], path: Path) -> Kind | None:
    rows = [line.split() for line in lines if not line.startswith(";;")]
    if not rows or not all(_numeric(row, 3, 5) and row[1] in "0123456789ABab" for row in rows):
        return None
    return Kind("an STM", _rttm(path, "!/^;;/{", "$1,$2,$4,$5-$4", "$3"))


def _uem(lines: list[str], path: Path) -> Kind | None:
    fields = lines[0].split()
    regions = len(fields) == 4 and _numeric(fields, 2, 4)
    channel = regions and fields[1] in ("0", "1", "2", "NA", "<NA>")
    if not regions or not (channel or path.suffix.lower() == ".uem"):
        return None
    return Kind("a UEM (regions to score, no turns)", "name the RTTM")


def _segments(lines: list[str], path: Path) -> Kind | None:
    fields = lines[0].split()
    if len(fields) != 4 or not _numeric(fields, 2, 4):
        return None
    return Kind("a Kaldi segments file", "run spk-manifests kaldi on its folder, with its utt2spk")


def _ctm(lines: list[str], path: Path) -> Kind | None:
    fields = lines[0].split()
    words = len(fields) in (5, 6) and _numeric(fields, 2, 4)
    return Kind("a CTM (words, no speakers)", "name the RTTM") if words else None


def _delimited(lines: list[str], path: Path) -> Kind | None:
    """Identify a delimited table by its header."""
    names = [cell.strip().strip('"').lower() for cell in re.split(r"[,;\t]", lines[0])]
    for columns, name, repair in (
        (("segment_id", "audio"), "a segment table", "name it where a command takes TABLE"),
        (("path", "label"), "a list of cut files", "run spk-manifests csv on it"),
        (("session", "speaker", "person"), "a list of persons", "name it with --identity"),
        (
            ("segment_id", "predicted", "score"),
            "a predictions table",
            "name the table whose segments it names",
        ),
        (
            ("start", "end", "speaker"),
            "a list of turns (start, end, speaker)",
            "run spk-manifests turns on it",
        ),
    ):
        if set(columns) <= set(names):
            return Kind(name, repair)
    return None
