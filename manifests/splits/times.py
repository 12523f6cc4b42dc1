"""Restore the times of cut files, from the table before the cut or from annotated turns.

A cut file begins at 0 s, so a table of cut files does not say when in its session a segment was
spoken, which every split in order of time needs. Such a table is joined with one that has the
times, by segment ids or by annotation lines.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...common.counts import counted
from ...common.errors import InputError

SAME_LENGTH = 0.1  # s; a cut rounds to samples, the thesis project's to milliseconds
TIMES = ("audio", "start", "end")
REPAIR = "pass the table that was cut, or its RTTMs"


def with_times(table: pd.DataFrame, times: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with the recordings and times of the same segments in `times`.

    Parameters
    ----------
    table
        Segment table of cut files.
    times
        Segment table of their sessions, with the same segment ids or, if none match, with the same
        sessions and lines.

    Raises
    ------
    InputError
        A segment is not in `times`, or has another length there.
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
