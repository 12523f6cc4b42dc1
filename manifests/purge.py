"""Take out of a split what would leak from one part into another, and count it.

Two segments of one recording leak when they share audio (the same samples would be learnt and
asked for) or lie at most `gap` seconds apart (one utterance cut in two, one breath of noise),
whoever speaks in them. The opening roll call never is test data. A purged segment gets the split
'' and keeps its row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..common.errors import InputError
from .rollcall import roll_call_mask
from .timeline import RECORDING, check_timeline, neighbours

# (who gives way, to whom), in order. Either test stays whole, or training (an enrolment) does.
KEEP_TEST = (("valid", ("test",)), ("train", ("valid", "test")))
KEEP_TRAIN = (("valid", ("train",)), ("test", ("train", "valid")))

Order = Sequence[tuple[str, tuple[str, ...]]]


def purge(
    table: pd.DataFrame, splits: np.ndarray, *, gap: float, order: Order
) -> tuple[np.ndarray, dict[str, int]]:
    """Empty the splits of segments that leak, and of the roll call where it is test data.

    Parameters
    ----------
    table
        Segment table, n rows.
    splits
        (n,) str: train, valid, test or ''.
    gap
        Distance in s, >= 0, up to which two segments are too near.
    order
        `KEEP_TEST` or `KEEP_TRAIN`: which part gives way.

    Returns
    -------
    tuple
        The new splits (n,) and how many segments were purged, by reason.

    Raises
    ------
    InputError
        `gap` is negative, or the times of a session cannot be compared.
    """
    if not gap >= 0:
        raise InputError(f"gap: is {gap:g} s, expected >= 0; correct it")
    check_timeline(table)
    splits = splits.copy()
    opening = roll_call_mask(table) & (splits == "test")
    splits[opening] = ""
    counts = {"roll call": int(opening.sum()), "shared audio": 0, "too near": 0}
    for victim, winners in order:
        asked, among = splits == victim, np.isin(splits, winners)
        shared = neighbours(table, asked, among, by=RECORDING) > 0
        near = neighbours(table, asked, among, by=RECORDING, gap=gap) > 0
        splits[np.flatnonzero(asked)[near]] = ""  # sharing audio is a distance of 0
        counts["shared audio"] += int(shared.sum())
        counts["too near"] += int((near & ~shared).sum())
    return splits, counts
