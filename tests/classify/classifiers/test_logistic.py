import numpy as np
import pytest
from scipy.optimize import OptimizeResult, check_grad
from sklearn.linear_model import LogisticRegression

from spk.classify.classifiers import logistic as module
from spk.classify.classifiers.linear import principal_axes
from spk.classify.classifiers.logistic import logistic_path

PENALTIES = (10.0, 1.0, 1e4, 100.0)
SCORES = 5e-4  # of scores up to 10: both stop at a gradient, not at the optimum
SHAPES = [(60, 90, 4), (300, 40, 4), (120, 60, 20), (80, 200, 2), (200, 20, 2)]


def cloud(rows, dim, classes, seed=0):
    """Return X turned onto its axes, unbalanced classes that overlap, and a second half of rows."""
    rng = np.random.default_rng(seed)
    y = np.concatenate(
        [np.arange(classes), (classes * rng.random(rows - classes) ** 2).astype(int)]
    )
    centres = rng.normal(size=(classes, dim))
    first, second = (0.6 * centres[y] + rng.normal(size=(rows, dim)) for _ in range(2))
    rotation = principal_axes(first)
    return rotation.train, y, rotation.project(second)


def differences(scores):
    """Return scores (m, classes) less their mean: all that names and probabilities depend on."""
    return scores - scores.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_penalty_gives_scikit_learns_scores_and_names(shape):
    train, y, rows = cloud(*shape)
    found = logistic_path(train, y, shape[2], PENALTIES)
    for penalty, (weights, intercept, converged) in zip(PENALTIES, found, strict=True):
        model = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=20000).fit(train, y)
        theirs = model.decision_function(rows)
        if theirs.ndim == 1:
            theirs = np.stack([-theirs, theirs], axis=1) / 2
        ours = rows @ weights.T + intercept
        np.testing.assert_allclose(differences(ours), differences(theirs), atol=SCORES)
        np.testing.assert_array_equal(ours.argmax(axis=1), model.predict(rows))
        assert converged


def test_the_gradient_is_the_slope_of_the_loss():
    train, y, _ = cloud(30, 6, 3)
    targets, rng = (np.arange(3) == y[:, None]).astype(float), np.random.default_rng(1)
    problem = module._Problem(train, targets, 2.5, rng.uniform(0.5, 3, size=7))
    point = rng.normal(size=21)
    error = check_grad(lambda p: problem.loss(p)[0], lambda p: problem.loss(p)[1], point)
    assert error < 1e-4 * np.linalg.norm(problem.loss(point)[1])


def test_rows_without_an_axis_have_the_shares_of_the_classes():
    y = np.array([0, 0, 0, 1, 2, 2])
    ((weights, intercept, converged),) = logistic_path(np.zeros((6, 0)), y, 3, [1.0])
    assert weights.shape == (3, 0)
    np.testing.assert_allclose(np.exp(intercept) / np.exp(intercept).sum(), [3 / 6, 1 / 6, 2 / 6])
    assert converged


def test_a_fit_that_runs_out_of_steps_says_so(monkeypatch):
    monkeypatch.setattr(module, "ITERATIONS", 2)
    train, y, _ = cloud(60, 90, 4)
    assert [done for *_, done in logistic_path(train, y, 4, [1.0])] == [False]


def test_a_line_search_that_fails_far_from_the_optimum_has_not_converged(monkeypatch):
    train, y, _ = cloud(60, 9, 3)

    def failing(loss, start, **_):
        return OptimizeResult(x=start, jac=loss(start)[1], nit=3, status=2, success=False)

    monkeypatch.setattr("scipy.optimize.minimize", failing)
    assert [there for *_, there in logistic_path(train, y, 3, PENALTIES)] == [False] * 4
