"""How well a vector fits each enrolled person: cosine after centring and whitening.

Centre, scale and whitening are learnt from the enrolment alone. The scale is each feature's
deviation within persons; whitening takes out what a person's own stretches differ in (Hatch and
others, 2006, Within-class covariance normalization for SVM-based speaker recognition), with the
covariance shrunk towards the identity as Ledoit and Wolf (2004) say, and by a tenth at least,
since stretches of one session are more alike than they count. Scores are not normalised by other
persons' scores: on clips of 10 to 60 people that named fewer of them (docs/how-to/names.md). With
fewer than `FEW` persons there is nothing to centre on: the cosine is taken of the scaled vectors as
they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .stretches import Stretches

FEW = 3  # persons
MOST = 400  # stretches that the covariance is learnt from
LEAST_SHRINKAGE = 0.1
FLAT = 1e-3  # share of the features' median deviation below which one says nothing
PLAIN = "cosine of scaled vectors (too few persons to centre on)"
WHITENED = "cosine after centring and whitening"


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores of vectors against persons.

    Attributes
    ----------
    names : tuple of str
        The P persons, sorted.
    centre, scale : (dim,) float64
    axes, gains : (dim, r) and (r,) float64
        Directions that whitening changes, and what is added to the vector along each, times its
        part there.
    models : (P, dim) float64
        Unit vectors of the persons.
    """

    names: tuple[str, ...]
    centre: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    gains: np.ndarray
    models: np.ndarray

    @property
    def method(self) -> str:
        """Say how scores are made."""
        return PLAIN if len(self.names) < FEW else WHITENED

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return scores (n, P) of vectors (n, dim)."""
        vectors = _whiten((X - self.centre) / self.scale, self.axes, self.gains)
        return np.asarray(_unit(vectors) @ self.models.T)


def fit_scorer(stretches: Stretches) -> Scorer:
    """Learn centre, scale, whitening and the persons' vectors from n >= 1 stretches."""
    names = stretches.names
    means = stretches.means
    persons = np.searchsorted(names, stretches.persons)
    centres = np.stack([stretches.of(persons == k).mean() for k in range(len(names))])
    few = len(names) < FEW
    centre = np.zeros(means.shape[1]) if few else centres.mean(axis=0)
    residuals, weights = means - centres[persons], stretches.seconds
    scale = _scale(means if few else residuals, weights)
    residuals, weights = _evenly(residuals / scale, weights)
    axes, gains = _whitening(residuals * np.sqrt(weights / weights.mean())[:, None])
    if few:
        axes, gains = axes[:, :0], gains[:0]
    models = _unit(_whiten((centres - centre) / scale, axes, gains))
    return Scorer(tuple(names), centre, scale, axes, gains, models)


def _scale(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return each feature's root mean square (dim,), and 1 or a floor where it says nothing."""
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

    The covariance is divided by its mean variance, and the root by that of the shrinkage's part
    of the identity, so that whatever lies in no residual is left as it is; cosines do not see
    factors.
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
    """Return Ledoit and Wolf's share of the identity, from the residuals' products (n, n)."""
    square = np.square(gram).sum() / count**2
    spread = square / dim - (np.trace(gram) / (count * dim)) ** 2
    error = (np.square(np.diag(gram)).sum() / count - square) / (count * dim)
    share = 1.0 if spread <= 0 else min(max(error, 0.0), spread) / spread
    return float(max(share, LEAST_SHRINKAGE))


def _whiten(X: np.ndarray, axes: np.ndarray, gains: np.ndarray) -> np.ndarray:
    return X + (X @ axes * gains) @ axes.T


def _unit(X: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return np.asarray(X / np.where(length > 0, length, 1.0))
