"""Times of cut files come back from the table before the cut, or from turns of the annotation.

A cut file begins at 0 s, so a table of them does not say when in its session a segment was spoken,
which every split in order of time needs. It has the segments' ids, or their lines in the
annotation, and by these it is joined with a table that says when.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...common.counts import counted
from ...common.errors import InputError

SAME_LENGTH = 0.1  # s; a cut rounds to samples, the reference's to milliseconds
TIMES = ("audio", "start", "end")
REPAIR = "pass the table that was cut, or its RTTMs"


def with_times(table: pd.DataFrame, times: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with the recordings and times that `times` has of the same segments.

    Parameters
    ----------
    table
        Segment table of cut files.
    times
        Segment table of their sessions: with the same segment ids, or, where none is the same, with
        the same sessions and lines.

    Raises
    ------
    InputError
        A segment is not in `times`, or another length there.
    """
    keys = ["segment_id"]
    if not table["segment_id"].isin(times["segment_id"]).any() and "line" in table:
        keys = ["session", "line"]
    lacking = [key for key in keys if key not in times]
    if lacking:
        raise InputError(f"times: column {lacking[0]!r} is missing, expected it; {REPAIR}")
    by_key = times.drop_duplicates(keys).set_index(keys)[list(TIMES)]
    matched = by_key.reindex(pd.MultiIndex.from_frame(table[keys]) if keys[1:] else table[keys[0]])
    _check_found(table, matched["start"].isna().to_numpy(), "has", "no times")
    length = (table["end"] - table["start"]).to_numpy()
    other = np.abs((matched["end"] - matched["start"]).to_numpy() - length) > SAME_LENGTH
    _check_found(table, other, "has", "another length there")
    return table.assign(**{name: matched[name].to_numpy() for name in TIMES})


def _check_found(table: pd.DataFrame, wrong: np.ndarray, verb: str, what: str) -> None:
    if wrong.any():
        raise InputError(
            f"times: {counted(wrong.sum(), 'segment', verb, of=len(table))} {what}, first "
            f"{table['segment_id'].to_numpy()[wrong][0]!r}, expected all of them; {REPAIR}"
        )
