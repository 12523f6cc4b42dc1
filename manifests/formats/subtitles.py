"""Shared by SRT, WebVTT and timed text: cues with their times, and who speaks in them.

A cue is a line of times and the lines below it, up to a blank line or the next line of times;
numbers and ids before it are ignored. Hours may be missing, minutes and seconds have one or two
digits, and the decimal fraction after a point or comma has up to three digits.

Apart from WebVTT's voices, these formats do not say who speaks. `FORMS` lists what programs write
instead. A file uses one form: the first one that any of its cues has, or the requested one. A cue
without it gives no turn; two voices in one cue give two turns with its times. Speakers who are only
marked by a dash cannot be identified.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from ...common.errors import InputError
from ..text_files.decoding import read_text
from ..text_files.kinds import check_kind
from .turns import Annotation, Note, Turn, collect_turns, count_speakers, read_files

CLOCK = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
TIMES = re.compile(rf"\s*{CLOCK}\s*-->\s*{CLOCK}(?:\s.*)?")
SPAN = re.compile(rf"\[?\s*{CLOCK}\s*-->\s*{CLOCK}")  # how a line of times begins
START = re.compile(r"\[?\s*[\d:.,]+\s*-->")  # how one begins that may be wrong
ARROW = "-->"
MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
VOICE = re.compile(r"<v(?:\.[^\s<>.]*)*[ \t]+([^<>]*)>")
FORMS = {  # how a cue names its speaker; group 1 is the name
    "voice": VOICE,
    "brackets": re.compile(r"\s*\[(.+?)\]:(?=\s|$)"),  # WhisperX
    "number": re.compile(r"\s*\(speaker ([0-9]+)\)"),  # whisper.cpp
    "colon": re.compile(r"\s*(?:-\s*)?([^\W_][^:：<>\[\](){},;!?\"]{0,39})[:：](?=\s|$)"),
}


def plain_text(block: str) -> str:
    """Return text without markup and entities, keeping its lines.

    >>> plain_text("<i>Tom &amp; <00:01.000>Ann</i>")
    'Tom & Ann'
    """
    return html.unescape(MARKUP.sub("", block))


class CueFormat(NamedTuple):
    """What distinguishes one format of cues from another."""

    title: str  # for messages
    times: re.Pattern[str] = TIMES  # a line of times in eight groups; a ninth is text on that line
    clean: Callable[[str], str] = plain_text  # turns a cue's lines into plain text
    check: Callable[[str, Path, str], None] | None = None  # raises if a text is of another kind


def read_cue_files(
    path: str | Path, suffix: str, kind: CueFormat, *, form: str, skip_bad: bool
) -> Annotation:
    """Read one file of cues, or all with the suffix below a folder, as `read_cues` does."""
    return read_files(
        path,
        (suffix,),
        lambda file, name: read_cues(file, name, kind, form=form, skip_bad=skip_bad),
        skip_bad=skip_bad,
    )


def read_cues(file: Path, name: str, kind: CueFormat, *, form: str, skip_bad: bool) -> Annotation:
    """Read a file of cues, called `name` in messages; `form` is one of `FORMS` or "any".

    Raises
    ------
    InputError
        It is another kind of file, or a cue is bad.
    """
    text = read_text(file)
    if kind.check is not None:
        kind.check(text, file, name)
    rows = [*_blocks(text, kind.times)]
    if not rows and text.strip() and kind.check is None:
        check_kind(text, file, name, kind.title)
        raise InputError(
            f"{name}: holds no line of times, expected {kind.title} with HH:MM:SS --> HH:MM:SS; "
            "name a file with times"
        )
    chosen = form if form != "any" else _form_of([block for _, _, block in rows], kind.clean)
    annotation = collect_turns(
        [
            (line, speech)
            for line, times, block in rows
            for speech in _spoken(times, block, chosen, kind.clean)
        ],
        lambda speech, line, place: _turn(speech, file.stem, line, place),
        name,
        skip_bad=skip_bad,
    )
    annotation.notes += _speaker_note(annotation, chosen, name)
    return annotation


def _blocks(text: str, times: re.Pattern[str]) -> Iterator[tuple[int, str, str]]:
    """Yield for each cue (0-based line, line of times, lines below it joined)."""
    lines = text.split("\n")
    starts = [line for line, row in enumerate(lines) if ARROW in row and _is_times(row, times)]
    for start, stop in pairwise([*starts, len(lines)]):
        match = times.fullmatch(lines[start])
        block = [match[9]] if match is not None and times.groups == 9 else []
        for line in range(start + 1, stop):
            if not lines[line].strip():
                break
            if line == stop - 1 and stop < len(lines) and lines[line].strip().isdecimal():
                break  # the next cue's number, without a blank line before it
            block.append(lines[line].strip())
        yield start, lines[start], "\n".join(filter(None, block))


def _is_times(row: str, times: re.Pattern[str]) -> bool:
    """Return whether a line with an arrow is meant as a line of times, right or wrong."""
    return times.fullmatch(row) is not None or START.match(row.strip()) is not None


def _form_of(blocks: Sequence[str], clean: Callable[[str], str]) -> str:
    """Return the first form that any cue has, or "colon" if none has any."""
    for form in FORMS:
        if any(_named(block, form, clean) for block in blocks):
            return form
    return "colon"


def _named(block: str, form: str, clean: Callable[[str], str]) -> re.Match[str] | None:
    if form == "voice":
        return VOICE.search(block)
    if form == "brackets" and (match := FORMS[form].match(block)):
        return match
    return FORMS[form].match(clean(block))


def _spoken(
    times: str, block: str, form: str, clean: Callable[[str], str]
) -> Iterator[tuple[str, str, str]]:
    """Yield (line of times, speaker, text) for each speaker of a cue."""
    match = _named(block, form, clean)
    if match is None:
        yield times, "", clean(block)
    elif form != "voice":
        yield times, match[1], clean(match.string[match.end() :])
    else:
        voices = [*VOICE.finditer(block)]
        ends = [voice.start() for voice in voices[1:]] + [len(block)]
        for voice, end in zip(voices, ends, strict=True):
            yield times, html.unescape(voice[1]), clean(block[voice.end() : end])


def _turn(speech: tuple[str, str, str], session: str, line: int, place: str) -> Turn:
    times, speaker, text = speech
    match = SPAN.match(times.strip())
    if match is None:
        raise InputError(
            f"{place}: times are {times.strip()[:60]!r}, expected HH:MM:SS,mmm --> HH:MM:SS,mmm; "
            "correct the line"
        )
    start, end = _seconds(*match.groups()[:4]), _seconds(*match.groups()[4:])
    return Turn(session, speaker, start, end, line, place, text=text)


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    return float(f"{whole}.{fraction or 0}")


def _speaker_note(annotation: Annotation, form: str, name: str) -> list[Note]:
    """Return a note on who was identified as a speaker, if the format itself does not say."""
    if form == "voice" or not annotation.turns:
        return []
    speakers = count_speakers(annotation.turns)
    message = f"speakers, by the form {form!r}: {speakers}; --speakers chooses the form"
    return [Note("speakers", name, message)]


def in_brackets(turns: Sequence[Turn], form: str) -> Iterator[tuple[Turn, str]]:
    """Yield each turn with its text as ``[speaker]: text``.

    Raises
    ------
    InputError
        A speaker's name would not be read back correctly.
    """
    for turn in turns:
        line = f"[{turn.speaker}]: {turn.text}".rstrip()
        match = FORMS["brackets"].match(line)
        if match is None or match[1] != turn.speaker:
            raise InputError(
                f"{form}: speaker is {turn.speaker!r}, expected a name without ']: '; rename it"
            )
        yield turn, line
