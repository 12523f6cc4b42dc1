"""Our classifiers as a scikit-learn estimator, for pipelines, grids and cross-validation.

scikit-learn is imported with this file; nothing that must start quickly imports it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ..manifests.tasks import require
from .classifiers import Fold, finish, fit_path, penalties_of
from .data import STANDARDISE
from .linear import rotate


class SpeakerClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of this package with standardisation inside.

    Parameters
    ----------
    classifier : "centroid", "ridge", "lda", "logistic" or "linear-svm"
    penalty : float, optional
        Ridge's alpha, LDA's shrinkage, 1/C of the others; None takes the middle of its path.
    seed : int
        Of the linear SVM.
    standardise : "yes" (each feature to variance 1) or "no" (their mean to 1, by one number)

    Attributes
    ----------
    classes_ : (classes,)
    fitted_ : Fitted
    """

    def __init__(
        self,
        classifier: str = "ridge",
        penalty: float | None = None,
        seed: int = 0,
        standardise: str = "yes",
    ) -> None:
        self.classifier = classifier
        self.penalty = penalty
        self.seed = seed
        self.standardise = standardise

    def fit(self, X: Any, y: Any) -> SpeakerClassifier:
        """Fit on `X` (n, d) and labels `y` (n,); at least two classes."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: 1 class is given ({self.classes_[0]!r}), expected two or more")
        penalties = penalties_of(self.classifier, self.penalty)
        require("standardise", self.standardise, STANDARDISE)
        rotation = rotate(X, standardise=self.standardise)
        fold = Fold(rotation, codes, len(self.classes_), seed=self.seed)
        head = fit_path(self.classifier, fold, [penalties[len(penalties) // 2]])[0]
        self.fitted_ = finish(head, fold.rotation, [str(label) for label in self.classes_])
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return scores (m, classes); (m,) for two classes, positive for the second."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores = self.fitted_.scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest label of each row, (m,)."""
        scores = self.decision_function(X)
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[best]
