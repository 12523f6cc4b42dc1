"""What a number format costs in names: a ridge classifier on features of both formats.

Within each session, segments in the order of time are cut into `BLOCKS` equal runs, and each is
named by a classifier that learnt from the others. Only the difference of the two formats is of
interest: the same segments, folds and penalty serve both. `spk-classify` measures accuracy itself.
Who learns has none of the time that is named, and nothing of the split ``test`` is looked at.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from .audio import Segment

BLOCKS = 3
FEWEST = 30  # segments named, below which nothing is told
NORMAL = 1.959964  # quantile of the normal distribution for an interval of 95 %


def draw(
    segments: Sequence[Segment], count: int, names: dict[str, tuple[str, str]] | None
) -> list[Segment]:
    """Return so many random segments; with `names` session after session, for `Naming`."""
    drawn = random.Random(0).sample(list(segments), len(segments))  # noqa: S311
    if names is None:
        return drawn[:count]
    by_session: dict[str, list[Segment]] = {}
    for one in drawn:
        if one.segment_id in names:
            by_session.setdefault(names[one.segment_id][0], []).append(one)
    others = [one for one in drawn if one.segment_id not in names]
    return [*chain(*by_session.values()), *others][:count]


class Naming:
    """Segments with their sessions and speakers, ready to be named from features.

    Parameters
    ----------
    segments
        Those that have features, in the order of the rows.
    names
        segment_id -> (session, speaker); a segment that is not there is not named.

    Attributes
    ----------
    told
        What was named, or why too little can be, in one line.
    """

    def __init__(self, segments: Sequence[Segment], names: dict[str, tuple[str, str]]) -> None:
        self._speakers = np.array([names.get(one.segment_id, ("", ""))[1] for one in segments])
        by_session: dict[str, list[int]] = {}
        for place, one in enumerate(segments):
            if one.segment_id in names:
                by_session.setdefault(names[one.segment_id][0], []).append(place)
        self._folds = [
            fold
            for _, places in sorted(by_session.items())
            for fold in _folds(segments, np.array(places), self._speakers)
        ]
        count = sum(len(test) for _, test in self._folds)
        self.enough = count >= FEWEST
        self.told = (
            f"accuracy: {count} of {len(segments)} segments named by ridge within their session, "
            f"in {BLOCKS} blocks of time, without the split test; only the difference counts; "
            "intervals of 95 % take segments as independent"
        )
        if not self.enough:
            self.told = (
                f"accuracy: {count} of {len(segments)} segments can be named, too few to compare, "
                f"expected at least {FEWEST} (outside the split test, in sessions with speakers in "
                "several blocks of time); "
                "pass a larger --verify"
            )

    def right(self, rows: np.ndarray) -> np.ndarray:
        """Return which segments features (n, dim) name rightly, fold by fold: (named,) bool."""
        from sklearn.linear_model import RidgeClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        found = []
        for train, test in self._folds:
            model = make_pipeline(StandardScaler(), RidgeClassifier())
            model.fit(rows[train], self._speakers[train])
            found.append(model.predict(rows[test]) == self._speakers[test])
        return np.concatenate(found)

    def compare(self, found: np.ndarray, exact: np.ndarray) -> str:
        """Return the accuracies of one layer's features (n, dim) in two formats, and their gap."""
        narrow, wide = self.right(found), self.right(exact)
        gap, low, high = paired_interval(narrow, wide)
        return (
            f"accuracy {narrow.mean():.3f}, in float32 {wide.mean():.3f} (difference {gap:+.3f}, "
            f"{low:+.3f} to {high:+.3f})"
        )


def paired_interval(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Return the difference of two paired shares (n,) bool, and its interval of 95 %.

    Source: Agresti and Min 2005, the Wald interval with half a pair added to each of four cells;
    it has a width also where no pair differs.
    """
    gains, losses = int((one & ~other).sum()) + 0.5, int((other & ~one).sum()) + 0.5
    count = len(one) + 2
    middle = (gains - losses) / count
    half = NORMAL * np.sqrt(gains + losses - (gains - losses) ** 2 / count) / count
    return float(one.mean() - other.mean()), middle - half, middle + half


def _folds(
    segments: Sequence[Segment], places: np.ndarray, speakers: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield places (train, test) of a session's blocks; who is not in train is not tested."""
    starts = np.array([segment.start for segment in segments])
    blocks = np.array_split(places[np.argsort(starts[places], kind="stable")], BLOCKS)
    for place, block in enumerate(blocks):
        others = np.concatenate(blocks[:place] + blocks[place + 1 :])
        train = others[~_overlapping(segments, others, block)]
        test = block[np.isin(speakers[block], speakers[train])]
        if len(test) and len(set(speakers[train])) > 1:
            yield train, test


def _overlapping(segments: Sequence[Segment], one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return which of `one` (n,) share time of a recording with any of `other` (m,): (n,) bool."""
    path, start, end = (
        np.array([getattr(segment, name) for segment in segments])
        for name in ("path", "start", "end")
    )
    same = path[one, None] == path[other]
    return (same & (start[one, None] < end[other]) & (end[one, None] > start[other])).any(axis=1)
