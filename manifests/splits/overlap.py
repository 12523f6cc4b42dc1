"""Who speaks when: which segments lie near each other, and when several people speak.

Promises: every answer is exact in the times as parsed (they are compared by rank, never rounded),
does not depend on the order of rows, and costs O(n log n) for n segments however they spread over
sessions and speakers. All times are seconds from the start of a recording (column `audio`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...common.errors import InputError

RECORDING = ("audio",)
SPEAKER = ("audio", "speaker")


def has_common_clock(table: pd.DataFrame) -> bool:
    """Return whether each session lies in one recording, so that its times can be compared."""
    return not len(_scattered(table))


def check_timeline(table: pd.DataFrame) -> None:
    """Raise `InputError` unless the times of each session can be compared with each other."""
    files = _scattered(table)
    if len(files):
        raise InputError(
            f"table: {len(files)} sessions lie in several audio files, first {files.index[0]!r} in "
            f"{int(files.iloc[0])}, expected one; use the table from before the cut, with its "
            "times (of split and leaks: --times TABLE)"
        )


def _scattered(table: pd.DataFrame) -> pd.Series:
    """Return the number of audio files of each session that has several."""
    files = table.groupby("session")["audio"].nunique()
    return files[files > 1]


def group_codes(table: pd.DataFrame, by: Sequence[str]) -> np.ndarray:
    """Return the group number (n,) int64 of each row, equal where the columns `by` are equal."""
    return table.groupby(list(by), sort=False).ngroup().to_numpy()


def count_neighbours(
    table: pd.DataFrame,
    asked: np.ndarray,
    among: np.ndarray,
    *,
    by: Sequence[str],
    gap: float | None = None,
) -> np.ndarray:
    """Count, for each asked segment, the segments of its group that lie near it.

    Parameters
    ----------
    table
        Segment table, n rows.
    asked, among
        (n,) bool: the segments that ask, and those that are counted. A segment in both counts
        itself.
    by
        Columns that make a group: `RECORDING` (anybody there) or `SPEAKER` (the same speaker).
    gap
        Greatest distance in s, >= 0, from end to start, itself included; None: the two must
        share audio.

    Returns
    -------
    ndarray
        (asked.sum(),) int64.
    """
    codes = group_codes(table, by)
    start, end = table["start"].to_numpy(), table["end"].to_numpy()
    reach = 0.0 if gap is None else gap
    times = (start[among], end[among], start[asked] - reach, end[asked] + reach)
    starts, ends, low, high = _keys(times, (codes[among],) * 2 + (codes[asked],) * 2)
    # Touching is a distance of 0, but no shared audio.
    sides = ("left", "right") if gap is None else ("right", "left")
    begun = np.searchsorted(np.sort(starts), high, side=sides[0])  # type: ignore[call-overload]
    over = np.searchsorted(np.sort(ends), low, side=sides[1])  # type: ignore[call-overload]
    return begun - over  # what is over has begun, so earlier groups cancel out


def _keys(times: Sequence[np.ndarray], codes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return integers that sort as (code, time) does."""
    values, ranks = np.unique(np.concatenate(times), return_inverse=True)
    keys = np.concatenate(codes) * len(values) + ranks
    return np.split(keys, np.cumsum([len(part) for part in times])[:-1])


@dataclass(frozen=True, eq=False)
class OverlapTimeline:
    """Each recording cut at every start and end of a segment (m = at most 4 n stretches)."""

    codes: np.ndarray  # (m,) int64, recording
    seconds: np.ndarray  # (m,) float64, length
    speakers: np.ndarray  # (m,) int64, how many different people speak
    first: np.ndarray  # (n,) int64, the stretch in which segment i starts
    stop: np.ndarray  # (n,) int64, the stretch that follows segment i's last

    def within(self, least: int) -> np.ndarray:
        """Return the time (n,) in s of each segment in which at least `least` people speak."""
        so_far = np.concatenate([[0.0], np.cumsum(self.seconds * (self.speakers >= least))])
        return so_far[self.stop] - so_far[self.first]

    def total(self, least: int, recordings: int) -> np.ndarray:
        """Return the time (recordings,) in s of each recording in which at least `least` speak."""
        weights = self.seconds * (self.speakers >= least)
        return np.bincount(self.codes, weights=weights, minlength=recordings)


def overlap_timeline(table: pd.DataFrame) -> OverlapTimeline:
    """Sweep over the recordings of a table and count who speaks between any two events."""
    check_timeline(table)
    code = group_codes(table, RECORDING)
    start, end = table["start"].to_numpy(), table["end"].to_numpy()
    own_code, own_start, own_end = _own_speech(table)
    # A segment inside its speaker's own longer one changes nobody's count, but is cut there too.
    times = np.concatenate([own_start, own_end, start, end])
    codes = np.concatenate([own_code, own_code, code, code])
    change = np.repeat([1, -1, 0, 0], [len(own_start), len(own_end), len(start), len(end)])
    order = np.lexsort((times, codes))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    times, codes = times[order], codes[order]
    seconds = np.diff(times, append=times[-1:])  # from one recording to the next nobody speaks
    speakers = np.cumsum(change[order])
    asked = place[2 * len(own_start) :]
    return OverlapTimeline(codes, seconds, speakers, asked[: len(start)], asked[len(start) :])


def _own_speech(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return recording, start and end of each speaker's speech, overlapping turns united."""
    recording, speaker = group_codes(table, RECORDING), group_codes(table, SPEAKER)
    start, end = table["start"].to_numpy(), table["end"].to_numpy()
    start_key, end_key = _keys((start, end), (speaker, speaker))
    order = np.argsort(start_key, kind="stable")
    reached = np.maximum.accumulate(end_key[order])
    new = np.ones(len(order), dtype=bool)
    new[1:] = start_key[order][1:] > reached[:-1]
    last = np.flatnonzero(np.append(new[1:], True)[: len(order)])
    # The end of a run is the greatest one in it: find the row that holds it by its key.
    by_end = np.argsort(end_key, kind="stable")
    holder = by_end[np.searchsorted(end_key[by_end], reached[last])]
    return recording[order][new], start[order][new], end[holder]
