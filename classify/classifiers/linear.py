"""Ridge and LDA over a path of penalties from one eigendecomposition, and nearest centroid.

Training rows are standardised (mean 0 and variance 1 per feature, from these rows only) and rotated
onto their principal axes. The classifiers depend on inner products only, so the rotation is exact:
n rows of d features have r <= min(n, d) axes, computed from the smaller of the n x n (dual) and the
d x d (primal) problem. Weights are fitted on the r axes and rotated back.

Source: Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2009), 3.4.1 (ridge
from the spectrum), 4.3 (LDA), 18.3.5 (n < d: the rotation is exact for quadratic penalties).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALIKE = 1e-6  # entries of an eigenvector that differ by less are equal


@dataclass(frozen=True, eq=False)
class PrincipalAxes:
    """Training rows on their own principal axes.

    Attributes
    ----------
    mean, scale : (d,) float64
        Per feature, of the training rows (`feature_scale`).
    train : (n, r) float64
        The training rows; columns are orthogonal, in falling order of variance.
    mix : (n, r) or (d, r) float64
        Dual: axes = centred.T @ mix. Primal: the axes themselves.
    centred : (n, d) float64 or None
        The standardised training rows in the dual form, None in the primal.
    """

    mean: np.ndarray
    scale: np.ndarray
    train: np.ndarray
    mix: np.ndarray
    centred: np.ndarray | None

    def standardise(self, X: np.ndarray) -> np.ndarray:
        """Return `X` (m, d) as float64, standardised with the training rows' mean and scale."""
        Z = np.subtract(X, self.mean, dtype=np.float64)
        Z /= self.scale
        return Z

    def project(self, X: np.ndarray) -> np.ndarray:
        """Return rows `X` (m, d) on the axes, (m, r)."""
        Z = self.standardise(X)
        return (Z if self.centred is None else Z @ self.centred.T) @ self.mix

    def unproject(self, weights: np.ndarray) -> np.ndarray:
        """Return weights (k, r) on the axes as weights (k, d) on standardised features."""
        turned = weights @ self.mix.T
        return turned if self.centred is None else turned @ self.centred


def principal_axes(X: np.ndarray) -> PrincipalAxes:
    """Standardise `X` (n, d) by `feature_scale` and rotate it onto its principal axes.

    >>> principal_axes(np.array([[0.0, 1], [2, 1]])).train.round(6)
    array([[ 1.],
           [-1.]])
    """
    mean = X.mean(axis=0, dtype=np.float64)
    Z = np.subtract(X, mean, dtype=np.float64)
    scale = feature_scale(Z, mean)
    Z /= scale
    dual = len(Z) <= Z.shape[1]
    values, vectors = _spectrum(Z @ Z.T if dual else Z.T @ Z)
    if dual:
        root = np.sqrt(values)
        return PrincipalAxes(mean, scale, vectors * root, vectors / root, Z)
    return PrincipalAxes(mean, scale, Z @ vectors, vectors, None)


def feature_scale(centred: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the deviations (d,) of features `centred` (n, d) about `mean`; 1 if constant."""
    scale = np.sqrt(np.einsum("ij,ij->j", centred, centred) / len(centred))
    # rounding leaves a constant feature with a deviation of a few units in its last place
    constant = scale <= 10 * np.finfo(np.float64).eps * np.abs(mean)
    scale[constant] = 1
    return scale


def _spectrum(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues (r,) above rounding, falling, and eigenvectors (m, r) with fixed signs.

    The largest entry of each eigenvector is positive; among entries equal within `ALIKE`, the
    first decides.
    """
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1], vectors[:, ::-1]
    keep = values > max(values[0], 0) * len(gram) * np.finfo(np.float64).eps
    values, vectors = values[keep], vectors[:, keep]
    size = np.abs(vectors)
    largest = (size > (1 - ALIKE) * size.max(axis=0, initial=0)).argmax(axis=0)
    return values, vectors * np.sign(vectors[largest, np.arange(len(values))])


