"""Temperatures shared by all tasks and per task, shrunk if validation has little evidence.

With few validation rows, the temperature of lowest log-loss may be a product of chance. The gain in
log-loss over uniform probabilities is therefore compared with its standard error: without evidence
probabilities are uniform, with strong evidence the temperature is unchanged. Each task's own
temperature is shrunk towards the shared one.

Source: James and Stein (1961), Estimation with quadratic loss (the factor ``1 - 1/z^2``, here its
positive part).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .calibration import find_temperature, pad, soft_targets

ENOUGH = 30  # validation rows; with fewer, an accuracy is uncertain by 18 points either way
SPREAD = 1.0  # standard deviation of ln temperature of tasks about the shared one
FLATTEST = 1e-3  # trust without evidence: uniform probabilities, in the order of the scores
SEARCH = 8.0  # to either side of the shared temperature, natural logarithm


def shared_temperature(scores: np.ndarray, codes: np.ndarray) -> float:
    """Return the temperature (> 0) for the rows of all tasks, shrunk by `trust`.

    Parameters
    ----------
    scores : (n, classes) float64
        -inf if a row has no such candidate.
    codes : (n,) int
        True class; -1 is left out. Without any true class, probabilities are uniform.
    """
    labelled = codes >= 0
    if not labelled.any():
        return _scale(scores) / FLATTEST
    temperature = find_temperature(scores, codes)
    return temperature / trust(scores[labelled], codes[labelled], temperature)


def task_temperatures(
    blocks: Sequence[np.ndarray], codes: Sequence[np.ndarray]
) -> tuple[float, ...]:
    """Return the temperature of each task, from its scores (n_i, classes_i) and codes (n_i,).

    A task without labelled rows gets the shared temperature.
    """
    labelled = [code >= 0 for code in codes]
    scores = [block[rows] for block, rows in zip(blocks, labelled, strict=True)]
    truth = [code[rows] for code, rows in zip(codes, labelled, strict=True)]
    count = sum(map(len, truth))
    if not count:
        return (shared_temperature(pad(blocks), np.concatenate(codes)),) * len(blocks)
    padded, every = pad(scores), np.concatenate(truth)
    shared = find_temperature(padded, every)
    carried = trust(padded, every, shared)
    own = (_near(part, code, shared, count) for part, code in zip(scores, truth, strict=True))
    return tuple(temperature / carried for temperature in own)


def trust(scores: np.ndarray, codes: np.ndarray, temperature: float) -> float:
    """Return how far rows support their temperature, ``1 - 1/z^2`` from `FLATTEST` to 1.

    z is the mean gain in softened log-loss over uniform probabilities, in standard errors.

    Parameters
    ----------
    codes : (n,) int, >= 0
    """
    targets = soft_targets(scores, codes)
    even = np.log(np.isfinite(scores).sum(axis=1))
    gain = even - _losses(scores, targets, 1 / temperature)
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
    mean = gain.mean()
    return FLATTEST if mean <= error else max(FLATTEST, 1 - (error / mean) ** 2)


def _losses(scores: np.ndarray, targets: np.ndarray, inverse: float) -> np.ndarray:
    """Return the cross-entropy (n,) of `targets` with ``softmax(inverse * scores)``."""
    shifted = inverse * (scores - scores.max(axis=1, keepdims=True))
    expected = np.sum(np.where(np.isfinite(shifted), shifted, 0) * targets, axis=1)
    return np.log(np.exp(shifted).sum(axis=1)) - expected


def _near(scores: np.ndarray, codes: np.ndarray, shared: float, count: int) -> float:
    """Return a task's own temperature; `count` rows of all tasks soften its targets."""
    from scipy.optimize import minimize_scalar

    if not len(codes):
        return shared
    targets = soft_targets(scores, codes, count)

    def loss(log_factor: float) -> float:
        inverse = np.exp(log_factor) / shared
        return float(_losses(scores, targets, inverse).sum() + (log_factor / SPREAD) ** 2 / 2)

    best = minimize_scalar(loss, bounds=(-SEARCH, SEARCH), method="bounded")
    return float(shared / np.exp(best.x))


def _scale(scores: np.ndarray) -> float:
    """Return the largest difference of a row's scores, 1 if nothing differs."""
    finite = np.where(np.isfinite(scores), scores, np.nan)
    if not np.isfinite(scores).any():
        return 1.0
    return float(np.nanmax(np.nanmax(finite, axis=1) - np.nanmin(finite, axis=1))) or 1.0
