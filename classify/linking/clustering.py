"""Labels become persons: the partition of the greatest likelihood, one label of a session each.

A partition is worth the sum of the log-odds of all pairs that it puts together. To begin with,
clusters are joined by average linkage while their mean log-odds are above 0 (scipy), which never
joins two labels of one session. Then each session's labels in turn are taken out and given back to
the clusters, or to none, in the best way as a whole (the assignment problem; Kuhn, 1955), until
that changes nothing; the worth only rises, and no session has two labels in a cluster at any time.
"""

from __future__ import annotations

import numpy as np

NEVER, FAR = -np.inf, 1e12
CERTAIN = 30.0  # log-odds, of which more would decide nothing else
ROUNDS = 50


def pair_matrix(first: np.ndarray, second: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Return a symmetric matrix (n, n) of the values (m,) of pairs; `NEVER` for all others."""
    matrix = np.full((n, n), NEVER)
    matrix[first, second] = matrix[second, first] = values
    return matrix


def partition(log_odds: np.ndarray, sessions: np.ndarray, persons: np.ndarray) -> np.ndarray:
    """Return each label's cluster (n,) int, numbered by its first label.

    Parameters
    ----------
    log_odds : (n, n) float
        Symmetric: of being one person; -inf: they can't be. The diagonal says nothing.
    sessions : (n,) str
        Two labels of one session are never in a cluster.
    persons : (n,) str
        Who is known to be who; empty: nobody knows. Labels of one person are always in a cluster,
        of two persons never.

    Examples
    --------
    >>> odds = np.array([[0, 3, 2], [3, 0, -np.inf], [2, -np.inf, 0]])
    >>> partition(odds, np.array(["a", "b", "b"]), np.array(["", "", ""])).tolist()
    [0, 0, 1]
    """
    known_as = persons[:, None] == persons
    is_known = (persons[:, None] != "") & (persons != "")
    bounded = np.clip(log_odds, -CERTAIN, CERTAIN)
    never = np.isneginf(log_odds) | (sessions[:, None] == sessions) | (is_known & ~known_as)
    worth = np.where(never, NEVER, bounded)
    clusters = _linked(worth, is_known & known_as)
    for _ in range(ROUNDS):
        before = clusters.copy()
        for session in np.unique(sessions):
            free = np.flatnonzero((sessions == session) & (persons == ""))
            clusters = _reassigned(worth, clusters, free, sessions == session)
        if np.array_equal(_numbered(before), _numbered(clusters)):
            break
    return _numbered(clusters)


def _linked(worth: np.ndarray, together: np.ndarray) -> np.ndarray:
    """Return the clusters of average linkage, as far as their mean worth is above 0."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(worth) < 2:
        return np.zeros(len(worth), dtype=int)
    distance = np.where(np.isneginf(worth), FAR, 2 * CERTAIN - worth)
    distance[together] = 0.0
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), "average")
    return np.asarray(fcluster(tree, 2 * CERTAIN * (1 - 1e-9), "distance"))


def _reassigned(
    worth: np.ndarray, clusters: np.ndarray, free: np.ndarray, here: np.ndarray
) -> np.ndarray:
    """Give the labels `free` of the session `here` to clusters in the best way as a whole."""
    from scipy.optimize import linear_sum_assignment

    if not len(free):
        return clusters
    fixed = clusters[np.setdiff1d(np.flatnonzero(here), free)]
    others = np.setdiff1d(clusters[~here], fixed)
    member = (clusters[~here][:, None] == others).astype(float)
    mine = worth[free][:, ~here]
    never = np.isneginf(mine).astype(float) @ member > 0
    gains = np.where(never, -FAR, np.where(np.isneginf(mine), 0.0, mine) @ member)
    # beside the clusters each label may be alone, which is worth nothing
    choices = np.concatenate([gains, np.zeros((len(free), len(free)))], axis=1)
    rows, columns = linear_sum_assignment(choices, maximize=True)
    moved = clusters.copy()
    new = clusters.max() + 1 + np.arange(len(free))
    moved[free[rows]] = np.concatenate([others, new])[columns].astype(int)
    return moved


def _numbered(clusters: np.ndarray) -> np.ndarray:
    """Return clusters (n,) numbered by their first label."""
    _, first, codes = np.unique(clusters, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[codes])


def confidence(log_odds: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Return how probable each label's cluster is for it (n,), given all others' clusters.

    Each cluster stands for a person, whose log-odds are the mean over its other labels (their
    errors are not independent, so they do not add up); beside them is somebody else, whom no other
    label names. Clusters with another label of the session count as rivals: the two may be swapped.

    Parameters
    ----------
    log_odds : (n, n) float
        -inf where a pair is not scored.
    """
    scored = np.isfinite(log_odds)
    np.fill_diagonal(scored, False)
    member = np.eye(clusters.max() + 1)[clusters]
    sums = np.where(scored, log_odds, 0.0) @ member
    counts = scored.astype(float) @ member
    means = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)
    own = means[np.arange(len(means)), clusters]
    alone = counts[np.arange(len(means)), clusters] == 0
    total = np.logaddexp(0, np.logaddexp.reduce(means, axis=1, initial=-np.inf))
    return np.asarray(np.exp(np.where(alone, 0.0, own) - total))
