"""Sums over the rows of one task, computed once, from which every fold takes its own away.

With many more rows than features a fold's mean, deviation and scatter matrix are the total's less
those of the rows it does not learn; centring and standardising are algebra on them. Ridge and LDA
need nothing else: one Cholesky factor per penalty solves for all classes. (On one thread, at 2048
features, an eigendecomposition took as long as fourteen factors.) Sums are taken of features
standardised over all rows, so little is lost to cancellation; where a fold would lose more than
that, `FoldSums` is refused and the caller fits the fold's rows themselves.

Source: Engstrom and Jensen (2024), Shortcutting cross-validation, arXiv 2401.13185 (total minus
fold, with centring and scaling); Hastie, Tibshirani and Friedman (2009), 3.4.1 and 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .linear import class_sums, deviation, unit

ROWS_AT_ONCE = 2048  # in float64; the layer itself stays as it was read
LEAST_VARIANCE = 1e-6  # of a feature in a fold, or within classes: a share of the whole


@dataclass(frozen=True)
class FoldSums:
    """What ridge, LDA and centroid need to know of n training rows of d features.

    Attributes
    ----------
    mean, scale : (d,) float64
        Of the raw features, as `linear.rotate` has them.
    gram : (d, d) float64
        Z'Z of the standardised rows Z.
    counts : (classes,) float64
        Rows per class; 0 where the fold lacks a class.
    sums : (classes, d) float64
        Sum of each class's standardised rows.
    """

    mean: np.ndarray
    scale: np.ndarray
    gram: np.ndarray
    counts: np.ndarray
    sums: np.ndarray

    def standardise(self, X: np.ndarray) -> np.ndarray:
        """Return rows `X` (m, d) as float64 with this fold's mean and scale taken off."""
        Z = np.subtract(X, self.mean, dtype=np.float64)
        Z /= self.scale
        return Z


class TotalSums:
    """Sums over all rows `X` (n, d) with `codes` (n,) of `classes`, for any number of folds."""

    def __init__(self, X: np.ndarray, codes: np.ndarray, classes: int) -> None:
        self._X, self._codes, self._classes = X, codes, classes
        self._mean = X.mean(axis=0, dtype=np.float64)
        self._scale = _deviation(X, self._mean)
        self._gram, self._sums, self._counts = self._of(np.arange(len(X)))

    def _of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return gram (d, d), class sums (classes, d) and counts of globally standardised rows."""
        width = self._X.shape[1]
        gram, sums = np.zeros((width, width)), np.zeros((self._classes, width))
        for part in np.split(rows, range(ROWS_AT_ONCE, len(rows), ROWS_AT_ONCE)):
            U = np.subtract(self._X[part], self._mean, dtype=np.float64)
            U /= self._scale
            gram += U.T @ U
            sums += class_sums(U, self._codes[part], self._classes)
        counts = np.bincount(self._codes[rows], minlength=self._classes).astype(np.float64)
        return gram, sums, counts

    def without(self, learnt: np.ndarray) -> FoldSums | None:
        """Return the sums of the rows `learnt` (positions), by taking away those of the others.

        None where the difference would be inexact: a feature varies in the fold by less than
        `LEAST_VARIANCE` of what it does elsewhere, and is not constant there.
        """
        others = np.setdiff1d(np.arange(len(self._X)), learnt)
        gram, sums, counts = self._of(others)
        np.subtract(self._gram, gram, out=gram)
        sums, counts = self._sums - sums, self._counts - counts
        mean = sums.sum(axis=0) / len(learnt)
        gram -= len(learnt) * np.outer(mean, mean)
        variance = gram.diagonal() / len(learnt)
        still = np.flatnonzero(variance < LEAST_VARIANCE)
        if not self._constant(learnt, still):
            return None
        scale = np.sqrt(np.where(variance < LEAST_VARIANCE, 1, variance))
        sums = (sums - counts[:, None] * mean) / scale
        gram /= scale
        gram /= scale[:, None]
        gram[still], gram[:, still], sums[:, still] = 0, 0, 0
        whole = scale * self._scale
        whole[still] = 1  # as `linear.deviation` has it
        return FoldSums(self._mean + mean * self._scale, whole, gram, counts, sums)

    def _constant(self, learnt: np.ndarray, columns: np.ndarray) -> bool:
        rows = self._X[np.ix_(learnt, columns)]
        return bool((rows == rows[:1]).all())


def _deviation(X: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return `linear.deviation` of raw rows, some features at a time."""
    parts = np.array_split(np.arange(X.shape[1]), -(-X.shape[1] // 256))
    centred = (np.subtract(X[:, k], mean[k], dtype=np.float64) for k in parts)
    return np.concatenate([deviation(Z, mean[k]) for Z, k in zip(centred, parts, strict=True)])


def ridge_scores(fold: FoldSums, rows: np.ndarray, penalties: Sequence[float]) -> list[np.ndarray]:
    """Return scores (m, classes) of raw `rows` by one-against-the-rest ridge, once per penalty.

    A class that the fold lacks has -inf.
    """
    Z, targets = fold.standardise(rows), 2 * fold.sums.T
    intercept = np.where(fold.counts > 0, 2 * fold.counts / fold.counts.sum() - 1, -np.inf)
    solved = _solve(fold.gram, [(1.0, penalty) for penalty in penalties], targets)
    return [Z @ weights + intercept for weights in solved]


def lda_scores(
    fold: FoldSums, rows: np.ndarray, shrinkages: Sequence[float]
) -> list[np.ndarray] | None:
    """Return scores (m, classes) of raw `rows` by LDA with constant shrinkage, once per shrinkage.

    As `linear.lda_path`. A class that the fold lacks has -inf; None where nearly nothing varies
    within classes, so that the difference of sums would be inexact.
    """
    total, present = fold.counts.sum(), fold.counts > 0
    means = fold.sums / np.maximum(fold.counts, 1)[:, None]
    within = (fold.gram - fold.sums.T @ means) / total
    spread = float(within.trace()) / len(within)
    if spread * total * len(within) < LEAST_VARIANCE * fold.gram.trace():
        return None
    Z = fold.standardise(rows)
    prior = np.log(np.where(present, fold.counts, 1) / total)
    solved = _solve(within, [(1 - c, c * spread) for c in shrinkages], means.T)
    found = []
    for weights in solved:
        constant = prior - 0.5 * np.einsum("dk,kd->k", weights, means)
        found.append(Z @ weights + np.where(present, constant, -np.inf))
    return found


def centroid_scores(fold: FoldSums, rows: np.ndarray) -> np.ndarray:
    """Return the cosine (m, classes) of raw `rows` with each class's mean; -inf without a mean."""
    cosine = unit(fold.standardise(rows)) @ unit(fold.sums).T
    return np.where(fold.counts > 0, cosine, -np.inf)


def _solve(
    gram: np.ndarray, mixes: Sequence[tuple[float, float]], right: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield the solution (d, k) of ``(a gram + b I) W = right`` for each (a, b)."""
    from scipy.linalg import cho_factor, cho_solve

    for factor, penalty in mixes:
        matrix = np.multiply(gram, factor, order="F")
        matrix[np.diag_indices_from(matrix)] += penalty
        cholesky = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        yield cho_solve(cholesky, right, check_finite=False)
