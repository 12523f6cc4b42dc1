"""Partition labels into persons by maximum likelihood, with at most one label per session each.

The value of a partition is the sum of the log-odds of all pairs that it puts together. Average
linkage (scipy) starts by joining clusters while their mean log-odds are above 0, which never joins
two labels of one session. Then each session's labels in turn are taken out and reassigned to the
clusters, or to none, in the best way overall (the assignment problem; Kuhn, 1955), until nothing
changes. The value only rises, and a cluster never has two labels of one session.
"""

from __future__ import annotations

import numpy as np

NEVER, FAR = -np.inf, 1e12
CERTAIN = 30.0  # log-odds; more would not change any decision
ROUNDS = 50


def pair_matrix(first: np.ndarray, second: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Return a symmetric matrix (n, n) of the values (m,) of pairs; `NEVER` elsewhere."""
    matrix = np.full((n, n), NEVER)
    matrix[first, second] = matrix[second, first] = values
    return matrix


def partition(log_odds: np.ndarray, sessions: np.ndarray, persons: np.ndarray) -> np.ndarray:
    """Return each label's cluster (n,) int, numbered by its first label.

    Parameters
    ----------
    log_odds : (n, n) float
        Symmetric, that two labels are one person; -inf: impossible. The diagonal is ignored.
    sessions : (n,) str
        Two labels of one session are never in the same cluster.
    persons : (n,) str
        Known persons; empty if unknown. Labels of one person are always in the same cluster, those
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
    """Return the clusters of average linkage, joined while their mean value is above 0."""
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
    """Reassign the labels `free` of session `here` to clusters, in the best way overall."""
    from scipy.optimize import linear_sum_assignment

    if not len(free):
        return clusters
    fixed = clusters[np.setdiff1d(np.flatnonzero(here), free)]
    others = np.setdiff1d(clusters[~here], fixed)
    member = (clusters[~here][:, None] == others).astype(float)
    mine = worth[free][:, ~here]
    never = np.isneginf(mine).astype(float) @ member > 0
    gains = np.where(never, -FAR, np.where(np.isneginf(mine), 0.0, mine) @ member)
    # besides the clusters, each label may stay alone, which has value 0
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
    """Return the probability (n,) of each label's cluster, given the clusters of all others.

    Each cluster represents a person; its log-odds are the mean over its other labels, since their
    errors are not independent and so do not add up. Another candidate is somebody whom no other
    label represents. Clusters with another label of the session compete too, as the two labels may
    be swapped.

    Parameters
    ----------
    log_odds : (n, n) float
        -inf if a pair is not scored.
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
