import numpy as np
import pytest
from scipy.special import softmax

from spk.classify.classifiers.calibration import (
    calibrated,
    find_temperature,
    fit_curves,
    pad,
    probabilities,
    soft_targets,
)
from spk.classify.metrics import calibration_error

EXACT = 1e-12  # the same formula


def test_probabilities_are_scipys_softmax():
    scores = np.random.default_rng(0).normal(size=(20, 5)) * 30
    expected = softmax(scores / 2.5, axis=1)
    np.testing.assert_allclose(probabilities(scores, 2.5), expected, atol=EXACT)


def test_a_missing_candidate_has_probability_zero():
    scores = pad([np.array([[0.0, 0.0]]), np.array([[1.0, 1, 1]])])
    np.testing.assert_allclose(probabilities(scores, 1.0), [[0.5, 0.5, 0], [1 / 3] * 3])


def test_the_temperature_that_made_the_labels_is_found():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(20000, 4))
    truth = np.array([rng.choice(4, p=row) for row in softmax(scores / 0.4, axis=1)])
    assert find_temperature(scores, truth) == pytest.approx(0.4, rel=0.05)  # of 20,000 draws


def test_temperature_is_the_minimum_on_a_grid():
    rng = np.random.default_rng(2)
    scores = pad([rng.normal(size=(30, 3)), rng.normal(size=(20, 5))])
    truth = np.where(rng.random(50) < 0.7, scores.argmax(axis=1), 0)
    targets = soft_targets(scores, truth)

    def loss(temperature):
        chances = probabilities(scores, temperature)
        return -np.sum(targets * np.log(np.where(chances > 0, chances, 1)))

    grid = np.geomspace(0.01, 100, 4001)
    best = grid[np.argmin([loss(temperature) for temperature in grid])]
    assert find_temperature(scores, truth) == pytest.approx(best, rel=5e-3)  # the grid's step


def test_validation_without_a_mistake_gives_no_certainty():
    scores = np.eye(3)[np.arange(30) % 3] * 5
    chances = probabilities(scores, find_temperature(scores, np.arange(30) % 3))
    assert chances.max() == pytest.approx(31 / 32, abs=1e-4)  # (n + 1) / (n + 2)


def test_labels_without_training_segments_do_not_steer_the_temperature():
    rng = np.random.default_rng(3)
    scores, truth = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    more = np.concatenate([scores, rng.normal(size=(9, 3))])
    codes = np.concatenate([truth, np.full(9, -1)])
    assert find_temperature(more, codes) == find_temperature(scores, truth)
    assert find_temperature(scores, np.full(40, -1)) == 1.0


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_calibrated_probabilities_do_not_depend_on_the_scale_of_scores(scale):
    rng = np.random.default_rng(4)
    scores, truth = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    truth = np.where(rng.random(60) < 0.6, scores.argmax(axis=1), truth)
    plain = probabilities(scores, find_temperature(scores, truth))
    scaled = probabilities(scores * scale, find_temperature(scores * scale, truth))
    np.testing.assert_allclose(scaled, plain, atol=1e-4)  # minimize_scalar's tolerance


def test_curves_are_scipys_isotonic_regression_of_softened_targets_normalised():
    from scipy.optimize import isotonic_regression

    rng = np.random.default_rng(5)
    scores, codes = rng.normal(size=(80, 3)) * 2, rng.integers(0, 3, 80)
    codes = np.where(rng.random(80) < 0.6, scores.argmax(axis=1), codes)
    chances = softmax(scores / 1.7, axis=1)
    risen = np.empty_like(chances)
    for label in range(3):
        order, right = np.argsort(chances[:, label]), codes == label
        low, high = 1 / (np.sum(~right) + 2), (np.sum(right) + 1) / (np.sum(right) + 2)
        risen[order, label] = isotonic_regression(np.where(right, high, low)[order]).x
    expected = risen / risen.sum(axis=1, keepdims=True)
    found = calibrated(scores, 1.7, fit_curves(scores, codes, 1.7))
    np.testing.assert_allclose(found, expected, atol=EXACT)


def test_curves_mend_what_a_temperature_cannot():
    rng = np.random.default_rng(6)
    true = rng.dirichlet(np.ones(3), size=8000)
    truth = np.array([rng.choice(3, p=row) for row in true])
    scores = np.log(true) ** 3  # the order is kept, no temperature undoes it
    seen, new = slice(0, 4000), slice(4000, None)
    temperature = find_temperature(scores[seen], truth[seen])
    errors = []
    for knots in (None, fit_curves(scores[seen], truth[seen], temperature)):
        chances = calibrated(scores[new], temperature, knots)
        right = chances.argmax(axis=1) == truth[new]
        errors.append(calibration_error(chances.max(axis=1), right))
    assert errors[1] < errors[0] / 2


def test_a_class_without_validation_rows_keeps_the_temperatures_probabilities():
    scores, codes = np.random.default_rng(7).normal(size=(30, 3)), np.arange(30) % 2
    knots = fit_curves(scores, codes, 0.5)
    np.testing.assert_array_equal(knots[knots[:, 0] == 2], [[2, 0, 0], [2, 1, 1]])
    nobody = fit_curves(scores, np.full(30, -1), 0.5)
    np.testing.assert_allclose(calibrated(scores, 0.5, nobody), probabilities(scores, 0.5))


def test_rows_of_unknown_labels_and_missing_candidates_are_in_no_curve():
    rng = np.random.default_rng(8)
    scores, codes = rng.normal(size=(40, 3)), rng.integers(0, 3, 40)
    knots = fit_curves(scores, codes, 1.0)
    more = np.concatenate([scores, rng.normal(size=(9, 3))])
    np.testing.assert_array_equal(
        fit_curves(more, np.concatenate([codes, np.full(9, -1)]), 1.0), knots
    )
    fewer = np.concatenate([scores, np.tile([0.0, 1.0, -np.inf], (9, 1))])
    found = fit_curves(fewer, np.concatenate([codes, np.ones(9, int)]), 1.0)
    np.testing.assert_array_equal(found[found[:, 0] == 2], knots[knots[:, 0] == 2])


def test_curves_never_give_certainty():
    scores = np.eye(3)[np.arange(30) % 3] * 5
    chances = calibrated(scores, 0.01, fit_curves(scores, np.arange(30) % 3, 0.01))
    high, low = 11 / 12, 1 / 22  # Platt's targets of 10 against 20
    assert chances.max() == pytest.approx(high / (high + 2 * low))
    assert chances.min() == pytest.approx(low / (high + 2 * low))
