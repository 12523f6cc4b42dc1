"""Fast cross-validation: each fold's sufficient statistics are the total minus its held-out rows.

With many more rows than features, a fold's mean, deviation and scatter matrix follow from sums over
all rows by subtraction; centring and standardising are algebra on those sums. The total is the sum
over the folds' held-out rows, so each row is multiplied once. Ridge and LDA need nothing else: one
Cholesky factor per penalty solves for all classes, and one product scores the held-out rows for all
penalties. The sums are of features standardised over all rows, which keeps cancellation small;
if a fold would still lose precision, `GramSums.fold_sums` returns None and the caller fits the
rows themselves.

Source: Engstrom and Jensen (2024), Shortcutting cross-validation, arXiv 2401.13185 (total minus
fold, with centring and scaling); Hastie, Tibshirani and Friedman (2009), 3.4.1 and 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .linear import class_sums, feature_scale, pooled_spread, unit

Cut = tuple[np.ndarray, np.ndarray]  # positions learnt, positions held out
Sums = tuple[np.ndarray, np.ndarray, np.ndarray]  # gram (d, d), class sums (classes, d), counts
ROWS_AT_ONCE = 2048  # in float64; the layer itself stays as it was read
MOST_BYTES = 5e8  # of the folds' Gram matrices; above that they are computed again when needed
LEAST_VARIANCE = 1e-6  # of a feature in a fold, or within classes, as a share of the total


@dataclass(frozen=True, eq=False)
class FoldSums:
    """Sufficient statistics of n training rows of d features, for ridge, LDA and centroid.

    Attributes
    ----------
    mean, scale : (d,) float64
        Of the raw features, as in `linear.principal_axes`.
    gram : (d, d) float64
        Z'Z of the standardised rows Z.
    counts : (classes,) float64
        Rows per class; 0 if the fold lacks a class.
    sums : (classes, d) float64
        Sum of each class's standardised rows.
    """

    mean: np.ndarray
    scale: np.ndarray
    gram: np.ndarray
    counts: np.ndarray
    sums: np.ndarray

    def standardise(self, X: np.ndarray) -> np.ndarray:
        """Return rows `X` (m, d) as float64, standardised with this fold's mean and scale."""
        Z = np.subtract(X, self.mean, dtype=np.float64)
        Z /= self.scale
        return Z


class GramSums:
    """Rows `X` (n, d) with `codes` (n,) of `classes`, and sums over all rows and each of `cuts`.

    No row may be held out twice, nor by a cut that trains on it. Sums are computed on first use.
    """

    def __init__(self, X: np.ndarray, codes: np.ndarray, classes: int, cuts: Sequence[Cut]) -> None:
        self.X, self.codes, self.classes, self.cuts = X, codes, classes, cuts

    @cached_property
    def _centre(self) -> tuple[np.ndarray, np.ndarray]:
        mean = self.X.mean(axis=0, dtype=np.float64)
        return mean, _deviation(self.X, mean)

    @cached_property
    def _sums(self) -> tuple[Sums, list[Sums]]:
        """Return the sums of all rows, and of each cut's held-out rows while they fit in memory."""
        held_out = [rows for _, rows in self.cuts]
        total = self._of(np.setdiff1d(np.arange(len(self.X)), np.concatenate(held_out)))
        held_out_sums = []
        for rows in held_out:
            part = self._of(rows)
            for whole, piece in zip(total, part, strict=True):
                np.add(whole, piece, out=whole)
            if len(held_out) * part[0].nbytes <= MOST_BYTES:
                held_out_sums.append(part)
        return total, held_out_sums

    def _of(self, rows: np.ndarray) -> Sums:
        """Return gram (d, d), class sums (classes, d) and counts of globally standardised rows."""
        width, (mean, scale) = self.X.shape[1], self._centre
        gram, sums = np.zeros((width, width)), np.zeros((self.classes, width))
        for part in np.split(rows, range(ROWS_AT_ONCE, len(rows), ROWS_AT_ONCE)):
            U = np.subtract(self.X[part], mean, dtype=np.float64)
            U /= scale
            gram += U.T @ U
            sums += class_sums(U, self.codes[part], self.classes)
        counts = np.bincount(self.codes[rows], minlength=self.classes).astype(np.float64)
        return gram, sums, counts

    def _learnt(self, fold: int) -> Sums:
        """Return the sums of a cut's training rows: the total minus the others."""
        (learnt, held_out), (total, held_out_sums) = self.cuts[fold], self._sums
        others = np.setdiff1d(np.arange(len(self.X)), learnt)
        first = held_out_sums[fold] if held_out_sums else self._of(held_out)
        gram, sums, counts = (whole - part for whole, part in zip(total, first, strict=True))
        purged = np.setdiff1d(others, held_out)
        if len(purged):
            for left, part in zip((gram, sums, counts), self._of(purged), strict=True):
                np.subtract(left, part, out=left)
        return gram, sums, counts

    def fold_sums(self, fold: int) -> FoldSums | None:
        """Return the sums of the training rows of cut number `fold`.

        Returns None if the difference of sums would be inexact: a feature varies in the fold by
        less than `LEAST_VARIANCE` of its variance over all rows, and is not constant in the fold.
        """
        learnt = self.cuts[fold][0]
        gram, sums, counts = self._learnt(fold)
        total_mean, total_scale = self._centre
        mean = sums.sum(axis=0) / len(learnt)
        gram -= np.outer(len(learnt) * mean, mean)
        variance = gram.diagonal() / len(learnt)
        still = np.flatnonzero(variance < LEAST_VARIANCE)
        if not self._constant(learnt, still):
            return None
        scale = np.sqrt(np.where(variance < LEAST_VARIANCE, 1, variance))
        whole = scale * total_scale
        whole[still] = 1  # as in `linear.feature_scale`
        sums = (sums - counts[:, None] * mean) / scale
        gram /= scale
        gram /= scale[:, None]
        gram[still], gram[:, still], sums[:, still] = 0, 0, 0
        return FoldSums(total_mean + mean * total_scale, whole, gram, counts, sums)

    def _constant(self, learnt: np.ndarray, columns: np.ndarray) -> bool:
        rows = self.X[np.ix_(learnt, columns)]
        return bool((rows == rows[:1]).all())


