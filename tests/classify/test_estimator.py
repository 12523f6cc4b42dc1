import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from spk.classify.estimator import SpeakerClassifier
from spk.common.errors import InputError

NAMES = ("centroid", "ridge", "lda", "logistic", "linear-svm", "lightgbm")


@pytest.mark.slow
@parametrize_with_checks([SpeakerClassifier(name) for name in NAMES])
def test_estimator_keeps_scikit_learns_rules(estimator, check):
    check(estimator)


def test_an_unknown_classifier_is_refused():
    with pytest.raises(InputError, match="'forest' is given, expected some of centroid, ridge"):
        SpeakerClassifier("forest").fit([[0.0], [1.0]], [0, 1])
