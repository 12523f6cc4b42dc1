import numpy as np
import pytest
from scipy.special import softmax

from spk.classify.classifiers.calibration import find_temperature, pad, probabilities
from spk.classify.classifiers.temperatures import (
    FLATTEST,
    shared_temperature,
    task_temperatures,
    trust,
)

CLOSE = 0.02  # of a factor that thousands of rows leave uncertain


def drawn(rows, temperature, seed=0, classes=4):
    """Return scores (rows, classes) and labels that softmax(scores / temperature) gives."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(rows, classes))
    chances = softmax(scores / temperature, axis=1)
    return scores, np.array([rng.choice(classes, p=row) for row in chances], dtype=int)


def test_many_rows_carry_the_temperature_of_least_log_loss():
    scores, codes = drawn(20000, 0.4)
    assert shared_temperature(scores, codes) == pytest.approx(
        find_temperature(scores, codes), rel=CLOSE
    )


def test_the_factor_is_one_less_the_squared_error_over_the_gain():
    scores, codes = drawn(60, 0.5)
    temperature = find_temperature(scores, codes)
    chances = probabilities(scores, temperature)
    targets = np.full(scores.shape, 1 / 62 / 3)
    targets[np.arange(60), codes] = 61 / 62
    gain = np.log(4) + np.sum(targets * np.log(chances), axis=1)
    z = gain.mean() / (gain.std(ddof=1) / np.sqrt(60))
    assert trust(scores, codes, temperature) == pytest.approx(1 - 1 / z**2)


def test_without_evidence_probabilities_are_even_in_the_scores_order():
    rng = np.random.default_rng(3)
    scores, codes = rng.normal(size=(12, 5)), rng.integers(0, 5, 12)
    for labels in (codes, np.full(12, -1)):
        chances = probabilities(scores, shared_temperature(scores, labels))
        np.testing.assert_allclose(chances, 0.2, atol=0.01)
        np.testing.assert_array_equal(chances.argmax(axis=1), scores.argmax(axis=1))
    assert trust(scores, codes, find_temperature(scores, codes)) == FLATTEST
    assert np.isfinite(shared_temperature(np.zeros((0, 3)), np.zeros(0, int)))


def test_each_task_gets_its_own_temperature_where_its_rows_carry_it():
    blocks, codes = zip(drawn(4000, 0.3, 0), drawn(4000, 1.2, 1, classes=3), strict=True)
    first, second = task_temperatures(blocks, codes)
    assert first == pytest.approx(0.3, rel=0.1)
    assert second == pytest.approx(1.2, rel=0.1)


def test_a_task_of_few_rows_stays_near_the_shared_temperature():
    blocks, codes = zip(drawn(4000, 0.3, 0), drawn(3, 1.2, 1), drawn(0, 1.0), strict=True)
    shared = shared_temperature(pad(blocks), np.concatenate(codes))
    _, few, none = task_temperatures(blocks, codes)
    assert 0.5 < few / shared < 2
    assert none == pytest.approx(shared, rel=CLOSE)
