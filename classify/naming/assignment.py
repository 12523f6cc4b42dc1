"""Which cluster gets which name, most probable as a whole.

Each pair of cluster and person has a gain: how far its log-probability (its score, without
calibration) lies above the threshold. Names are given so that the gains add up to the most; who
has none above 0 is unknown. Of two clusters that speak at once for longer than `allowed_together`
only one can have a name, since nobody speaks twice at a time; others may share it, since diarizers
divide people. Where no name may be shared this is the assignment problem (Kuhn, 1955); with
sharing it is a small integer program, solved exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .clusters import Spans, seconds_of

LEAST_TOGETHER, SHARE_TOGETHER = 0.5, 0.02  # s; share of the shorter cluster's speech
STRANGER, SHORT, MIXED, CONFLICT = "stranger", "short", "mixed", "conflict"


def allowed_together(a: Spans, b: Spans) -> float:
    """Return for how long (s) two clusters of one person may seem to speak at once."""
    return max(LEAST_TOGETHER, SHARE_TOGETHER * min(seconds_of(a), seconds_of(b)))


def rivals(
    clusters: Sequence[str],
    speech: Mapping[str, Spans],
    at_once: Mapping[tuple[str, str], float],
    same_name: str = "auto",
) -> list[tuple[int, int]]:
    """Return the pairs of clusters, by number, of which only one can have a name.

    `same_name`: ``never`` lets no two share one, ``always`` any, ``auto`` those that hardly speak
    at once.
    """
    pairs = [(i, k) for k in range(len(clusters)) for i in range(k)]
    if same_name != "auto":
        return pairs if same_name == "never" else []
    return [
        (i, k)
        for i, k in pairs
        if _at_once(clusters[i], clusters[k], at_once)
        >= allowed_together(speech[clusters[i]], speech[clusters[k]])
    ]


def _at_once(a: str, b: str, at_once: Mapping[tuple[str, str], float]) -> float:
    return at_once.get((a, b), at_once.get((b, a), 0.0))


def assign(gains: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return each cluster's person (n,) int; -1 where it has none.

    Parameters
    ----------
    gains : (n, P) float
        Only what is >= 0 can be given; NaN or less: it cannot.
    pairs
        Clusters that cannot share a name (`rivals`).

    Examples
    --------
    >>> assign(np.array([[2.0, 0.5], [1.0, -1.0]]), [(0, 1)])
    array([ 0, -1])
    >>> assign(np.array([[2.0, 1.5], [1.0, -1.0]]), [(0, 1)])
    array([1, 0])
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    named = np.full(len(gains), -1)
    rows, columns = np.nonzero(np.nan_to_num(gains, nan=-1.0) >= 0)
    if not len(rows):
        return named
    bounded = [rows == row for row in np.unique(rows)]  # one name each
    for i, k in pairs:
        both = np.intersect1d(columns[rows == i], columns[rows == k])
        bounded += [(columns == person) & ((rows == i) | (rows == k)) for person in both]
    matrix = coo_array(np.array(bounded, dtype=float))
    # the least more for a name than for none, so that a gain of 0 gives one
    result = milp(
        -(gains[rows, columns] + 1e-6),
        integrality=np.ones(len(rows)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix.tocsc(), -np.inf, 1),
    )
    given = np.flatnonzero(np.round(result.x) == 1)
    named[rows[given]] = columns[given]
    return named


def purity(best: np.ndarray, seconds: np.ndarray, person: int) -> float:
    """Return the share of a cluster's seconds (n,) whose own best person (n,) int is `person`."""
    return float(seconds[best == person].sum() / seconds.sum())


def number_unknown(seconds: Mapping[str, float]) -> dict[str, str]:
    """Return {cluster: ``unknown_1`` ...}, who speaks longest first.

    >>> number_unknown({"A": 3.0, "B": 9.0})
    {'B': 'unknown_1', 'A': 'unknown_2'}
    """
    order = sorted(seconds, key=lambda cluster: (-seconds[cluster], cluster))
    return {cluster: f"unknown_{number}" for number, cluster in enumerate(order, start=1)}
