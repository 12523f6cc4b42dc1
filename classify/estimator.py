"""Our classifiers as a scikit-learn estimator, for pipelines, grids and cross-validation.

scikit-learn is imported with this file; no module that must start quickly imports it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..common.errors import InputError
from .classifiers.boosted_trees import count_rounds
from .classifiers.calibration import find_temperature, probabilities
from .classifiers.fitted import TrainingSet, to_feature_space
from .classifiers.linear import principal_axes
from .classifiers.registry import fit_path, penalty_path
from .selection.candidates import learnt_codes
from .selection.cross_validation import FEWEST, cross_validate

STOPPING_FOLDS = 3  # without calibration, one of these is held out to stop LightGBM
UNSTOPPED_ROUNDS = 100  # LightGBM's own default, if no row can be held out


def _stratified(codes: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold (n,) of each row: each class's rows are dealt out in turn; -1: in no fold.

    A class with a single row is always in training.
    """
    fold = np.full(len(codes), -1)
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        if folds and len(rows) > 1:
            fold[rows] = np.arange(len(rows)) % folds
    return fold


class SpeakerClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of this package, including standardisation.

    Parameters
    ----------
    classifier : "centroid", "ridge", "lda", "logistic", "linear-svm" or "lightgbm"
    penalty : float, optional
        Ridge's alpha, LDA's shrinkage, 1/C of the others; None: the middle of its path.
    seed : int
        For the linear SVM and LightGBM.
    calibration_folds : int
        Folds of the stratified cross-validation whose held-out scores set the temperature of
        `predict_proba`, >= 2; each costs one fit. 0: no extra fit, and a temperature of 1. For
        LightGBM one of these folds (of three if 0) is held out and also decides when to stop; then
        that number of rounds is grown on all rows.

    Attributes
    ----------
    classes_ : (classes,)
    fitted_ : FittedClassifier
    temperature_ : float
        Divides scores in `predict_proba`; 1 if no class has two rows, so that none is held out.

    Examples
    --------
    >>> X, y = np.array([[0.0, 1.0], [0.2, 1.1], [1.0, 0.1], [1.2, 0.0]]), ["A", "A", "B", "B"]
    >>> model = SpeakerClassifier("ridge", penalty=10.0).fit(X, y)
    >>> model.predict([[0.1, 1.0]]).tolist(), model.predict_proba([[0.1, 1.0]]).shape
    (['A'], (1, 2))
    """

    def __init__(
        self,
        classifier: str = "ridge",
        penalty: float | None = None,
        seed: int = 0,
        calibration_folds: int = 3,
    ) -> None:
        self.classifier = classifier
        self.penalty = penalty
        self.seed = seed
        self.calibration_folds = calibration_folds

    def fit(self, X: Any, y: Any) -> SpeakerClassifier:
        """Fit on `X` (n, d) and labels `y` (n,); at least two classes."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: 1 class is given ({self.classes_[0]!r}), expected two or more")
        penalty = self._penalty()
        rounds = 0
        if self.classifier == "lightgbm":
            rounds, self.temperature_ = self._stopped(X, codes)
        else:
            self.temperature_ = self._temperature(X, codes, penalty)
        rotation = principal_axes(X)
        rows = TrainingSet(rotation, codes, len(self.classes_), seed=self.seed, rounds=rounds)
        head = fit_path(self.classifier, rows, [penalty])[0]
        self.fitted_ = to_feature_space(head, rotation, [str(label) for label in self.classes_])
        return self

    def _stopped(self, X: np.ndarray, codes: np.ndarray) -> tuple[int, float]:
        """Return after how many rounds LightGBM stops on held-out rows, and their temperature."""
        held_out = _stratified(codes, self.calibration_folds or STOPPING_FOLDS) == 0
        if not held_out.any():
            return UNSTOPPED_ROUNDS, 1.0
        rotation = principal_axes(X[~held_out])
        projected, held_out_codes = rotation.project(X[held_out]), codes[held_out]
        rows = TrainingSet(
            rotation, codes[~held_out], len(self.classes_), projected, held_out_codes, self.seed
        )
        head = fit_path("lightgbm", rows, [None])[0]
        rounds = max(1, count_rounds(head.booster, len(self.classes_)))
        if not self.calibration_folds:
            return rounds, 1.0
        scores = head.scores(rotation, X[held_out], projected)
        return rounds, find_temperature(scores, held_out_codes)

    def _penalty(self) -> float | None:
        """Return the penalty to fit with, or raise if a parameter is out of range."""
        folds = self.calibration_folds
        if folds != 0 and folds < FEWEST:
            raise InputError(
                f"calibration_folds: {folds} is given, expected 0 or {FEWEST} and more; correct it"
            )
        penalties = penalty_path(self.classifier, self.penalty)
        return penalties[len(penalties) // 2]

    def _temperature(self, X: np.ndarray, codes: np.ndarray, penalty: float | None) -> float:
        """Return the temperature of lowest log-loss on rows that were held out in turn."""
        fold = _stratified(codes, self.calibration_folds)
        cuts = [
            (np.flatnonzero(fold != number), np.flatnonzero(fold == number))
            for number in range(self.calibration_folds)
            if np.any(fold == number) and np.any(fold != number)
        ]
        if not cuts:
            return 1.0
        path = {self.classifier: (penalty,)}
        classes = len(self.classes_)
        scores_of, _ = cross_validate(X, codes, classes, cuts, path, seed=self.seed)
        held_out = np.sort(np.concatenate([rows for _, rows in cuts]))
        scores = scores_of[self.classifier][0]
        return find_temperature(scores, learnt_codes(codes[held_out], scores))

    def decision_function(self, X: Any) -> np.ndarray:
        """Return scores (m, classes); (m,) for two classes, positive for the second."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores = self.fitted_.scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the calibrated probability of each class, (m, classes); rows sum to 1.

        The softmax of the scores divided by `temperature_`. As this is a single number, the most
        probable class is the one that `predict` returns.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return probabilities(self.fitted_.scores(X), self.temperature_)

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest label of each row, (m,)."""
        scores = self.decision_function(X)
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[best]
