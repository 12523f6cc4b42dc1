"""Logistic regression over a path of penalties, on the principal axes of the training rows.

The problem is scikit-learn's (L2 penalty, free intercept; softmax, or a single logit for two
classes), solved by SciPy's L-BFGS with diagonal preconditioning. On principal axes a diagonal
suffices: the curvature of the loss is bounded by one (for equal probabilities, squares of the axis
times p (1 - p)), and that of the penalty is one.

Source: Boehning (1992), Multinomial logistic regression algorithm (the bound); Nocedal and Wright
(2006), Numerical Optimization, 5.1 (preconditioning), 7.2 (L-BFGS).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-6  # of the gradient's largest entry, in the units of `_Problem`
NEAR = 10  # times the tolerance: accepted where L-BFGS reports a failure
LEAST_GAIN = 64 * np.finfo(np.float64).eps  # of a step, as a share of the loss
ITERATIONS = 5000


@dataclass(frozen=True, eq=False)
class _Problem:
    """The penalised loss of n training rows on r axes at one penalty.

    Attributes
    ----------
    train : (n, r) float64
    targets : (n, classes) float64
        1 for the class of a row, else 0.
    penalty : float
        Half of it weighs the squared norm of all weights.
    units : (r + 1,) float64
        Preconditioner: factors of the weights and, last, of the intercept.
    """

    train: np.ndarray
    targets: np.ndarray
    penalty: float
    units: np.ndarray

    def loss(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the loss at `point` ((r + 1) x classes,) in these units, and its gradient."""
        weights = point.reshape(len(self.units), -1) / self.units[:, None]
        scores = self.train @ weights[:-1] + weights[-1]
        scores -= scores.max(axis=1, keepdims=True)
        likely = float(np.vdot(scores, self.targets))
        chances = np.exp(scores, out=scores)
        total = chances.sum(axis=1, keepdims=True)
        chances /= total
        chances -= self.targets
        shrunk = self.penalty * weights[:-1]
        loss = float(np.log(total).sum()) - likely + 0.5 * float(np.vdot(shrunk, weights[:-1]))
        gradient = np.concatenate([self.train.T @ chances + shrunk, [chances.sum(axis=0)]])
        return loss, (gradient / self.units[:, None]).ravel()


def logistic_path(
    train: np.ndarray, codes: np.ndarray, classes: int, penalties: Sequence[float]
) -> list[tuple[np.ndarray, np.ndarray, bool]]:
    """Fit from the strongest penalty to the weakest, each from the previous solution.

    Parameters
    ----------
    train : (n, r) float64
        `Rotation.train`: centred, orthogonal columns.
    codes : (n,) int
        Classes, 0 .. `classes` - 1.
    penalties : sequence of float, > 0
        scikit-learn's ``1 / C``.

    Returns
    -------
    list of (weights (classes, r), intercept (classes,), whether it converged)
    """
    from scipy.optimize import minimize

    targets = (np.arange(classes) == codes[:, None]).astype(np.float64)
    squares = np.append(np.einsum("ij,ij->j", train, train), len(train))
    weights = np.zeros((len(squares), classes))
    heads = {}
    for penalty in sorted(penalties, reverse=True):
        # one logit has one squared norm, which two opposite vectors share
        strength = 2 * penalty if classes == 2 else penalty
        bends = squares * (1 - 1 / classes) / classes
        bends[:-1] += strength
        problem = _Problem(train, targets, strength, np.sqrt(bends))
        optimum = minimize(
            problem.loss,
            (weights * problem.units[:, None]).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"gtol": TOLERANCE, "ftol": LEAST_GAIN, "maxiter": ITERATIONS},
        )
        weights = optimum.x.reshape(weights.shape) / problem.units[:, None]
        # rounding can end a line search near the optimum, which counts as success
        there = optimum.success or bool(np.abs(optimum.jac).max() <= NEAR * TOLERANCE)
        heads[penalty] = (weights[:-1].T.copy(), weights[-1].copy(), there)
    return [heads[penalty] for penalty in penalties]
