"""Which segments lie near each other, and when several people speak at once.

Every result is exact for the times as parsed (they are compared by rank, never rounded), does not
depend on the order of rows, and takes O(n log n) for n segments however they spread over sessions
and speakers. All times are seconds from the start of a recording (column `audio`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...common.counts import counted
from ...common.errors import InputError

RECORDING = ("audio",)
SPEAKER = ("audio", "speaker")


def has_common_clock(table: pd.DataFrame) -> bool:
    """Return whether each session has a single recording, so that its times are comparable."""
    return not len(_scattered(table))


def check_timeline(table: pd.DataFrame) -> None:
    """Raise `InputError` unless the times within each session are comparable."""
    files = _scattered(table)
    if len(files):
        raise InputError(
            f"table: {counted(len(files), 'session', 'lies')} in several audio files, first "
            f"{files.index[0]!r} in {int(files.iloc[0])}, expected one; use the table from before "
            "the cut, with its times (of split and leaks: --times TABLE)"
        )


def _scattered(table: pd.DataFrame) -> pd.Series:
    """Return the number of audio files of each session that has several."""
    files = table.groupby("session")["audio"].nunique()
    return files[files > 1]


def group_codes(table: pd.DataFrame, by: Sequence[str]) -> np.ndarray:
    """Return each row's group number (n,) int64; rows equal in the columns `by` share one."""
    return table.groupby(list(by), sort=False).ngroup().to_numpy()


def count_neighbours(
    table: pd.DataFrame,
    targets: np.ndarray,
    among: np.ndarray,
    *,
    by: Sequence[str],
    gap: float | None = None,
) -> np.ndarray:
    """Count, for each target segment, the segments of its group that lie near it.

    Parameters
    ----------
    table
        Segment table, n rows.
    targets, among
        (n,) bool: the segments to count for, and those to be counted. A segment in both counts
        itself.
    by
        Columns that define a group: `RECORDING` (any speaker) or `SPEAKER` (the same speaker).
    gap
        Greatest distance in s, >= 0, from end to start, inclusive; None: the segments must share
        audio.

    Returns
    -------
    ndarray
        (targets.sum(),) int64.
    """
    codes = group_codes(table, by)
    start, end = table["start"].to_numpy(), table["end"].to_numpy()
    reach = 0.0 if gap is None else gap
    times = (start[among], end[among], start[targets] - reach, end[targets] + reach)
    starts, ends, low, high = _keys(times, (codes[among],) * 2 + (codes[targets],) * 2)
    # Touching segments are at distance 0 but share no audio.
    sides = ("left", "right") if gap is None else ("right", "left")
    begun = np.searchsorted(np.sort(starts), high, side=sides[0])  # type: ignore[call-overload]
    over = np.searchsorted(np.sort(ends), low, side=sides[1])  # type: ignore[call-overload]
    return begun - over  # whatever is over has also begun, so earlier groups cancel out


def _keys(times: Sequence[np.ndarray], codes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return integers that sort like (code, time)."""
    values, ranks = np.unique(np.concatenate(times), return_inverse=True)
    keys = np.concatenate(codes) * len(values) + ranks
    return np.split(keys, np.cumsum([len(part) for part in times])[:-1])


@dataclass(frozen=True, eq=False)
class OverlapTimeline:
    """Recordings divided at every start and end of a segment, into m <= 4 n stretches."""

    codes: np.ndarray  # (m,) int64, recording
    seconds: np.ndarray  # (m,) float64, length
    speakers: np.ndarray  # (m,) int64, number of people speaking
    first: np.ndarray  # (n,) int64, the stretch in which segment i starts
    stop: np.ndarray  # (n,) int64, the stretch after segment i's last

    def within(self, least: int) -> np.ndarray:
        """Return, per segment (n,), the time in s during which at least `least` people speak."""
        so_far = np.concatenate([[0.0], np.cumsum(self.seconds * (self.speakers >= least))])
        return so_far[self.stop] - so_far[self.first]

    def total(self, least: int, recordings: int) -> np.ndarray:
        """Return, per recording, the time in s during which at least `least` people speak."""
        weights = self.seconds * (self.speakers >= least)
        return np.bincount(self.codes, weights=weights, minlength=recordings)


def overlap_timeline(table: pd.DataFrame) -> OverlapTimeline:
    """Sweep over a table's recordings and count the speakers between successive events."""
    check_timeline(table)
    code = group_codes(table, RECORDING)
    start, end = table["start"].to_numpy(), table["end"].to_numpy()
    own_code, own_start, own_end = _own_speech(table)
    # A segment inside a longer one of the same speaker does not change the count, but its ends
    # divide the timeline as well.
    times = np.concatenate([own_start, own_end, start, end])
    codes = np.concatenate([own_code, own_code, code, code])
    change = np.repeat([1, -1, 0, 0], [len(own_start), len(own_end), len(start), len(end)])
    order = np.lexsort((times, codes))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    times, codes = times[order], codes[order]
    seconds = np.diff(times, append=times[-1:])  # nobody speaks between recordings
    speakers = np.cumsum(change[order])
    stretches = place[2 * len(own_start) :]
    return OverlapTimeline(
        codes, seconds, speakers, stretches[: len(start)], stretches[len(start) :]
    )


def _own_speech(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return recording, start and end of each speaker's speech, with overlapping turns merged."""
    recording, speaker = group_codes(table, RECORDING), group_codes(table, SPEAKER)
    start, end = table["start"].to_numpy(), table["end"].to_numpy()
    start_key, end_key = _keys((start, end), (speaker, speaker))
    order = np.argsort(start_key, kind="stable")
    reached = np.maximum.accumulate(end_key[order])
    new = np.ones(len(order), dtype=bool)
    new[1:] = start_key[order][1:] > reached[:-1]
    last = np.flatnonzero(np.append(new[1:], True)[: len(order)])
    # A run ends at its greatest end: find that row by its key.
    by_end = np.argsort(end_key, kind="stable")
    holder = by_end[np.searchsorted(end_key[by_end], reached[last])]
    return recording[order][new], start[order][new], end[holder]
