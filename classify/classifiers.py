"""Six classifiers by name, each fitted along a path of penalties within one fold.

Ridge, LDA and centroid are ours (`linear`), logistic regression is scikit-learn's problem, solved
on the axes (`logistic`), the linear SVM is scikit-learn's, trees are LightGBM's; all see training
rows standardised and turned by `linear.rotate`. A penalty is what grows with the regularisation:
ridge's alpha, LDA's shrinkage (0..1), 1/C of the others; ``None`` for centroid and LightGBM, whose
number of rounds the validation rows choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..common.errors import InputError
from .linear import Rotation, class_means, lda_path, ridge_path, unit
from .logistic import logistic_path
from .trees import END

PENALTIES: dict[str, tuple[float | None, ...]] = {
    "centroid": (None,),
    "ridge": (10.0, 100.0, 1e3, 1e4, 1e5),
    "lda": (0.01, 0.03, 0.1, 0.3, 0.6, 0.9),
    "logistic": (1.0, 10.0, 100.0, 1e3, 1e4),
    "linear-svm": (10.0, 100.0, 1e3, 1e4, 1e5),
    "lightgbm": (None,),
}
TREE_AXES = 64  # principal components the trees see
TREE_ROUNDS = 300  # at most; each grows one tree per class
TREE_PATIENCE = 20  # rounds without a better validation log-loss
ITERATIONS = 5000  # of liblinear; enough for every penalty above on 300 segments


@dataclass(frozen=True, eq=False)
class Fold:
    """Training rows of one task, turned, and the validation rows that may steer early stopping."""

    rotation: Rotation
    codes: np.ndarray
    classes: int
    valid: np.ndarray | None = None
    valid_codes: np.ndarray | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Head:
    """Fitted numbers on the axes of a rotation (cosine: on standardised features).

    `kind` is ``linear``, ``cosine`` or ``trees``; `note` tells of a fit that did not converge.
    """

    kind: str
    weights: np.ndarray
    intercept: np.ndarray
    booster: str = ""
    note: str = ""

    def scores(self, rotation: Rotation, X: np.ndarray, turned: np.ndarray) -> np.ndarray:
        """Return (m, classes) for rows `X`, of which `turned` is ``rotation.turn(X)``."""
        rows = rotation.standardise(X) if self.kind == "cosine" else turned
        return _scores(self.kind, rows, self.weights, self.intercept, self.booster)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted closed-set classifier: everything `scores` needs, and nothing else.

    Attributes
    ----------
    labels : tuple of str
        The candidates, in the order of the scores' columns.
    mean, scale : (d,) float64
    weights : (classes, d) float64
        For trees: the principal axes (k, d).
    intercept : (classes,) float64
    booster : str
        LightGBM's model text, else empty.
    """

    kind: str
    labels: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray
    booster: str = ""

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
    import lightgbm

    model = lightgbm.Booster(model_str=booster)
    rows = rows[:, : model.num_feature()]
    return np.asarray(model.predict(rows, raw_score=True, num_threads=1))


def finish(head: Head, rotation: Rotation, labels: Sequence[str]) -> Fitted:
    """Return a head as a classifier of raw features."""
    weights = head.weights
    if head.kind == "linear":
        weights = rotation.back(weights)
    elif head.kind == "trees":
        axes = np.eye(rotation.train.shape[1])[: min(TREE_AXES, rotation.train.shape[1])]
        weights = rotation.back(axes)
    return Fitted(
        head.kind,
        tuple(labels),
        rotation.mean,
        rotation.scale,
        weights,
        head.intercept,
        head.booster,
    )


