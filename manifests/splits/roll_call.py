"""Find the roll call that opens an AISHELL-4 session: each speaker in turn says a number.

It is an enrolment sample, and must never be test data by accident. On the 18 real RTTMs and the
six simulated meetings at hand it is the opening run of turns up to the first one by somebody who
has spoken before. Every turn of that run is, by this definition, its speaker's first.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from .overlap import check_timeline

LATEST = 95.0  # s; where the latest roll call known in AISHELL-4 ends


def roll_call_mask(table: pd.DataFrame) -> np.ndarray:
    """Return which segments (n,) bool are the roll call of their session.

    A session has a roll call where its first turns are of at least two different people before
    anybody speaks again; only turns that start within the first `MAX_SECONDS` seconds are taken.
    Turns that were dropped from the table (they are often shorter than 1.5 s) cannot be found.

    Raises
    ------
    InputError
        A session lies in several audio files, so that nobody knows what opened it.
    """
    check_timeline(table)
    columns = ["session", "start", "end", "speaker", "segment_id"]
    ordered = table[columns].reset_index(drop=True).sort_values(columns, kind="stable")
    again = ordered.duplicated(["session", "speaker"])
    again &= ~ordered.duplicated(["session", "speaker", "start", "end"])  # on another channel
    opening = ~again.groupby(ordered["session"]).cummax().astype(bool)
    opening &= ordered["start"] < LATEST
    people = ordered["speaker"].where(opening).groupby(ordered["session"]).transform("nunique")
    return (opening & (people >= 2)).sort_index().to_numpy(dtype=bool)
