"""Layer weights for a mix, learnt by kernel ridge regression: >= 0, sum 1, shared by all tasks.

A layer's kernel holds the inner products of its rows, each feature standardised on the training
rows, scaled so that its trace is rows x features. Ridge regression on the weighted sum of the
kernels equals ridge on the concatenated layers, each multiplied by the square root of its weight
(`linear.principal_axes`). The weights minimise the squared error on validation rows (with folds: on
held-out rows), summed over tasks; test rows are not read. Accuracy on those same rows is therefore
biased in favour of a mix over single layers.

Source: Kivinen and Warmuth (1997), Exponentiated gradient versus gradient descent for linear
predictors; Cortes, Mohri and Rostamizadeh (2012), Algorithms for learning kernels based on centered
alignment (centred and trace-normalised kernels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...common.errors import InputError
from ...extract.store.reader import FeatureStore
from ...manifests.splits.tasks import Task
from ..classifiers.linear import feature_scale
from ..classifiers.registry import penalty_path
from ..features import LayerSet, Log, read_features
from ..options import SweepSettings
from .candidates import classifier_names

STEPS = 40
HALVINGS = 20  # at most, of a step that raises the error
LEAST_GAIN = 1e-5  # of a step, as a share of the error; a smaller gain ends the search
LEAST_WEIGHT = 1e-3  # layers with less are dropped
MOST_BYTES = 2e9  # of all kernels together

Cut = tuple[np.ndarray, np.ndarray]  # rows of the table: learnt, held out
Codes = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class FoldKernels:
    """Kernels of one cut of one task: n rows learnt, m held out, k layers, c classes.

    Attributes
    ----------
    learnt : (k, n, n) float64
    held_out : (k, m, n) float64
    targets : (n, c) float64
        1 for the class of a row, else -1, less `intercept`.
    intercept : (c,) float64
    truth : (m, c) float64
    """

    learnt: np.ndarray
    held_out: np.ndarray
    targets: np.ndarray
    intercept: np.ndarray
    truth: np.ndarray


def learn_layer_weights(
    ids: np.ndarray,
    store: FeatureStore,
    tasks: Sequence[Task],
    layers: Sequence[int],
    settings: SweepSettings,
    *,
    log: Log = lambda text: None,
) -> LayerSet:
    """Return the mix of `layers` with the least squared validation error over ridge's penalties.

    Parameters
    ----------
    ids : (n,) str
        Segment ids; `tasks` hold positions in it.

    Returns
    -------
    LayerSet
        With weights; layers below `LEAST_WEIGHT` are dropped, and a single remaining layer has
        none.

    Raises
    ------
    InputError
        The kernels would not fit in memory, or no validation label is known.
    """
    cuts = [cut for task in tasks for cut in _cuts(task)]
    _check(cuts, len(layers))
    parts = make_parts(ids, store, cuts, layers, settings.pooling_part)
    given = settings.penalty if "ridge" in classifier_names(settings) else None
    solutions = [
        exponentiated_gradient(parts, p) for p in penalty_path("ridge", given) if p is not None
    ]
    weights, errors = min(solutions, key=lambda pair: pair[1][-1])
    used = [int(k) for k in np.flatnonzero(weights >= LEAST_WEIGHT)]
    shares = weights[used] / weights[used].sum()
    listing = ", ".join(f"layer {layers[k]} {w:.3f}" for k, w in zip(used, shares, strict=True))
    log(f"mix: {listing}; squared error {errors[0]:.4f} with equal weights, {errors[-1]:.4f} so")
    if len(used) == 1:
        return LayerSet((layers[used[0]],))
    return LayerSet(tuple(layers[k] for k in used), "mix", tuple(map(float, shares)))


def _cuts(task: Task) -> list[tuple[Cut, Codes]]:
    """Return a task's cuts as rows of the table, with codes; rows of unknown label are left out."""
    rows, codes = task.rows["train"], task.codes["train"]
    if task.cuts:
        pairs = [((rows[a], rows[b]), (codes[a], codes[b])) for a, b in task.cuts]
    else:
        pairs = [((rows, task.rows["valid"]), (codes, task.codes["valid"]))]
    usable = [np.isin(held_out, learnt) for _, (learnt, held_out) in pairs]
    return [
        ((rows[0], rows[1][keep]), (codes[0], codes[1][keep]))
        for (rows, codes), keep in zip(pairs, usable, strict=True)
        if keep.any()
    ]


