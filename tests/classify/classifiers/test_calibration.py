import numpy as np
import pytest
from scipy.special import softmax

from spk.classify.classifiers.calibration import (
    calibrated,
    find_temperature,
    pad,
    probabilities,
    soft_targets,
)

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


def test_curves_of_a_folder_of_before_are_followed_and_normalised():
    knots = np.array([[0, 0, 0.1], [0, 0.5, 0.2], [0, 1, 0.8], [1, 0, 0], [1, 1, 1]])
    scores = np.log([[0.75, 0.25], [0.25, 0.75]])
    expected = np.array([[0.5, 0.25], [0.15, 0.75]])  # between the knots, by hand
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(calibrated(scores, 1.0, knots), expected, atol=EXACT)
    np.testing.assert_allclose(calibrated(scores, 1.0, None), np.exp(scores), atol=EXACT)
