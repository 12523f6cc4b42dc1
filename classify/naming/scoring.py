"""Score how well a vector fits each enrolled person: cosine after centring and whitening.

Centre, scale and whitening are learnt from the enrolment alone. The scale is each feature's
deviation within persons. Whitening removes the directions in which a person's own stretches differ
(Hatch and others, 2006, Within-class covariance normalization for SVM-based speaker recognition);
the covariance is shrunk towards the identity as in Ledoit and Wolf (2004), by at least a tenth,
since stretches of one session are more similar than their number suggests. Scores are not
normalised by other persons' scores: on clips of 10 to 60 people, that named fewer of them
(docs/how-to/names.md). With fewer than `FEW` persons there is nothing to centre on, and the cosine
of the scaled vectors is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...common.counts import counted
from .stretches import Stretches

FEW = 3  # persons
MOST = 400  # stretches used to estimate the covariance
LEAST_SHRINKAGE = 0.1
FLAT = 1e-3  # share of the features' median deviation; a feature that varies less is uninformative
PLAIN = "cosine of scaled vectors (too few persons to centre on)"
WHITENED = "cosine after centring and whitening"


@dataclass(frozen=True, eq=False)
class Whitening:
    """Removes from vectors the differences between a person's own stretches.

    Attributes
    ----------
    scale : (dim,) float64
        Deviation of each feature within persons.
    axes, gains : (dim, r) and (r,) float64
        Directions that whitening changes, and the gain of each: the vector's component along it,
        times the gain, is added to the vector.
    """

    scale: np.ndarray
    axes: np.ndarray
    gains: np.ndarray

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Return vectors (n, dim) scaled and whitened."""
        X = X / self.scale
        return np.asarray(X + (X @ self.axes * self.gains) @ self.axes.T)


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores of vectors against persons.

    Attributes
    ----------
    names : tuple of str
        The P persons, sorted.
    centre : (dim,) float64
    whitening : Whitening
    models : (P, dim) float64
        Unit vectors of the persons.
    """

    names: tuple[str, ...]
    centre: np.ndarray
    whitening: Whitening
    models: np.ndarray

    def __repr__(self) -> str:
        """Return the persons and the method, in one line."""
        return f"<Scorer {counted(len(self.names), 'person')}, {self.method}>"

    @property
    def method(self) -> str:
        """Return how scores are computed, in words."""
        return PLAIN if len(self.names) < FEW else WHITENED

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return scores (n, P) of vectors (n, dim)."""
        return np.asarray(unit(self.whitening.apply(X - self.centre)) @ self.models.T)


def fit_scorer(stretches: Stretches) -> Scorer:
    """Learn centre, scale, whitening and the persons' vectors from n >= 1 stretches."""
    names, centres = stretches.names, person_means(stretches)
    few = len(names) < FEW
    centre = np.zeros(centres.shape[1]) if few else centres.mean(axis=0)
    if few:
        flat = np.zeros((centres.shape[1], 0))
        whitening = Whitening(_scale(stretches.means, stretches.seconds), flat, np.zeros(0))
    else:
        whitening = fit_whitening(stretches)
    return Scorer(tuple(names), centre, whitening, unit(whitening.apply(centres - centre)))


def person_means(stretches: Stretches) -> np.ndarray:
    """Return the persons' mean vectors (P, dim), in the order of their names."""
    return np.stack([stretches.of(stretches.persons == name).mean() for name in stretches.names])


def fit_whitening(stretches: Stretches) -> Whitening:
    """Learn whitening from the differences between stretches of one person."""
    persons = np.searchsorted(stretches.names, stretches.persons)
    residuals, weights = stretches.means - person_means(stretches)[persons], stretches.seconds
    scale = _scale(residuals, weights)
    residuals, weights = _evenly(residuals / scale, weights)
    return Whitening(scale, *_whitening(residuals * np.sqrt(weights / weights.mean())[:, None]))


def _scale(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return each feature's root mean square (dim,); for uninformative ones 1 or a floor."""
    root = np.sqrt(weights @ np.square(values) / weights.sum())
    middle = float(np.median(root[root > 0])) if root.any() else 1.0
    return np.asarray(np.maximum(root, FLAT * middle))


def _evenly(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(values) <= MOST:
        return values, weights
    rows = np.linspace(0, len(values) - 1, MOST).astype(int)
    return values[rows], weights[rows]


def _whitening(residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return axes (dim, r) and gains (r,) of the inverse root of the shrunk covariance.

    The covariance is divided by its mean variance, and the root by its value for the identity part
    alone, so that directions outside the residuals do not change; cosines ignore overall factors.
    """
    count, dim = residuals.shape
    gram = residuals @ residuals.T
    variance = np.trace(gram) / (count * dim)
    if not variance > 0:
        return np.zeros((dim, 0)), np.zeros(0)
    share = _shrinkage(gram, count, dim)
    values, vectors = np.linalg.eigh(gram)
    large = values > values[-1] * 1e-10
    values, vectors = values[large], vectors[:, large]
    axes = residuals.T @ vectors / np.sqrt(values)
    along = (1 - share) * values / (count * variance) + share
    return axes, np.sqrt(share / along) - 1


def _shrinkage(gram: np.ndarray, count: int, dim: int) -> float:
    """Return Ledoit and Wolf's weight of the identity, from the residuals' products (n, n)."""
    square = np.square(gram).sum() / count**2
    spread = square / dim - (np.trace(gram) / (count * dim)) ** 2
    error = (np.square(np.diag(gram)).sum() / count - square) / (count * dim)
    share = 1.0 if spread <= 0 else min(max(error, 0.0), spread) / spread
    return float(max(share, LEAST_SHRINKAGE))


def unit(X: np.ndarray) -> np.ndarray:
    """Return vectors (n, dim) scaled to length 1; zero vectors are unchanged."""
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return np.asarray(X / np.where(length > 0, length, 1.0))
