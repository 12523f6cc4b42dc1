import numpy as np
import pytest

from spk.classify.classifiers.calibration import probabilities
from spk.classify.classifiers.fitted import TREE_AXES, TrainingSet, to_feature_space
from spk.classify.classifiers.linear import principal_axes
from spk.classify.classifiers.registry import PENALTIES, fit_path, penalty_path
from spk.common.errors import InputError

EXACT = 1e-8  # weights turned back and forth


@pytest.fixture
def parts():
    """Return training and validation rows and codes: three classes, 100 features."""
    rng = np.random.default_rng(0)
    codes = np.arange(120) % 3
    X = (rng.normal(size=(120, 100)) + 2 * rng.normal(size=(3, 100))[codes]).astype(np.float32)
    return X[:90], codes[:90], X[90:], codes[90:]


def make_fold(parts, seed=0):
    X, codes, valid, valid_codes = parts
    rotation = principal_axes(X)
    return TrainingSet(rotation, codes, 3, rotation.project(valid), valid_codes, seed)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_finished_classifier_scores_as_its_head_does(parts, name):
    fold, valid = make_fold(parts), parts[2]
    for head in fit_path(name, fold, penalty_path(name)):
        fitted = to_feature_space(head, fold.rotation, "abc")
        expected = head.scores(fold.rotation, valid, fold.valid)
        np.testing.assert_allclose(fitted.scores(valid), expected, rtol=EXACT, atol=EXACT)
        assert expected.shape == (30, 3)


@pytest.mark.parametrize("name", PENALTIES)
def test_classes_that_lie_apart_are_told_apart(parts, name):
    fold = make_fold(parts)
    head = fit_path(name, fold, penalty_path(name))[0]
    right = head.scores(fold.rotation, parts[2], fold.valid).argmax(axis=1) == parts[3]
    assert right.mean() > 0.9  # chance is 1/3
    assert head.note == ""


@pytest.mark.parametrize("name", PENALTIES)
def test_the_same_seed_gives_the_same_bytes(parts, name):
    first, again = (fit_path(name, make_fold(parts), penalty_path(name))[0] for _ in range(2))
    assert first.weights.tobytes() == again.weights.tobytes()
    assert first.booster == again.booster


def test_trees_stop_early_on_few_principal_components(parts):
    import lightgbm

    head = fit_path("lightgbm", make_fold(parts), [None])[0]
    model = lightgbm.Booster(model_str=head.booster)
    assert model.num_feature() == TREE_AXES
    assert model.num_trees() < 3 * 300


def test_trees_score_before_the_softmax(parts):
    import lightgbm

    fold = make_fold(parts)
    head = fit_path("lightgbm", fold, [None])[0]
    scores = head.scores(fold.rotation, parts[2], fold.valid)
    expected = lightgbm.Booster(model_str=head.booster).predict(fold.valid[:, :TREE_AXES])
    np.testing.assert_allclose(probabilities(scores, 1.0), expected, atol=EXACT)


def test_trees_without_validation_are_refused(parts):
    fold = TrainingSet(principal_axes(parts[0]), parts[1], 3)
    with pytest.raises(InputError, match="0 validation segments are given"):
        fit_path("lightgbm", fold, [None])


def test_trees_know_two_classes(parts):
    X, codes, valid, valid_codes = parts
    rotation = principal_axes(X[codes < 2])
    few = valid_codes < 2
    fold = TrainingSet(
        rotation, codes[codes < 2], 2, rotation.project(valid[few]), valid_codes[few]
    )
    head = fit_path("lightgbm", fold, [None])[0]
    scores = head.scores(rotation, valid[few], fold.valid)
    assert scores.shape == (few.sum(), 2)
    assert (scores.argmax(axis=1) == valid_codes[few]).mean() > 0.9


def test_a_fit_that_does_not_converge_is_told(parts, monkeypatch):
    monkeypatch.setattr("spk.classify.classifiers.logistic.ITERATIONS", 2)
    notes = [head.note for head in fit_path("logistic", make_fold(parts), [1.0])]
    assert notes == ["logistic did not converge at penalty 1"]


@pytest.mark.parametrize(
    ("name", "penalty", "expected"),
    [
        ("lda", 1.5, "1.5 is given for lda, expected above 0, at most 1.0"),
        ("ridge", 0.0, "0.0 is given for ridge, expected above 0"),
        ("centroid", 2.0, "2.0 is given for centroid, expected none"),
        ("forest", None, "'forest' is given, expected some of centroid, ridge"),
    ],
)
def test_a_penalty_the_classifier_does_not_take_is_refused(name, penalty, expected):
    with pytest.raises(InputError, match=expected):
        penalty_path(name, penalty)
