"""Temperature scaling: scores become probabilities, calibrated on validation rows.

Older model folders may also hold one isotonic curve per class, which `calibrated` applies to the
temperature-scaled probabilities.

Source: Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks, 4.2.
Targets are softened as in Platt (1999), so that a validation set without errors does not lead to
probabilities of 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CALIBRATIONS = ("temperature", "isotonic")  # isotonic: in old model folders only
LOG_RANGE = 14.0  # natural logarithm; scores differ by classifier from 1e-3 to 1e4


def pad(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Stack score blocks (n_i, classes_i) into (sum of n_i, most classes), padded with -inf."""
    width = max(block.shape[1] for block in blocks)
    padded = [
        np.pad(block, ((0, 0), (0, width - block.shape[1])), constant_values=-np.inf)
        for block in blocks
    ]
    return np.concatenate(padded)


def probabilities(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax(scores / temperature) by row; (n, classes), -inf gives 0.

    >>> probabilities(np.array([[0.0, np.log(3)]]), 1.0).round(6)
    array([[0.25, 0.75]])
    """
    scaled = (scores - scores.max(axis=1, keepdims=True)) / temperature
    powers = np.exp(scaled)
    return powers / powers.sum(axis=1, keepdims=True)


def find_temperature(scores: np.ndarray, codes: np.ndarray) -> float:
    """Return the temperature (> 0) that minimises softened log-loss; 1.0 without a known label.

    Parameters
    ----------
    scores : (n, classes) float64
        -inf if a row has no such candidate.
    codes : (n,) int
        True class; -1 (no training segment) is left out.
    """
    from scipy.optimize import minimize_scalar

    scores, codes = scores[codes >= 0], codes[codes >= 0]
    if not len(codes):
        return 1.0
    shifted = scores - scores.max(axis=1, keepdims=True)
    expected = np.sum(np.where(np.isfinite(shifted), shifted, 0) * soft_targets(scores, codes), 1)

    def loss(log_inverse: float) -> float:
        inverse = np.exp(log_inverse)
        return float(np.mean(np.log(np.exp(inverse * shifted).sum(axis=1)) - inverse * expected))

    best = minimize_scalar(loss, bounds=(-LOG_RANGE, LOG_RANGE), method="bounded")
    return float(np.exp(-best.x))


def soft_targets(scores: np.ndarray, codes: np.ndarray, count: int | None = None) -> np.ndarray:
    """Return (n, classes): (n + 1) / (n + 2) for the true class, the rest shared by the others.

    `count` replaces n where other rows share the temperature.
    """
    rows = np.arange(len(codes))
    candidates = np.isfinite(scores)
    rest = 1 / ((count or len(codes)) + 2)
    others = np.maximum(candidates.sum(axis=1, keepdims=True) - 1, 1)
    targets = np.where(candidates, rest / others, 0.0)
    targets[rows, codes] = 1 - rest
    return targets


def calibrated(scores: np.ndarray, temperature: float, knots: np.ndarray | None) -> np.ndarray:
    """Return probabilities (n, classes) of finite `scores`.

    Parameters
    ----------
    knots : (m, 3) float64 or None
        One isotonic curve per class: class, probability before, probability after. None: the
        temperature alone.
    """
    chances = probabilities(scores, temperature)
    if knots is None:
        return chances
    curves = [knots[knots[:, 0] == label, 1:].T for label in range(scores.shape[1])]
    risen = np.column_stack(
        [np.interp(column, *curve) for column, curve in zip(chances.T, curves, strict=True)]
    )
    return risen / risen.sum(axis=1, keepdims=True)
