"""Shared by the writers of annotations: turns of a table, milliseconds, names without blanks.

Turns are written in the order of session, start, end and speaker. Times in whole milliseconds are
rounded half up, and a turn that would then be empty is 1 ms long.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...common.errors import InputError
from .turns import Turn, check_turn

if TYPE_CHECKING:
    import pandas as pd


NEEDED = ("session", "speaker", "start", "end")
CHANNEL = re.compile(r"0*(\d{1,4})(?:\.0+)?")  # 1 becomes 1.0 in a column with gaps


class Span(NamedTuple):
    """Start and end in whole milliseconds."""

    start: int
    end: int


def turns_of(table: pd.DataFrame, where: str = "turns") -> list[Turn]:
    """Return the turns of a table, checked and in the order of writing.

    Parameters
    ----------
    table
        Columns session, speaker, start, end (s), and optionally channel (index from 0) and text.

    Raises
    ------
    InputError
        A column is missing, or a name or time cannot be written.
    """
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise InputError(f"{where}: columns {missing} are missing, found {list(table)}; add them")
    optional = {name: _texts(table, name) for name in ("channel", "text")}
    turns = []
    for row, values in enumerate(table[list(NEEDED)].itertuples(index=False, name=None)):
        session, speaker, start, end = values
        place = f"{where}, row {row + 1}"
        turns.append(
            check_turn(
                Turn(
                    *(str(session), str(speaker)),
                    *(_seconds(start, "start", place), _seconds(end, "end", place)),
                    *(row, place),
                    _channel(optional["channel"][row], place),
                    optional["text"][row],
                )
            )
        )
    return sorted(turns, key=lambda turn: (turn.session, turn.start, turn.end, turn.speaker))


def _texts(table: pd.DataFrame, name: str) -> list[str]:
    """Return a column as texts; "" if it is missing."""
    if name not in table:
        return [""] * len(table)
    return table[name].astype("object").where(table[name].notna(), "").map(str).tolist()


def _seconds(value: object, what: str, place: str) -> float:
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InputError(f"{place}: {what} is {value!r}, expected a finite number; correct it")
    return seconds + 0.0


def _channel(text: str, place: str) -> str:
    match = CHANNEL.fullmatch(text.strip())
    if text.strip() and match is None:
        raise InputError(
            f"{place}: channel is {text!r}, expected an index from 0, or nothing; correct it"
        )
    return match[1] if match else ""


def milliseconds(turn: Turn) -> Span:
    """Return a turn's times in whole milliseconds, rounded half up, the end after the start.

    >>> milliseconds(Turn("S1", "A", 0.0005, 0.0006, 0, "row 1"))
    Span(start=1, end=2)
    """
    start, end = (math.floor(seconds * 1000 + 0.5) for seconds in (turn.start, turn.end))
    return Span(start, max(end, start + 1))


def microseconds(turn: Turn) -> tuple[float, float]:
    """Return a turn's times (s) rounded to six decimal places, the end after the start."""
    start = round(turn.start, 6)
    return start, max(round(turn.end, 6), round(start + 1e-6, 6))


def decimal_seconds(value: float) -> str:
    """Return seconds with three to six decimal places.

    >>> decimal_seconds(1.5), decimal_seconds(35.8939)
    ('1.500', '35.8939')
    """
    text = f"{value:.6f}"
    return text[:-3] + text[-3:].rstrip("0")


def clock(milliseconds: int, point: str = ".") -> str:
    """Return milliseconds as ``HH:MM:SS.mmm``, always with hours.

    >>> clock(3723004, ",")
    '01:02:03,004'
    """
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{point}{rest:03}"


def without_blanks(turns: Sequence[Turn], form: str) -> list[Turn]:
    """Replace blanks in the turns' names by ``_``, for a format whose fields are split at blanks.

    Raises
    ------
    InputError
        Two sessions, or two speakers of a session, would get the same name.
    """
    check_equal_names((turn.session for turn in turns), "sessions", form)
    for session, spoken in by_session(turns):
        speakers = (turn.speaker for turn in spoken)
        check_equal_names(speakers, f"speakers of session {session!r}", form)
    return [
        turn._replace(session=underscored(turn.session), speaker=underscored(turn.speaker))
        for turn in turns
    ]


def underscored(name: str) -> str:
    """Return a name with ``_`` for each blank."""
    return re.sub(r"\s", "_", name)


def check_equal_names(
    names: Iterable[str],
    what: str,
    where: str,
    change: Callable[[str], str] = underscored,
    result: str = "written as {!r}, since blanks become '_'",
) -> None:
    """Raise `InputError` if `change` makes two names equal; `result` says what they would be."""
    changed: dict[str, str] = {}
    for name in names:
        other = changed.setdefault(change(name), name)
        if other != name:
            raise InputError(
                f"{where}: {what} {other!r} and {name!r} would both be "
                f"{result.format(change(name))}, expected different names; rename one"
            )


def without_overlap(turns: Iterable[Turn]) -> list[list[Turn]]:
    """Divide turns, sorted by start, into the fewest rows without overlaps."""
    rows: list[list[Turn]] = []
    for turn in turns:
        free = next((row for row in rows if row[-1].end <= turn.start), None)
        if free is None:
            rows.append([turn])
        else:
            free.append(turn)
    return rows


def by_session(turns: Iterable[Turn]) -> Iterator[tuple[str, list[Turn]]]:
    """Yield each session with its turns, in order."""
    groups: dict[str, list[Turn]] = {}
    for turn in turns:
        groups.setdefault(turn.session, []).append(turn)
    yield from groups.items()


def speakers_of(turns: Iterable[Turn]) -> dict[str, list[Turn]]:
    """Return ``{speaker: turns}``, in the order in which speakers first speak."""
    speakers: dict[str, list[Turn]] = {}
    for turn in turns:
        speakers.setdefault(turn.speaker, []).append(turn)
    return speakers
