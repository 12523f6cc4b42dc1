"""Find the roll call that opens an AISHELL-4 session: each speaker in turn says a number.

It is an enrolment sample, and must never be test data by accident. In the 19 real RTTMs and the six
simulated meetings at hand, everybody answers, in 0.8 to 6.3 s, at most 4 s after the previous
answer. So an answer is a speaker's first short turn, and answers follow each other closely.
Somebody may speak twice meanwhile: short turns between two answers belong to the roll call too.
Long turns do not: before the answers they introduce the roll call, after the first they end it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .overlap import check_timeline

MAX_SECONDS = 95.0  # s; where the latest roll call known in AISHELL-4 ends
LONGEST = 8.0  # s, of an answer
PAUSE = 10.0  # s, at most, from one answer's end to the start of the next

Turn = tuple[float, float, str]  # start, end, speaker


def roll_call_mask(table: pd.DataFrame) -> np.ndarray:
    """Return which segments (n,) bool are the roll call of their session.

    A session has a roll call if at least two people answer; only turns that start within the first
    `MAX_SECONDS` seconds count. Turns that were dropped from the table (they are often shorter than
    1.5 s) cannot be found.

    Raises
    ------
    InputError
        A session has several audio files, so that its opening is unknown.
    """
    check_timeline(table)
    columns = (table[name].to_numpy() for name in ("session", "start", "end", "speaker"))
    by_session: dict[str, dict[Turn, list[int]]] = {}
    for row, (session, start, end, speaker) in enumerate(zip(*columns, strict=True)):
        # the same turn may occur once per channel
        turns = by_session.setdefault(str(session), {})
        turns.setdefault((float(start), float(end), str(speaker)), []).append(row)
    mask = np.zeros(len(table), dtype=bool)
    for turns in by_session.values():
        for turn in answered(sorted(turns)):
            mask[turns[turn]] = True
    return mask


def answered(turns: Sequence[Turn]) -> list[Turn]:
    """Return the turns of a session's roll call; none if fewer than two people answer.

    `turns` are in order of time.
    """
    opening: list[Turn] = []
    between: list[Turn] = []  # by people who have answered, since the last answer
    people: set[str] = set()
    latest = -np.inf  # end of an answer
    for start, end, speaker in turns:
        if start >= MAX_SECONDS or (people and start > latest + PAUSE):
            break
        if end - start > LONGEST:
            if people:
                break
            continue
        between.append((start, end, speaker))
        if speaker not in people:
            people.add(speaker)
            opening += between
            between, latest = [], max(end, latest)
    return opening if len(people) >= 2 else []
