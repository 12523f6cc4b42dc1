"""Read and write Praat TextGrids: an interval tier per speaker; an interval with text is a turn.

Long and short text form, UTF-8 and UTF-16 (Praat manual, "TextGrid file formats"). Both forms are
the same sequence of numbers and quoted strings once comments (``!`` to the end of the line), free
words such as ``xmin =`` and brackets such as ``[3]`` are skipped. The session is the file name
without its suffix. A tier that ends before its file does, as in two files of AISHELL-4, is read as
it is, with a note.

Which tiers are speakers: all interval tiers except those that an aligner names after their content.
Of MFA's ``A - words`` and ``A - phones``, the first holds the turns of speaker ``A`` and the second
is left out; a file with a tier called just ``words`` or ``phones``, which names nobody, is refused.
`tiers` overrides this, and tier names are then taken literally.

Which intervals are silence: empty marks, marks that hold only AISHELL-4's non-lexical marks, and
the aligners' marks in `SILENCE`, which `silence` replaces. They are counted.

Output is the long form in UTF-8, from 0 s to the last turn's end, with times unchanged. A turn
whose text contains no speech gets the mark ``speech``. Overlapping turns of one speaker go into
additional tiers of the same name, which are read as one speaker's.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from ...common.counts import agree, counted
from ...common.errors import InputError
from ...common.files import atomic_write
from ...common.names import normal_name
from ..text_files.decoding import PRAAT_TEXT, read_text
from ..text_files.kinds import check_kind
from .turns import NUMBER, Annotation, Note, Turn, check_turn, name_notes, read_files
from .writing import speakers_of, without_overlap

NON_LEXICAL = ("<sil>", "<$>", "<>", "<%>", "<#>", "<->", "<_>", "&")
SILENCE = ("sil", "sp", "spn", "<eps>", "h#", "pause")  # in any case: MFA, P2FA, Kaldi, TIMIT
WORDS = ("word", "words")
PHONES = ("phone", "phones", "phoneme", "phonemes", "syllable", "syllables")
ALIGNED = re.compile(rf"(\S|\S.*\S)\s+-\s+({'|'.join(WORDS + PHONES)})", re.IGNORECASE)
REST = r"[ \t]*(?:![^\n]*)?"  # of a line: blanks and a comment
HEADER = re.compile(
    rf'\s*(?:File type\s*=\s*)?"?ooTextFile(?: short)?"?{REST}\n\s*(?:![^\n]*\n\s*)*'
    rf'(?:Object class\s*=\s*)?(?:"([^"\n]*)"|(\w+)){REST}(?=\s|$)'
)
ONE_LINE = re.compile(r'\s*"ooTextFile(?: short)?"\s+"([^"\n]*)"()')
TOKEN = re.compile(r'"((?:[^"]|"")*)"|![^\n]*|\[\d*\]|<exists>|<absent>|([^\s"\[\]]+)|(")')
NEARLY_NUMBER = re.compile(r"[-+]?\.?\d")  # Praat reads 50%, 1/2 and 20s as numbers
OPEN = '"'  # token of an unterminated quoted text
LONGEST_COUNT = 9  # digits; int() refuses thousands
TIER_END_SLACK = 0.01  # s; Praat writes a tier's and the file's end with different rounding


class Token(NamedTuple):
    """A quoted string (`quoted`) or a number, with its 1-based line."""

    text: str
    quoted: bool
    line: int


@dataclass(frozen=True)
class Choice:
    """Which tiers are speakers (empty: see the module), and which marks are silence."""

    tiers: tuple[str, ...] = ()  # names or patterns (``*``, ``?``)
    silence: tuple[str, ...] = SILENCE

    def speaker(self, tier: str) -> str:
        """Return the speaker that a tier belongs to, or "" if it is not a speaker's."""
        if self.tiers:
            patterns = [normal_name(pattern) for pattern in self.tiers]
            chosen = tier in patterns or any(fnmatchcase(tier, pattern) for pattern in patterns)
            return tier if chosen else ""
        match = ALIGNED.fullmatch(tier)
        if match:
            return match[1] if match[2].lower() in WORDS else ""
        return "" if names_nobody(tier) else tier

    def is_silence(self, mark: str) -> bool:
        """Return whether a mark is one that aligners use for silence."""
        return mark.strip().lower() in {sign.strip().lower() for sign in self.silence}


