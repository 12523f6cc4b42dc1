"""Fitted classifiers: weights on principal axes, and their equivalent in feature space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...common.extras import check_extra
from .linear import PrincipalAxes, unit

TREE_AXES = 64  # principal components given to the trees


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Rotated training rows of one task, and validation rows for early stopping.

    With `rounds` above 0 LightGBM grows that many and needs no validation rows.
    """

    rotation: PrincipalAxes
    codes: np.ndarray
    classes: int
    valid: np.ndarray | None = None
    valid_codes: np.ndarray | None = None
    seed: int = 0
    rounds: int = 0


@dataclass(frozen=True, eq=False)
class AxisWeights:
    """Fitted numbers on the axes of a rotation (cosine: on standardised features).

    `kind` is ``linear``, ``cosine`` or ``trees``; `note` reports a fit that did not converge.
    """

    kind: str
    weights: np.ndarray
    intercept: np.ndarray
    booster: str = ""
    note: str = ""

    def scores(self, rotation: PrincipalAxes, X: np.ndarray, turned: np.ndarray) -> np.ndarray:
        """Return (m, classes) for rows `X`; `turned` is ``rotation.project(X)``."""
        rows = rotation.standardise(X) if self.kind == "cosine" else turned
        return _scores(self.kind, rows, self.weights, self.intercept, self.booster)


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """A fitted closed-set classifier.

    Attributes
    ----------
    labels : tuple of str
        Candidates, in the order of the columns of the scores.
    mean, scale : (d,) float64
    weights : (classes, d) float64
        For trees: the principal axes (k, d).
    intercept : (classes,) float64
    booster : str
        LightGBM's model text, else empty.
    """

    kind: str
    labels: tuple[str, ...]
    mean: np.ndarray = field(repr=False)
    scale: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    intercept: np.ndarray = field(repr=False)
    booster: str = field(default="", repr=False)

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return one score per row of `X` (m, d) and label, (m, classes); higher is likelier."""
        rows = np.subtract(X, self.mean, dtype=np.float64) / self.scale
        if self.kind == "trees":
            rows = rows @ self.weights.T
        return _scores(self.kind, rows, self.weights, self.intercept, self.booster)


def _scores(
    kind: str, rows: np.ndarray, weights: np.ndarray, intercept: np.ndarray, booster: str
) -> np.ndarray:
    if kind == "linear":
        return rows @ weights.T + intercept
    if kind == "cosine":
        return unit(rows) @ weights.T
    check_extra("trees", "lightgbm")
    import lightgbm

    model = lightgbm.Booster(model_str=booster)
    rows = rows[:, : model.num_feature()]
    return np.asarray(model.predict(rows, raw_score=True, num_threads=1))


def to_feature_space(
    head: AxisWeights, rotation: PrincipalAxes, labels: Sequence[str]
) -> FittedClassifier:
    """Return a classifier of raw features equivalent to a head on principal axes."""
    weights = head.weights
    if head.kind == "linear":
        weights = rotation.unproject(weights)
    elif head.kind == "trees":
        axes = np.eye(rotation.train.shape[1])[: min(TREE_AXES, rotation.train.shape[1])]
        weights = rotation.unproject(axes)
    return FittedClassifier(
        head.kind,
        tuple(labels),
        rotation.mean,
        rotation.scale,
        weights,
        head.intercept,
        head.booster,
    )
