"""Read Praat TextGrids: one interval tier a speaker, an interval with a transcript is a turn.

Long and short text form, UTF-8 and UTF-16 (Praat manual, "TextGrid file formats"). Both forms are
the same sequence of numbers and quoted strings once labels such as ``xmin =`` and ``[3]`` are
passed over. An empty mark is silence; so is one that holds only AISHELL-4's non-lexical marks,
and those are counted. A tier that ends before its file does, the fault of two files of AISHELL-4,
is read as it is and noted. The session is the file's name without its suffix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..common.errors import InputError
from .annotation import (
    NUMBER,
    Note,
    Reading,
    Turn,
    check_turn,
    find_files,
    name_below,
    read_text,
)

NON_LEXICAL = ("<sil>", "<$>", "<>", "<%>", "<#>", "<->", "<_>", "&")
TOKEN = re.compile(r'"((?:[^"]|"")*)"|\[\d*\]|<exists>|<absent>|([^\s"\[\]]+)')
LONGEST_COUNT = 9  # digits; int() refuses thousands
TIER_END_SLACK = 0.01  # s; Praat writes a tier's and the file's end with different rounding


class Token(NamedTuple):
    """A quoted string (`quoted`) or a number, with its 1-based line."""

    text: str
    quoted: bool
    line: int


def read_textgrids(path: str | Path, *, skip_bad: bool = False) -> Reading:
    """Read one TextGrid, or all ``*.TextGrid`` below a folder.

    Parameters
    ----------
    path
        File or folder, searched recursively.
    skip_bad
        Drop bad intervals and unreadable files and note them, instead of stopping at the first.

    Returns
    -------
    Reading
        Turns tier by tier, times in seconds; `line` numbers the speech intervals of a file from 0.

    Raises
    ------
    InputError
        A file is no TextGrid, or an interval is bad (file and line number).
    """
    reading = Reading()
    for file in find_files(path, (".textgrid",)):
        name = name_below(path, file)
        try:
            reading.add(_Parser(file, name, skip_bad).read(), name)
        except InputError as problem:  # nothing of the file is kept
            reading.bad(problem, name, skip=skip_bad)
    return reading


def has_speech(mark: str) -> bool:
    """Return whether a mark holds more than blanks and non-lexical marks.

    >>> has_speech("<sil>"), has_speech("<$> & "), has_speech("嗯<sil>")
    (False, False, True)
    """
    for sign in NON_LEXICAL:
        mark = mark.replace(sign, "")
    return bool(mark.strip())


def _tokens(text: str) -> Iterator[Token]:
    line, seen = 1, 0
    for match in TOKEN.finditer(text):
        line += text.count("\n", seen, match.start())
        seen = match.start()
        if match[1] is not None:
            yield Token(match[1].replace('""', '"'), True, line)
        elif match[2] and NUMBER.fullmatch(match[2]):
            yield Token(match[2], False, line)


class _Parser:
    """One file's tokens, read in order into the turns of a `Reading`."""

    def __init__(self, file: Path, name: str, skip_bad: bool) -> None:
        self.session, self.name, self.skip_bad = file.stem, name, skip_bad
        self.reading = Reading()
        self.tokens = _tokens(read_text(file))
        self.ahead = next(self.tokens, None)
        self.line = 1
        self.count = 0  # speech intervals
        self.marks = 0  # intervals that hold only non-lexical marks

    def read(self) -> Reading:
        if (self._string(), self._string()) != ("ooTextFile", "TextGrid"):
            raise InputError(
                f"{self.name}, line 1: is not a TextGrid, expected "
                "'File type = \"ooTextFile\"'; save it as a text file in Praat"
            )
        _, end = self._number(), self._number()
        tiers = self._count()
        for _ in range(tiers):
            self._tier(end)
        if self.ahead is not None:
            raise InputError(
                f"{self.name}, line {self.ahead.line}: found {self.ahead.text[:40]!r} after "
                f"{tiers} tiers, expected the file's end; correct the number of tiers"
            )
        if self.marks:
            self._note("silence", f"{self.marks} intervals hold only non-lexical marks")
        return self.reading

    def _tier(self, file_end: float) -> None:
        kind, speaker = self._string(), self._string()
        _, tier_end = self._number(), self._number()
        size = self._count()
        if kind != "IntervalTier":
            self._note("ignored", f"tier {speaker!r} is a {kind} with {size} points, not speech")
            for _ in range(size):
                self._number(), self._string()
            return
        last = self._intervals(speaker, size)
        shortest = min(tier_end, last) if size else tier_end
        if shortest < file_end - TIER_END_SLACK:
            self._note(
                "repaired",
                f"tier {speaker!r} ends at {shortest:g} s, its file at {file_end:g} s; "
                "the rest is taken as silence",
            )

    def _intervals(self, speaker: str, size: int) -> float:
        """Read `size` intervals, or those there are before the next tier; return the last end."""
        last = 0.0
        for index in range(size):
            if self.ahead is None or self.ahead.quoted:
                self._note("repaired", f"tier {speaker!r} has {index} intervals, announced {size}")
                break
            last = self._interval(speaker)
        return last

    def _interval(self, speaker: str) -> float:
        start, end = self._number(), self._number()
        place = f"{self.name}, line {self.line}"
        mark = self._string()
        if not mark.strip():
            return end
        if not has_speech(mark):
            self.marks += 1
            return end
        turn = Turn(self.session, speaker, start, end, self.count, place)
        self.count += 1
        try:
            self.reading.turns.append(check_turn(turn))
        except InputError as problem:
            self.reading.bad(problem, place, skip=self.skip_bad)
        return end

    def _note(self, kind: str, message: str) -> None:
        self.reading.notes.append(Note(kind, self.name, message))

    def _number(self) -> float:
        return float(self._next(quoted=False))

    def _count(self) -> int:
        value = self._next(quoted=False)
        if not value.isdecimal() or len(value) > LONGEST_COUNT:
            raise InputError(
                f"{self.name}, line {self.line}: size is {value[:40]!r}, "
                "expected a whole number; correct the line"
            )
        return int(value)

    def _string(self) -> str:
        return self._next(quoted=True)

    def _next(self, *, quoted: bool) -> str:
        token, self.ahead = self.ahead, next(self.tokens, None)
        expected = "a quoted text" if quoted else "a number"
        if token is None:
            raise InputError(
                f"{self.name}: ends at line {self.line} where {expected} is expected; "
                "the file is cut short, take it from the corpus again"
            )
        self.line = token.line
        if token.quoted != quoted:
            raise InputError(
                f"{self.name}, line {token.line}: found {token.text[:40]!r}, "
                f"expected {expected}; correct the line"
            )
        return token.text
