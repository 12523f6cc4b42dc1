import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage

from spk.classify.naming import scoring
from spk.classify.naming.scoring import PLAIN, WHITENED, fit_scorer
from spk.classify.naming.stretches import Stretches


def stretches_of(persons, means, seconds=None):
    seconds = np.full(len(means), 5.0) if seconds is None else seconds
    sums = (means * seconds[:, None]).astype(np.float32)
    return Stretches(np.array(persons), np.array(["s"] * len(means)), seconds, sums)


@pytest.fixture
def enrolled():
    rng = np.random.default_rng(3)
    persons = np.repeat(["A", "B", "C", "D"], 10)
    shape = rng.normal(size=(6, 6))
    means = np.repeat(rng.normal(size=(4, 6)), 10, axis=0) + rng.normal(size=(40, 6)) @ shape
    return stretches_of(persons, means)


def by_hand(enrolled, X):
    """Return scores by a full covariance and its inverse root."""
    means, persons = enrolled.means, enrolled.persons
    centres = np.stack([means[persons == name].mean(axis=0) for name in "ABCD"])
    residuals = means - np.repeat(centres, 10, axis=0)
    scale = np.sqrt((residuals**2).mean(axis=0))
    residuals = residuals / scale
    share = max(ledoit_wolf_shrinkage(residuals, assume_centered=True), 0.1)
    covariance = residuals.T @ residuals / len(residuals)
    mean = np.trace(covariance) / len(covariance)
    values, vectors = np.linalg.eigh((1 - share) * covariance + share * mean * np.eye(6))
    root = vectors / np.sqrt(values) @ vectors.T
    models, asked = ((rows - centres.mean(axis=0)) / scale @ root for rows in (centres, X))
    models /= np.linalg.norm(models, axis=1, keepdims=True)
    return asked / np.linalg.norm(asked, axis=1, keepdims=True) @ models.T


def test_scores_are_cosines_after_centring_and_whitening_by_the_shrunk_covariance(enrolled):
    X = np.random.default_rng(4).normal(size=(5, 6))
    assert np.allclose(fit_scorer(enrolled).scores(X), by_hand(enrolled, X), atol=1e-5)


def test_more_features_than_stretches_are_whitened_alike(monkeypatch):
    rng = np.random.default_rng(5)
    residuals = rng.normal(size=(7, 30))
    axes, gains = scoring._whitening(residuals)
    share = max(ledoit_wolf_shrinkage(residuals, assume_centered=True), 0.1)
    covariance = residuals.T @ residuals / 7
    mean = np.trace(covariance) / 30
    whole = (1 - share) * covariance / mean + share * np.eye(30)
    root = np.eye(30) + axes * gains @ axes.T
    assert np.allclose(root @ whole @ root, share * np.eye(30), atol=1e-8)


def test_a_persons_own_vector_scores_one_and_the_centre_is_no_persons(enrolled):
    scorer = fit_scorer(enrolled)
    own = np.stack([enrolled.of(enrolled.persons == name).mean() for name in scorer.names])
    assert np.allclose(np.diag(scorer.scores(own)), 1)
    assert np.allclose(scorer.models.sum(axis=1) @ np.ones(4), scorer.models.sum())
    assert scorer.method == WHITENED


def test_whom_there_is_more_speech_of_does_not_move_the_centre():
    rng = np.random.default_rng(6)
    means = rng.normal(size=(9, 4))
    persons = np.array(list("ABCABCABC"))
    equal = fit_scorer(stretches_of(persons, means))
    seconds = np.where(persons == "A", 50.0, 5.0)
    assert np.allclose(fit_scorer(stretches_of(persons, means, seconds)).centre, equal.centre)
    more = [*range(9), 0, 3, 6]  # those of A once more
    assert np.allclose(fit_scorer(stretches_of(persons[more], means[more])).centre, equal.centre)


def test_two_persons_are_not_centred_on_and_that_is_said(enrolled):
    two = fit_scorer(enrolled.of(np.isin(enrolled.persons, ["A", "B"])))
    assert two.method == PLAIN
    assert not two.centre.any()
    assert fit_scorer(enrolled.of(enrolled.persons == "A")).scores(enrolled.means).shape == (40, 1)


def test_a_feature_that_never_changes_makes_no_nan(enrolled):
    means = enrolled.means
    means[:, 0] = 7.0
    scores = fit_scorer(stretches_of(enrolled.persons, means)).scores(means)
    assert np.isfinite(scores).all()
    flat = fit_scorer(stretches_of(enrolled.persons, np.ones((40, 3))))
    assert np.isfinite(flat.scores(np.ones((1, 3)))).all()
