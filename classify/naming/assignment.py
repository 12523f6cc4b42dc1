"""Assign names to clusters so that the assignment as a whole is the most probable.

Each pair of cluster and person has a gain: how far its log-probability (without calibration, its
score) lies above the threshold. Names are assigned so that the sum of gains is largest; a cluster
whose gains are all below 0 is unknown. Nobody speaks twice at once, so of two clusters that speak
at the same time for longer than `allowed_together` only one can have a given name; other clusters
may share a name, since diarizers split people. If no name may be shared, this is the assignment
problem (Kuhn, 1955); with sharing it is a small integer program, solved exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .clusters import Spans, seconds_of

LEAST_TOGETHER, SHARE_TOGETHER = 0.5, 0.02  # s; share of the shorter cluster's speech
STRANGER, SHORT, MIXED, CONFLICT = "stranger", "short", "mixed", "conflict"


def allowed_together(a: Spans, b: Spans) -> float:
    """Return for how long (s) two clusters of one person may appear to speak at once."""
    return max(LEAST_TOGETHER, SHARE_TOGETHER * min(seconds_of(a), seconds_of(b)))


def rivals(
    clusters: Sequence[str],
    speech: Mapping[str, Spans],
    at_once: Mapping[tuple[str, str], float],
    same_name: str = "auto",
) -> list[tuple[int, int]]:
    """Return the pairs of clusters, as indices, that cannot share a name.

    With `same_name` ``never``, no two can share one; with ``always``, any can; with ``auto``, those
    that hardly speak at once.
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
    """Return each cluster's person (n,) int; -1 if it has none.

    Parameters
    ----------
    gains : (n, P) float
        Only gains >= 0 are assigned, never NaN.
    pairs
        Pairs of clusters that cannot share a name (`rivals`).

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
    bounded = [rows == row for row in np.unique(rows)]  # at most one name each
    for i, k in pairs:
        both = np.intersect1d(columns[rows == i], columns[rows == k])
        bounded += [(columns == person) & ((rows == i) | (rows == k)) for person in both]
    matrix = coo_array(np.array(bounded, dtype=float))
    # a name is worth slightly more than none, so that a gain of 0 assigns one
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
    """Return the share of a cluster's seconds (n,) with `person` as the best person (n,) int."""
    return float(seconds[best == person].sum() / seconds.sum())


def number_unknown(seconds: Mapping[str, float]) -> dict[str, str]:
    """Return {cluster: ``unknown_1`` ...}, in order of falling speaking time.

    >>> number_unknown({"A": 3.0, "B": 9.0})
    {'B': 'unknown_1', 'A': 'unknown_2'}
    """
    order = sorted(seconds, key=lambda cluster: (-seconds[cluster], cluster))
    return {cluster: f"unknown_{number}" for number, cluster in enumerate(order, start=1)}
