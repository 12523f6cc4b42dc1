"""The six classifiers by name, each fitted over a path of penalties within one fold.

Ridge, LDA and centroid are our own (`linear`), logistic regression is scikit-learn's problem solved
on principal axes (`logistic`), the linear SVM is scikit-learn's and the trees are LightGBM's. All
are fitted on rows standardised and rotated by `linear.principal_axes`. A penalty grows with the
regularisation: ridge's alpha, LDA's shrinkage (0..1), 1/C of the others; ``None`` for centroid and
for LightGBM, whose number of rounds is chosen on validation rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...common.errors import InputError
from .boosted_trees import _trees
from .fitted import AxisWeights, TrainingSet
from .linear import class_means, lda_path, ridge_path, unit
from .logistic import logistic_path

PENALTIES: dict[str, tuple[float | None, ...]] = {
    "centroid": (None,),
    "ridge": (10.0, 100.0, 1e3, 1e4, 1e5),
    "lda": (0.01, 0.03, 0.1, 0.3, 0.6, 0.9),
    "logistic": (1.0, 10.0, 100.0, 1e3, 1e4),
    "linear-svm": (10.0, 100.0, 1e3, 1e4, 1e5),
    "lightgbm": (None,),
}
ITERATIONS = 5000  # of liblinear; enough for every penalty above on 300 segments


def penalty_path(classifier: str, penalty: float | None = None) -> tuple[float | None, ...]:
    """Return the penalties to try: the default path, or the one given.

    Raises
    ------
    InputError
        The name is unknown, or the penalty is out of the classifier's range.
    """
    if classifier not in PENALTIES:
        raise InputError(
            f"classifiers: {classifier!r} is given, expected some of {', '.join(PENALTIES)}; "
            "correct --classifiers"
        )
    if penalty is None:
        return PENALTIES[classifier]
    highest = 1.0 if classifier == "lda" else np.inf
    if PENALTIES[classifier] == (None,) or not 0 < penalty <= highest:
        expected = "none" if PENALTIES[classifier] == (None,) else f"above 0, at most {highest}"
        raise InputError(
            f"penalty: {penalty} is given for {classifier}, expected {expected}; correct --penalty"
        )
    return (penalty,)


def fit_path(
    classifier: str, fold: TrainingSet, penalties: Sequence[float | None]
) -> list[AxisWeights]:
    """Fit a classifier on a fold's training rows, once per penalty.

    Raises
    ------
    InputError
        LightGBM has no validation rows to stop by.
    """
    train, strengths = fold.rotation.train, [p for p in penalties if p is not None]
    if classifier == "centroid":
        return [_centroid(fold)]
    if classifier == "lightgbm":
        return [_trees(fold)]
    if classifier == "ridge":
        pairs = ridge_path(train, fold.codes, fold.classes, strengths)
        return [AxisWeights("linear", *pair) for pair in pairs]
    if classifier == "lda":
        pairs = lda_path(fold.rotation, fold.codes, fold.classes, strengths)
        return [AxisWeights("linear", *pair) for pair in pairs]
    if classifier == "logistic":
        solutions = logistic_path(train, fold.codes, fold.classes, strengths)
        notes = [
            _note(classifier, p, done) for p, (*_, done) in zip(strengths, solutions, strict=True)
        ]
        return [
            AxisWeights("linear", *solution[:2], note=note)
            for solution, note in zip(solutions, notes, strict=True)
        ]
    return _svm_path(fold, strengths)


def _note(classifier: str, penalty: float, converged: bool) -> str:
    return "" if converged else f"{classifier} did not converge at penalty {penalty:g}"


def _centroid(fold: TrainingSet) -> AxisWeights:
    rotation = fold.rotation
    means = rotation.unproject(class_means(rotation.train, fold.codes, fold.classes))
    if rotation.centred is None:  # back() of rows is exact: the axes are orthonormal
        return AxisWeights("cosine", unit(means), np.zeros(fold.classes))
    means = class_means(rotation.centred, fold.codes, fold.classes)
    return AxisWeights("cosine", unit(means), np.zeros(fold.classes))


def _svm_path(fold: TrainingSet, penalties: Sequence[float]) -> list[AxisWeights]:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    model = LinearSVC(max_iter=ITERATIONS, dual="auto", random_state=fold.seed)
    axes = fold.rotation.train.shape[1]
    train = fold.rotation.train if axes else np.zeros((len(fold.codes), 1))
    heads = []
    for penalty in penalties:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the note below reports it
            model.set_params(C=1 / penalty).fit(train, fold.codes)
        note = _note("linear-svm", penalty, bool(np.max(model.n_iter_) < ITERATIONS))
        weights, intercept = _all_classes(model.coef_[:, :axes], model.intercept_)
        heads.append(AxisWeights("linear", weights, intercept, note=note))
    return heads


def _all_classes(weights: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one row per class; scikit-learn keeps a single one for two classes."""
    if len(weights) > 1:
        return weights.copy(), np.array(intercept)
    halves = np.array([[-0.5], [0.5]])
    return halves * weights, halves[:, 0] * intercept[0]
