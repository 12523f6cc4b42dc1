"""Leakage between the parts of a split: purging it, and reporting it.

Two segments of a recording leak if they share audio (the same samples would be trained and tested
on) or lie at most `gap` seconds apart (one utterance cut in two, the same background noise),
whoever speaks in them. The opening roll call is never test data. A purged segment gets the split ''
and keeps its row.

The report gives, per session and overall, the share of test segments with a training segment of the
same speaker at most 0.5, 2, 10 or 60 s away (end to start, in the same recording); the share that
shares audio with a training segment of another speaker; and, as a control, the share whose exact
stretch of audio (to 0.1 ms, as in segment ids) is in training under any name. Purged and validation
segments are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...common.counts import counted
from ...common.errors import InputError
from .overlap import RECORDING, SPEAKER, check_timeline, count_neighbours
from .roll_call import roll_call_mask

# (which part gives way, to which), in order: either test or training (an enrolment) stays intact.
KEEP_TEST = (("valid", ("test",)), ("train", ("valid", "test")))
KEEP_TRAIN = (("valid", ("train",)), ("test", ("train", "valid")))

Order = Sequence[tuple[str, tuple[str, ...]]]


def purge_leaks(
    table: pd.DataFrame, splits: np.ndarray, *, gap: float, order: Order
) -> tuple[np.ndarray, dict[str, int]]:
    """Clear the split of segments that leak, and of roll-call segments in test.

    Parameters
    ----------
    table
        Segment table, n rows.
    splits
        (n,) str: train, valid, test or ''.
    gap
        Distance in s, >= 0, up to which two segments are too close.
    order
        `KEEP_TEST` or `KEEP_TRAIN`: which part gives way.

    Returns
    -------
    tuple
        The new splits (n,), and the number of purged segments by reason.

    Raises
    ------
    InputError
        `gap` is negative, or the times of a session are not comparable.
    """
    if not gap >= 0:
        raise InputError(f"gap: is {gap:g} s, expected >= 0; correct it")
    check_timeline(table)
    splits = splits.copy()
    opening = roll_call_mask(table) & (splits == "test")
    splits[opening] = ""
    counts = {"roll call": int(opening.sum()), "shared audio": 0, "too near": 0}
    for victim, winners in order:
        candidates, among = splits == victim, np.isin(splits, winners)
        shared = count_neighbours(table, candidates, among, by=RECORDING) > 0
        near = count_neighbours(table, candidates, among, by=RECORDING, gap=gap) > 0
        splits[np.flatnonzero(candidates)[near]] = ""  # sharing audio is a distance of 0
        counts["shared audio"] += int(shared.sum())
        counts["too near"] += int((near & ~shared).sum())
    return splits, counts


DISTANCES = (0.5, 2.0, 10.0, 60.0)  # s


def leakage_report(table: pd.DataFrame) -> pd.DataFrame:
    """Return the leakage report of a table with a column `split`.

    Returns
    -------
    DataFrame
        One row per session with test segments, in order of name, and a last row "all": `session`,
        `train` and `test` (numbers of segments), then shares of the test segments, 0..1:
        `within_0.5`, `within_2`, `within_10`, `within_60` (s, same speaker), `shared` (audio, with
        another speaker) and `identical` (stretch of audio).

    Raises
    ------
    InputError
        There is no column `split` or no test segment, or times are not comparable.
    """
    if "split" not in table:
        raise InputError("table: column 'split' is missing; run spk-manifests split first")
    test = (table["split"] == "test").to_numpy()
    if not test.any():
        raise InputError(
            f"table: {counted(0, 'segment', 'is', of=len(table))} test, expected some; split it "
            "otherwise"
        )
    check_timeline(table)
    leaks = _leaks_by_segment(table, test, (table["split"] == "train").to_numpy())
    leaks.insert(0, "session", table["session"].to_numpy()[test])
    sums = leaks.groupby("session", sort=True).mean().reset_index()
    total = {"session": "all", **leaks.drop(columns="session").mean().to_dict()}
    report = pd.concat([sums, pd.DataFrame([total])], ignore_index=True)
    for name in ("test", "train"):
        count = table["session"][table["split"] == name].value_counts()
        numbers = report["session"].map(count).fillna(0).astype(int)
        numbers.iloc[-1] = int(count.sum())
        report.insert(1, name, numbers)
    return report


def _leaks_by_segment(table: pd.DataFrame, test: np.ndarray, train: np.ndarray) -> pd.DataFrame:
    """Return, for each test segment in row order, which kinds of leak it has (bool)."""
    columns = {
        f"within_{distance:g}": count_neighbours(table, test, train, by=SPEAKER, gap=distance) > 0
        for distance in DISTANCES
    }
    anybody = count_neighbours(table, test, train, by=RECORDING)
    columns["shared"] = anybody > count_neighbours(table, test, train, by=SPEAKER)
    audio = pd.MultiIndex.from_arrays(
        [table["audio"], table["start"].round(4), table["end"].round(4)]
    )
    columns["identical"] = audio[test].isin(audio[train])
    return pd.DataFrame(columns)