def _check(cuts: Sequence[tuple[Cut, Codes]], layers: int) -> None:
    if not cuts:
        raise InputError(
            "mix: 0 validation segments are of labels in train, expected at least 1 to learn "
            "weights by; leave out --combine mix, or pass --folds 5"
        )
    size = 8 * layers * sum(len(a) * (len(a) + len(b)) for (a, b), _ in cuts)
    if size > MOST_BYTES:
        raise InputError(
            f"mix: kernels of {layers} layers need {size / 1e9:.1f} GB, expected at most "
            f"{MOST_BYTES / 1e9:g}; name fewer layers, leave out --folds, or pass --within session"
        )


def make_parts(
    ids: np.ndarray,
    store: FeatureStore,
    cuts: Sequence[tuple[Cut, Codes]],
    layers: Sequence[int],
    pooling_part: str,
) -> list[FoldKernels]:
    """Return the kernels of all cuts, with one layer's features in memory at a time."""
    rows = np.unique(np.concatenate([np.concatenate(cut) for cut, _ in cuts]))
    pairs_of_cuts: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in cuts]
    for layer in layers:
        X = read_features(store, ids[rows], LayerSet((layer,)), pooling_part)
        for number, (cut, _) in enumerate(cuts):
            pairs_of_cuts[number].append(kernels(*(X[np.searchsorted(rows, part)] for part in cut)))
    return [_part(pairs, *codes) for pairs, (_, codes) in zip(pairs_of_cuts, cuts, strict=True)]


def kernels(learnt: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernels (n, n) of `learnt` (n, d), and (m, n) of `held_out` (m, d) with it.

    Features are standardised on the learnt rows, and the first kernel has trace n x d.
    """
    mean = learnt.mean(axis=0, dtype=np.float64)
    Z = np.subtract(learnt, mean, dtype=np.float64)
    scale = feature_scale(Z, mean)
    Z /= scale
    share = float(np.einsum("ij,ij->", Z, Z)) / Z.size or 1.0  # 0: every feature is constant
    return Z @ Z.T / share, (held_out - mean) / scale @ Z.T / share


def _part(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], learnt: np.ndarray, held_out: np.ndarray
) -> FoldKernels:
    classes = np.unique(learnt)
    targets, truth = (
        np.where(classes == codes[:, None], 1.0, -1.0) for codes in (learnt, held_out)
    )
    intercept = targets.mean(axis=0)
    first, second = (np.stack(side) for side in zip(*pairs, strict=True))
    return FoldKernels(first, second, targets - intercept, intercept, truth)


def squared_error(
    parts: Sequence[FoldKernels], weights: np.ndarray, penalty: float
) -> tuple[float, np.ndarray]:
    """Return ridge's mean squared error over held-out rows and classes, and its gradient (k,)."""
    from scipy.linalg import cho_factor, cho_solve

    error, slope = 0.0, np.zeros(len(weights))
    for part in parts:
        matrix = np.tensordot(weights, part.learnt, 1)
        matrix[np.diag_indices_from(matrix)] += penalty
        factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        dual = cho_solve(factor, part.targets, check_finite=False)
        rows = np.tensordot(weights, part.held_out, 1)
        gap = rows @ dual + part.intercept - part.truth
        back = cho_solve(factor, rows.T @ gap, check_finite=False)
        error += float(np.sum(gap**2)) / gap.shape[1]
        turn = np.tensordot(part.held_out, gap @ dual.T, 2)
        slope += 2 / gap.shape[1] * (turn - np.tensordot(part.learnt, back @ dual.T, 2))
    count = sum(len(part.truth) for part in parts)
    return error / count, slope / count


def exponentiated_gradient(
    parts: Sequence[FoldKernels], penalty: float
) -> tuple[np.ndarray, list[float]]:
    """Return weights (k,) at one penalty, and the error at each step, starting at equal weights.

    Exponentiated gradient; a step that would raise the error is halved, so the error never rises.
    """
    weights = np.full(len(parts[0].learnt), 1 / len(parts[0].learnt))
    error, slope = squared_error(parts, weights, penalty)
    errors, rate = [error], 1 / max(float(np.ptp(slope)), np.finfo(np.float64).tiny)
    for _ in range(STEPS):
        for _ in range(HALVINGS):
            tried = weights * np.exp(-rate * (slope - slope.min()))
            tried /= tried.sum()
            outcome = squared_error(parts, tried, penalty)
            if outcome[0] <= error:
                break
            rate /= 2
        else:
            break
        gain = error - outcome[0]
        weights, (error, slope), rate = tried, outcome, 2 * rate
        errors.append(error)
        if gain <= LEAST_GAIN * error:
            break
    return weights, errors