def ridge_path(
    train: np.ndarray, codes: np.ndarray, classes: int, penalties: Sequence[float]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fit one-against-the-rest ridge regression on targets -1 and 1, once per penalty.

    Parameters
    ----------
    train : (n, r) float64
        `Rotation.train`: centred, orthogonal columns.
    codes : (n,) int
        Classes, 0 .. `classes` - 1.
    penalties : sequence of float, > 0
        Weight of the squared norm (scikit-learn's ``alpha``).

    Returns
    -------
    list of (weights (classes, r), intercept (classes,))
    """
    targets = np.where(np.arange(classes) == codes[:, None], 1.0, -1.0)
    intercept = targets.mean(axis=0)
    products = (targets - intercept).T @ train
    values = np.einsum("ij,ij->j", train, train)
    return [(products / (values + penalty), intercept) for penalty in penalties]


def lda_path(
    rotation: PrincipalAxes, codes: np.ndarray, classes: int, shrinkages: Sequence[float]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fit linear discriminants with constant shrinkage, once per value.

    The within-class covariance S becomes ``(1 - c) S + c s I``, as in scikit-learn's ``lsqr`` and
    ``eigen`` solvers, except that s differs where samples are few (`pooled_spread`). Priors are
    class frequencies.

    Parameters
    ----------
    shrinkages : sequence of float, 0 < c <= 1

    Returns
    -------
    list of (weights (classes, r), intercept (classes,))
    """
    train, features = rotation.train, len(rotation.mean)
    counts = np.bincount(codes, minlength=classes)
    means = class_means(train, codes, classes)
    within = train - means[codes]
    values, vectors = np.linalg.eigh(within.T @ within)
    freedom, spread = pooled_spread(
        float(values.sum()), float(np.sum(train**2)), len(train), classes, features
    )
    values = values / freedom
    turned = means @ vectors
    heads = []
    for shrinkage in shrinkages:
        weights = turned / ((1 - shrinkage) * np.maximum(values, 0) + shrinkage * spread)
        constant = -0.5 * np.sum(weights * turned, axis=1) + np.log(counts / len(codes))
        heads.append((weights @ vectors.T, constant))
    return heads


def pooled_spread(
    within: float, total: float, rows: int, classes: int, features: int
) -> tuple[float, float]:
    """Return the divisor of the within-class sum of squares, and the resulting mean variance s.

    With at least two rows per class on average, the divisor is n and s is the rows' own variance,
    as in scikit-learn. With fewer, n rows about the means of K classes have only n - K degrees of
    freedom (none where every class has one row): the sum is divided by n - K, and one
    pseudo-observation of the features' overall variance is added. This keeps s defined, and the
    scores of small and large meetings on one scale.

    Parameters
    ----------
    within, total : float
        Sums of squares over rows and features, about the means of the classes and about the mean.
    """
    few = rows < 2 * classes
    freedom, own = (rows - classes + 1, total / rows) if few else (rows, 0.0)
    floor = np.finfo(np.float64).eps * max(total / rows, 1.0)  # where nothing varies at all
    return freedom, max((within + own) / freedom, floor) / features


def class_means(X: np.ndarray, codes: np.ndarray, classes: int) -> np.ndarray:
    """Return the mean of each class's rows, (classes, d)."""
    counts = np.bincount(codes, minlength=classes).astype(X.dtype)
    return class_sums(X, codes, classes) / counts[:, None]


def class_sums(X: np.ndarray, codes: np.ndarray, classes: int) -> np.ndarray:
    """Return the sum of each class's rows, (classes, d)."""
    return (np.arange(classes)[:, None] == codes).astype(X.dtype) @ X


def unit(X: np.ndarray) -> np.ndarray:
    """Return rows `X` (m, d) scaled to unit length; a row of zeros stays zero."""
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return X / np.where(length == 0, 1, length)
