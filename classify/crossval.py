"""Every fold of one task, each held-out row scored by classifiers that did not learn it.

Where folds learn more rows than there are features, ridge, LDA and centroid come from sums that
are taken once (`sums`); else, and for the other classifiers, each fold's rows are turned once for
all classifiers and penalties (`linear.rotate`). Both equal a scikit-learn pipeline of scaler and
classifier fitted fold by fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..common.errors import InputError
from .classifiers import Fold, fit_path
from .data import LayerSet
from .linear import Rotation, rotate
from .sums import Cut, FoldSums, TotalSums, centroid_scores, lda_scores, ridge_scores

Paths = Mapping[str, Sequence[float | None]]  # penalties by classifier
Scores = dict[str, list[np.ndarray]]  # by classifier, one (m, classes) per penalty
ALONE = LayerSet((0,))
BY_SUMS = ("ridge", "lda", "centroid")


def cross_validate(
    X: np.ndarray,
    codes: np.ndarray,
    classes: int,
    cuts: Sequence[Cut],
    paths: Paths,
    *,
    seed: int = 0,
    layers: LayerSet = ALONE,
) -> tuple[Scores, dict[str, list[str]]]:
    """Score each held-out row once by every classifier and penalty.

    Parameters
    ----------
    X : (n, d) float
    codes : (n,) int, 0 .. `classes` - 1
    cuts : sequence of (learnt, held)
        Positions of rows; no row is held out twice.
    paths : {classifier: penalties}
        As `classifiers.penalties_of` gives them; LightGBM has no rows to stop by and is refused.
    layers : LayerSet
        Of `X`: tells how features are standardised, and the weights of a mix, which is always
        fitted on a fold's rows.

    Returns
    -------
    scores : {classifier: [(m, classes) float64 per penalty]}
        Rows in order of position; -inf where a fold's training rows lack the class.
    notes : {classifier: [str per penalty]}
        Of fits that did not converge.
    """
    return score_folds(TotalSums(X, codes, classes, cuts), paths, seed=seed, layers=layers)


def score_folds(
    rows: TotalSums, paths: Paths, *, seed: int = 0, layers: LayerSet = ALONE
) -> tuple[Scores, dict[str, list[str]]]:
    """Do what `cross_validate` does with rows that are cross-validated several times."""
    if "lightgbm" in paths:
        raise InputError(
            "lightgbm: 0 validation segments are given, expected at least 1 to stop by; "
            "leave lightgbm out of --classifiers, or --folds out"
        )
    X, codes, classes, way = rows.X, rows.codes, rows.classes, layers.standardise
    found = {name: [np.empty((0, classes))] * len(path) for name, path in paths.items()}
    notes = {name: [""] * len(path) for name, path in paths.items()}
    for number, (learnt, held) in enumerate(rows.cuts):
        many = len(learnt) > X.shape[1] and not layers.weights
        summed = many and not set(BY_SUMS).isdisjoint(paths)
        part = rows.without(number, way) if summed else None
        scored = _from_sums(part, X[held], paths) if part else {}
        rest = {name: path for name, path in paths.items() if name not in scored}
        if rest:
            rotation = rotate(X[learnt], layers.weights, way)
            scored |= _from_rows(rotation, codes[learnt], classes, X[held], rest, seed, notes)
        for name, blocks in scored.items():
            found[name] = [np.concatenate(pair) for pair in zip(found[name], blocks, strict=True)]
    order = np.argsort(np.concatenate([held for _, held in rows.cuts]))
    return {name: [block[order] for block in blocks] for name, blocks in found.items()}, notes


def _from_sums(sums: FoldSums, rows: np.ndarray, paths: Paths) -> Scores:
    """Return the scores of the classifiers that the sums give exactly."""
    found: Scores = {}
    strengths = {name: [p for p in path if p is not None] for name, path in paths.items()}
    if "centroid" in paths:
        found["centroid"] = [centroid_scores(sums, rows)]
    if "ridge" in paths:
        found["ridge"] = ridge_scores(sums, rows, strengths["ridge"])
    if "lda" in paths:
        blocks = lda_scores(sums, rows, strengths["lda"])
        if blocks is not None:
            found["lda"] = blocks
    return found


def _from_rows(
    rotation: Rotation,
    codes: np.ndarray,
    classes: int,
    rows: np.ndarray,
    paths: Paths,
    seed: int,
    notes: dict[str, list[str]],
) -> Scores:
    """Fit a fold's rows themselves; classes that they lack have -inf."""
    present, local = np.unique(codes, return_inverse=True)
    fold, turned = Fold(rotation, local, len(present), seed=seed), rotation.turn(rows)
    found: Scores = {}
    for name, path in paths.items():
        found[name] = [np.full((len(rows), classes), -np.inf) for _ in path]
        if len(present) == 1:  # nothing to tell apart
            for block in found[name]:
                block[:, present] = 0
            continue
        for number, head in enumerate(fit_path(name, fold, path)):
            found[name][number][:, present] = head.scores(rotation, rows, turned)
            notes[name][number] = notes[name][number] or head.note
    return found