def _deviation(X: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return `linear.feature_scale` of raw rows, a block of features at a time."""
    parts = np.array_split(np.arange(X.shape[1]), -(-X.shape[1] // 256))
    centred = (np.subtract(X[:, k], mean[k], dtype=np.float64) for k in parts)
    return np.concatenate([feature_scale(Z, mean[k]) for Z, k in zip(centred, parts, strict=True)])


def ridge_scores(fold: FoldSums, rows: np.ndarray, penalties: Sequence[float]) -> list[np.ndarray]:
    """Return scores (m, classes) of raw `rows` by one-against-the-rest ridge, once per penalty.

    A class absent from the fold has score -inf.
    """
    Z, targets = fold.standardise(rows), 2 * fold.sums.T
    intercept = np.where(fold.counts > 0, 2 * fold.counts / fold.counts.sum() - 1, -np.inf)
    solved = _solve(fold.gram, [(1.0, penalty) for penalty in penalties], targets)
    return [block + intercept for block in _products(Z, solved)]


def lda_scores(
    fold: FoldSums, rows: np.ndarray, shrinkages: Sequence[float]
) -> list[np.ndarray] | None:
    """Return scores (m, classes) of raw `rows` by LDA with constant shrinkage, once per shrinkage.

    As `linear.lda_path`. A class absent from the fold has score -inf. Returns None if almost
    nothing varies within classes, so that the difference of sums would be inexact.
    """
    total, present = fold.counts.sum(), fold.counts > 0
    means = fold.sums / np.maximum(fold.counts, 1)[:, None]
    within = fold.gram - fold.sums.T @ means
    varied, whole = float(within.trace()), float(fold.gram.trace())
    if varied < LEAST_VARIANCE * whole:
        return None
    freedom, spread = pooled_spread(varied, whole, int(total), int(present.sum()), len(within))
    within /= freedom
    Z = fold.standardise(rows)
    prior = np.log(np.where(present, fold.counts, 1) / total)
    solved = _solve(within, [(1 - c, c * spread) for c in shrinkages], means.T)
    halves = (0.5 * np.einsum("dk,kd->k", weights, means) for weights in solved)
    constants = [np.where(present, prior - half, -np.inf) for half in halves]
    return [b + c for b, c in zip(_products(Z, solved), constants, strict=True)]


def centroid_scores(fold: FoldSums, rows: np.ndarray) -> np.ndarray:
    """Return the cosine (m, classes) of raw `rows` with each class mean; -inf if absent."""
    cosine = unit(fold.standardise(rows)) @ unit(fold.sums).T
    return np.where(fold.counts > 0, cosine, -np.inf)


def _solve(
    gram: np.ndarray, mixes: Sequence[tuple[float, float]], right: np.ndarray
) -> list[np.ndarray]:
    """Return the solution (d, k) of ``(a gram + b I) W = right`` for each (a, b).

    The solutions are adjacent in memory, so that `_products` needs a single product.
    """
    from scipy.linalg import cho_factor, cho_solve

    matrix, width = np.empty_like(gram.T), right.shape[1]
    every = np.empty((len(right), len(mixes) * width), order="F")
    blocks = [every[:, k * width : (k + 1) * width] for k in range(len(mixes))]
    for block, (factor, penalty) in zip(blocks, mixes, strict=True):
        np.multiply(gram.T, factor, out=matrix)  # symmetric, and in the order LAPACK wants
        matrix[np.diag_indices_from(matrix)] += penalty
        cholesky = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        block[:] = cho_solve(cholesky, right, check_finite=False)
    return blocks


def _products(Z: np.ndarray, blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return ``Z @ block`` (m, k) for each of the `blocks` of `_solve`."""
    together = Z @ np.asarray(blocks[0].base)
    return np.split(together, len(blocks), axis=1)
