"""One temperature for all tasks, one for each, and how far validation carries them.

With few validation rows the temperature of least log-loss is one that chance may have chosen. So
the gain in log-loss over even probabilities is compared with its own standard error: without
evidence probabilities are even, with much of it the temperature stays what it was. A task's own
temperature is drawn to the shared one, from which only its own rows draw it away.

Source: James and Stein (1961), Estimation with quadratic loss (the factor ``1 - 1/z^2``, here its
positive part).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .calibration import find_temperature, pad, soft_targets

ENOUGH = 30  # validation rows; fewer leave a share of rightly named ones 18 points to either side
SPREAD = 1.0  # of the tasks' temperatures about the shared one: standard deviation of their ln
FLATTEST = 1e-3  # trust where there is no evidence: even probabilities, in the scores' order
SEARCH = 8.0  # to either side of the shared temperature, natural logarithm


def shared_temperature(scores: np.ndarray, codes: np.ndarray) -> float:
    """Return the temperature (> 0) for rows of all tasks, as far as they carry it.

    Parameters
    ----------
    scores : (n, classes) float64
        -inf where a row has no such candidate.
    codes : (n,) int
        True class; -1 is left out. Without any true class probabilities are even.
    """
    known = codes >= 0
    if not known.any():
        return _scale(scores) / FLATTEST
    temperature = find_temperature(scores, codes)
    return temperature / trust(scores[known], codes[known], temperature)


def task_temperatures(
    blocks: Sequence[np.ndarray], codes: Sequence[np.ndarray]
) -> tuple[float, ...]:
    """Return the temperature of each task, from its scores (n_i, classes_i) and codes (n_i,).

    A task without a row of known class has the shared one.
    """
    known = [code >= 0 for code in codes]
    scores = [block[rows] for block, rows in zip(blocks, known, strict=True)]
    truth = [code[rows] for code, rows in zip(codes, known, strict=True)]
    count = sum(map(len, truth))
    if not count:
        return (shared_temperature(pad(blocks), np.concatenate(codes)),) * len(blocks)
    padded, every = pad(scores), np.concatenate(truth)
    shared = find_temperature(padded, every)
    carried = trust(padded, every, shared)
    own = (_near(part, code, shared, count) for part, code in zip(scores, truth, strict=True))
    return tuple(temperature / carried for temperature in own)


def trust(scores: np.ndarray, codes: np.ndarray, temperature: float) -> float:
    """Return how far rows carry their temperature, `FLATTEST` to 1: ``1 - 1/z^2``.

    z is the mean gain in softened log-loss over even probabilities in its standard errors.

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
    """Return the largest difference of a row's scores, 1 where nothing differs."""
    finite = np.where(np.isfinite(scores), scores, np.nan)
    if not np.isfinite(scores).any():
        return 1.0
    return float(np.nanmax(np.nanmax(finite, axis=1) - np.nanmin(finite, axis=1))) or 1.0
