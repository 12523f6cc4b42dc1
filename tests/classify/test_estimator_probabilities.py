import numpy as np
import pytest
from sklearn.datasets import make_blobs

from spk.classify.classifiers.boosted_trees import count_rounds
from spk.classify.estimator import SpeakerClassifier
from spk.common.errors import InputError

NAMES = ("centroid", "ridge", "lda", "logistic", "linear-svm", "lightgbm")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("folds", [0, 3])
def test_probabilities_sum_to_one_and_name_whom_predict_names(name, classes, folds):
    X, y = make_blobs(60, 5, centers=classes, cluster_std=4.0, random_state=1)
    labels = np.array(["d", "b", "a", "c"])[y]
    model = SpeakerClassifier(name, calibration_folds=folds).fit(X, labels)
    chances = model.predict_proba(X)
    assert chances.shape == (60, classes)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert (model.classes_[chances.argmax(axis=1)] == model.predict(X)).all()
    scores = model.decision_function(X)
    assert scores.shape == ((60,) if classes == 2 else (60, classes))
    if classes == 2:
        assert ((scores > 0) == (chances[:, 1] > 0.5)).all()
    assert (model.temperature_ == 1) == (folds == 0)


def test_calibration_makes_held_out_rows_likelier():
    X, y = make_blobs(300, 5, centers=4, cluster_std=4.0, random_state=2)
    losses = []
    for folds in (0, 3):
        model = SpeakerClassifier("ridge", calibration_folds=folds).fit(X[:200], y[:200])
        chances = model.predict_proba(X[200:])
        losses.append(-np.mean(np.log(chances[np.arange(100), y[200:]])))
    assert losses[1] < losses[0]


def test_classes_of_one_row_each_are_not_calibrated():
    X, _y = make_blobs(4, 3, centers=4, random_state=0)
    assert SpeakerClassifier("ridge").fit(X, np.arange(4)).temperature_ == 1


def test_lightgbm_grows_on_all_rows_as_long_as_held_out_rows_gain():
    X, y = make_blobs(200, 5, centers=3, cluster_std=3.0, random_state=3)
    rounds = []
    for folds in (0, 3, 5):
        model = SpeakerClassifier("lightgbm", calibration_folds=folds).fit(X, y)
        rounds.append(count_rounds(model.fitted_.booster, 3))
    assert 1 < rounds[0] == rounds[1] < 100  # no folds: one of three, as with three
    alone = SpeakerClassifier("lightgbm").fit([[0.0], [1.0]], [0, 1])  # no row to hold out
    assert (alone.temperature_, alone.predict_proba([[0.0]]).shape) == (1, (1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration_folds": 1}, "calibration_folds: 1 is given, expected 0 or 2 and more"),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_its_parameter(options, message):
    with pytest.raises(InputError, match=message):
        SpeakerClassifier(**options).fit([[0.0], [1.0]], [0, 1])