def read_textgrid(
    path: str | Path,
    *,
    skip_bad: bool = False,
    tiers: Sequence[str] = (),
    silence: Sequence[str] = SILENCE,
) -> Annotation:
    """Read one TextGrid, or all ``*.TextGrid`` below a folder.

    Parameters
    ----------
    path
        File or folder, searched recursively.
    skip_bad
        Drop bad intervals and unreadable files, with a note each, instead of stopping at the first.
    tiers
        Names of the speakers' tiers, or patterns such as ``"* - words"``; empty: see the module.
    silence
        Further marks that mean silence, in any case, besides the empty one and AISHELL-4's.

    Returns
    -------
    Annotation
        Turns tier by tier, times in seconds; `line` numbers the speech intervals of a file from 0.

    Raises
    ------
    InputError
        A file is not a TextGrid, no tier is a speaker's, or an interval is bad.
    """
    choice = Choice(tuple(tiers), tuple(silence))
    return read_files(
        path,
        (".textgrid",),
        lambda file, name: _Parser(file, name, skip_bad, choice).read(),
        skip_bad=skip_bad,
    )


def write_textgrid(turns: Sequence[Turn], path: str | Path) -> None:
    """Write the turns of one session as a TextGrid: an interval tier per speaker."""
    last = max((turn.end for turn in turns), default=0.0)
    tiers = [
        (speaker, _intervals_of(row, last))
        for speaker, spoken in speakers_of(turns).items()
        for row in without_overlap(spoken)
    ]
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0"]
    lines += [f"xmax = {last!r}", "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (speaker, intervals) in enumerate(tiers, 1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"']
        lines += [f"        name = {_quoted(speaker)}", "        xmin = 0"]
        lines += [f"        xmax = {last!r}", f"        intervals: size = {len(intervals)}"]
        for place, (start, end, mark) in enumerate(intervals, 1):
            lines += [f"        intervals [{place}]:", f"            xmin = {start!r}"]
            lines += [f"            xmax = {end!r}", f"            text = {_quoted(mark)}"]
    atomic_write(path, ("\n".join(lines) + "\n").encode())


def _intervals_of(turns: Sequence[Turn], last: float) -> list[tuple[float, float, str]]:
    """Return the intervals of a tier from 0 to `last` (s): turns, and silence between them."""
    intervals, reached = [], 0.0
    for turn in turns:
        silent = not has_speech(turn.text) or Choice().is_silence(turn.text)
        intervals += [(reached, turn.start, "")] if reached < turn.start else []
        intervals.append((turn.start, turn.end, "speech" if silent else turn.text))
        reached = turn.end
    return [*intervals, (reached, last, "")] if reached < last else intervals


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def has_speech(mark: str) -> bool:
    """Return whether a mark has content other than blanks and non-lexical marks.

    >>> has_speech("<sil>"), has_speech("<$> & "), has_speech("嗯<sil>")
    (False, False, True)
    """
    for sign in NON_LEXICAL:
        mark = mark.replace(sign, "")
    return bool(mark.strip())


def names_nobody(tier: str) -> bool:
    """Return whether a tier's name is an aligner's generic one, such as ``words``.

    >>> names_nobody("Words"), names_nobody("A - words"), names_nobody("Anna")
    (True, False, False)
    """
    return _plain(tier) in WORDS + PHONES


def _plain(tier: str) -> str:
    return tier.strip('" ').lower()


def _tokens(text: str, start: int) -> Iterator[Token]:
    line, counted = 1, 0
    for match in TOKEN.finditer(text, start):
        line += text.count("\n", counted, match.start())
        counted = match.start()
        if match[1] is not None:
            yield Token(match[1].replace('""', '"'), True, line)
        elif match[2] and NEARLY_NUMBER.match(match[2]):
            yield Token(match[2], False, line)
        elif match[3]:
            yield Token(OPEN, False, line)


def _check_header(text: str, file: Path, name: str) -> int:
    """Return the offset of a TextGrid's content; raise `InputError` if it is another kind."""
    match = HEADER.match(text) or ONE_LINE.match(text)
    kind = (match[1] or match[2]) if match else ""
    if match and kind == "TextGrid":
        return match.end()
    if match:
        raise InputError(
            f"{name}, line 1: is a text file of Praat that holds a {kind[:40]}, not a TextGrid, "
            "expected a TextGrid; select the TextGrid alone in Praat, and choose Save > Save as "
            "text file..."
        )
    if "ooTextFile" not in text[:200]:
        check_kind(text, file, name, "a TextGrid")
    raise InputError(
        f"{name}, line 1: is not a TextGrid, expected 'File type = \"ooTextFile\"' and 'Object "
        f'class = "TextGrid"\'; {PRAAT_TEXT}'
    )


class _Parser:
    """Parser of one file: reads its tokens in order into an `Annotation`."""

    def __init__(self, file: Path, name: str, skip_bad: bool, choice: Choice) -> None:
        self.session, self.name, self.skip_bad = file.stem, name, skip_bad
        self.choice = choice
        self.annotation = Annotation()
        text = read_text(file)
        self.tokens = _tokens(text, _check_header(text, file, name))
        self.ahead = next(self.tokens, None)
        self.line = 1
        self.count = 0  # speech intervals
        self.marks = 0  # intervals with only non-lexical marks
        self.silent: Counter[str] = Counter()  # aligners' marks that were taken as silence
        self.speakers: dict[str, str] = {}  # {interval tier: speaker, or ""}

    def read(self) -> Annotation:
        begin, end = self._number(), self._number()
        tiers = self._count()
        for _ in range(tiers):
            self._tier(end)
        if self.ahead is not None:
            raise InputError(
                f"{self.name}, line {self.ahead.line}: found {self.ahead.text[:40]!r} after "
                f"{counted(tiers, 'tier')}, expected the file's end; correct the number of tiers"
            )
        self._check_speakers()
        self._note_choices(begin)
        return self.annotation

    def _check_speakers(self) -> None:
        """Raise `InputError` if a tier names nobody, or no tier matches `tiers`."""
        listed = ", ".join(map(repr, list(self.speakers)[:8]))
        if self.choice.tiers:
            if self.speakers and not any(self.speakers.values()):
                raise InputError(
                    f"{self.name}: tiers are {listed}, expected {', '.join(self.choice.tiers)}; "
                    "correct --tiers"
                )
            return
        nameless = [tier for tier in self.speakers if names_nobody(tier)]
        if nameless:
            words = [tier for tier in nameless if _plain(tier) in WORDS] or nameless
            raise InputError(
                f"{self.name}: tier {words[0]!r} (of {listed}) says what it contains, not who "
                f"speaks, expected a speaker's name; rename it in Praat, or say which tiers are "
                f"speakers', --tiers {shlex.quote(words[0])}"
            )

    def _note_choices(self, begin: float) -> None:
        """Note how tiers and marks were interpreted."""
        renamed = [f"{t!r} as {s!r}" for t, s in self.speakers.items() if s and s != t]
        left_out = [repr(tier) for tier, speaker in self.speakers.items() if not speaker]
        choices = [f"read {', '.join(renamed)}"] if renamed else []
        choices += [f"left out {', '.join(left_out)}"] if left_out else []
        if choices:
            self._note("tiers", f"tiers: {'; '.join(choices)}; --tiers chooses the speakers'")
        if self.marks:
            self._note(
                "silence", f"{counted(self.marks, 'interval', 'holds')} only non-lexical marks"
            )
        if self.silent:
            marks = ", ".join(f"{count} {mark!r}" for mark, count in self.silent.most_common(8))
            self._note("silence", f"taken as silence: {marks}; --silence sets the marks")
        if begin > TIER_END_SLACK:
            self._note(
                "offset", f"times begin at {begin:g} s, and are taken from the recording's start"
            )
        self.annotation.notes += name_notes("session", [self.session], self.name)

    def _tier(self, file_end: float) -> None:
        kind, written = self._string(), self._string()
        _, tier_end = self._number(), self._number()
        size = self._count()
        tier = normal_name(written)
        if kind != "IntervalTier":
            self._note(
                "ignored", f"tier {tier!r} is a {kind} with {counted(size, 'point')}, not speech"
            )
            for _ in range(size):
                self._number(), self._string()
            return
        self.annotation.notes += name_notes("tier", [written], self.name)
        if tier in self.speakers:
            self._note("tiers", f"2 tiers are called {tier!r}, and taken as one speaker's")
        self.speakers[tier] = self.choice.speaker(tier)
        last = self._intervals(tier, size)
        shortest = min(tier_end, last) if size else tier_end
        if shortest < file_end - TIER_END_SLACK:
            self._note(
                "repaired",
                f"tier {tier!r} ends at {shortest:g} s, its file at {file_end:g} s; "
                "the rest is taken as silence",
            )

    def _intervals(self, tier: str, size: int) -> float:
        """Read up to `size` intervals, stopping at the next tier; return the last end."""
        last, backwards = 0.0, 0
        for index in range(size):
            if self.ahead is None or self.ahead.quoted:
                self._note(
                    "repaired", f"tier {tier!r} has {counted(index, 'interval')}, announced {size}"
                )
                break
            start, end = self._interval(self.speakers[tier])
            backwards += index > 0 and start < last - TIER_END_SLACK
            last = end
        if backwards:
            self._note(
                "strange",
                f"tier {tier!r}: {counted(backwards, 'interval', 'begins')} before the one "
                f"before {agree(backwards, 'it', 'them')} ends, which Praat never writes",
            )
        return last

    def _interval(self, speaker: str) -> tuple[float, float]:
        """Read one interval; add a turn if the tier has a speaker and the mark is speech."""
        start, end = self._number(), self._number()
        place = f"{self.name}, line {self.line}"
        mark = self._string()
        if not mark.strip() or not speaker:
            return start, end
        if not has_speech(mark):
            self.marks += 1
        elif self.choice.is_silence(mark):
            self.silent[mark.strip()] += 1
        else:
            turn = Turn(self.session, speaker, start, end, self.count, place, text=mark)
            self.count += 1
            try:
                self.annotation.turns.append(check_turn(turn))
            except InputError as problem:
                self.annotation.drop_or_raise(problem, place, skip=self.skip_bad)
        return start, end

    def _note(self, kind: str, message: str) -> None:
        self.annotation.notes.append(Note(kind, self.name, message))

    def _number(self) -> float:
        text = self._next(quoted=False)
        if not NUMBER.fullmatch(text):
            raise InputError(
                f"{self.name}, line {self.line}: found {text[:40]!r}, expected a plain number; "
                "correct the line, or save the file again in Praat"
            )
        return float(text) + 0.0  # -0 is 0

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
        if token.text == OPEN and not token.quoted:
            raise InputError(
                f"{self.name}, line {token.line}: a quoted text has no end, expected another "
                "'\"'; correct the line, or take the file again where it was cut short"
            )
        if token.quoted != quoted:
            raise InputError(
                f"{self.name}, line {token.line}: found {token.text[:40]!r}, "
                f"expected {expected}; correct the line"
            )
        return token.text