def penalties_of(classifier: str, penalty: float | None = None) -> tuple[float | None, ...]:
    """Return the penalties to try: the default path, or the one given.

    Raises
    ------
    InputError
        The name is unknown, or the classifier takes no such penalty.
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


def fit_path(classifier: str, fold: Fold, penalties: Sequence[float | None]) -> list[Head]:
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
        return [Head("linear", *pair) for pair in pairs]
    if classifier == "lda":
        pairs = lda_path(fold.rotation, fold.codes, fold.classes, strengths)
        return [Head("linear", *pair) for pair in pairs]
    if classifier == "logistic":
        found = logistic_path(train, fold.codes, fold.classes, strengths)
        told = [_note(classifier, p, done) for p, (*_, done) in zip(strengths, found, strict=True)]
        return [Head("linear", *one[:2], note=note) for one, note in zip(found, told, strict=True)]
    return _svm_path(fold, strengths)


def _note(classifier: str, penalty: float, converged: bool) -> str:
    return "" if converged else f"{classifier} did not converge at penalty {penalty:g}"


def _centroid(fold: Fold) -> Head:
    rotation = fold.rotation
    means = rotation.back(class_means(rotation.train, fold.codes, fold.classes))
    if rotation.centred is None:  # back() of rows is exact: the axes are orthonormal
        return Head("cosine", unit(means), np.zeros(fold.classes))
    means = class_means(rotation.centred, fold.codes, fold.classes)
    return Head("cosine", unit(means), np.zeros(fold.classes))


def _svm_path(fold: Fold, penalties: Sequence[float]) -> list[Head]:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    model = LinearSVC(max_iter=ITERATIONS, dual="auto", random_state=fold.seed)
    axes = fold.rotation.train.shape[1]
    train = fold.rotation.train if axes else np.zeros((len(fold.codes), 1))
    heads = []
    for penalty in penalties:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # told by the note below
            model.set_params(C=1 / penalty).fit(train, fold.codes)
        note = _note("linear-svm", penalty, bool(np.max(model.n_iter_) < ITERATIONS))
        weights, intercept = _all_classes(model.coef_[:, :axes], model.intercept_)
        heads.append(Head("linear", weights, intercept, note=note))
    return heads


def _all_classes(weights: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return one row per class where scikit-learn keeps a single one for two classes."""
    if len(weights) > 1:
        return weights.copy(), np.array(intercept)
    halves = np.array([[-0.5], [0.5]])
    return halves * weights, halves[:, 0] * intercept[0]


def _trees(fold: Fold) -> Head:
    """Grow trees on the first principal components until validation log-loss stops falling."""
    import lightgbm

    if fold.valid is None or fold.valid_codes is None or not np.any(fold.valid_codes >= 0):
        raise InputError(
            "lightgbm: 0 validation segments are given, expected at least 1 to stop by; "
            "leave lightgbm out of --classifiers"
        )
    if not fold.rotation.train.shape[1]:  # every row is the same, which LightGBM does not take
        note = "lightgbm has nothing to split by, since all training rows are the same"
        return Head("linear", np.zeros((fold.classes, 0)), np.zeros(fold.classes), note=note)
    axes, known = min(TREE_AXES, fold.rotation.train.shape[1]), fold.valid_codes >= 0
    train = lightgbm.Dataset(fold.rotation.train[:, :axes], fold.codes)
    valid = lightgbm.Dataset(fold.valid[known, :axes], fold.valid_codes[known], reference=train)
    model = lightgbm.train(
        _tree_settings(fold),
        train,
        num_boost_round=TREE_ROUNDS,
        valid_sets=[valid],
        callbacks=[lightgbm.early_stopping(TREE_PATIENCE, verbose=False)],
    )
    text = model.model_to_string(num_iteration=model.best_iteration)
    text = text[: text.index(END)] + END  # without LightGBM's own settings
    return Head("trees", np.zeros((0, 0)), np.zeros(fold.classes), booster=text)


def _tree_settings(fold: Fold) -> dict[str, object]:
    return {
        "objective": "multiclass",
        "num_class": fold.classes,
        "learning_rate": 0.1,
        "num_leaves": 15,
        "min_data_in_leaf": 5,  # a meeting gives a speaker some fifty segments
        "max_bin": 63,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "seed": fold.seed,
        "verbosity": -1,
    }
