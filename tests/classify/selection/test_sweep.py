from dataclasses import replace

import numpy as np
import pytest

from spk.classify.classifiers.registry import PENALTIES
from spk.classify.options import SweepSettings
from spk.classify.selection.candidates import choose
from spk.classify.selection.sweep import sweep
from spk.common.errors import InputError
from spk.manifests.splits.tasks import make_tasks

FAST = SweepSettings(classifiers="ridge,lda", jobs=1)


def test_trials_are_layers_by_classifiers_and_the_telling_layer_wins(table, store):
    tasks, _ = make_tasks(table, "session")
    trials = sweep(table, store, tasks, FAST)
    names = [(trial.layers.name, trial.classifier) for trial in trials]
    assert names == [(layer, name) for layer in "012" for name in ("ridge", "lda")]
    assert choose(trials).layers.name == "1"
    for trial in trials:
        assert trial.interval[0] <= trial.accuracy <= trial.interval[1]
        assert trial.accuracy == trial.correct.mean()


def test_validation_accuracy_is_a_pipelines_of_scikit_learn(table, features, store):
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    tasks, _ = make_tasks(table, "session")
    settings = SweepSettings(classifiers="ridge", layers="2", penalty=100.0, jobs=1)
    (trial,) = sweep(table, store, tasks, settings)
    right = []
    for task in tasks:
        model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=100.0))
        model.fit(features[task.rows["train"], 2], task.codes["train"])
        right += list(model.predict(features[task.rows["valid"], 2]) == task.codes["valid"])
    np.testing.assert_array_equal(trial.correct, right)


def test_test_rows_are_not_read(tmp_path, table, features, write_store):
    tasks, _ = make_tasks(table, "session")
    path = write_store(tmp_path / "whole", table["segment_id"], features)
    spoilt = features.copy()
    spoilt[table["split"] == "test"] = 1e4
    other = write_store(tmp_path / "spoilt", table["segment_id"], spoilt)
    assert same(*(sweep(table, open_(name), tasks, FAST) for name in (path, other)))


def open_(path):
    from spk.extract.store.reader import FeatureStore

    return FeatureStore.open(path)


def same(first, second):
    return all(
        (a.name, a.penalty, a.temperature, a.interval)
        == (b.name, b.penalty, b.temperature, b.interval)
        and np.array_equal(a.correct, b.correct)
        for a, b in zip(first, second, strict=True)
    )


def test_two_processes_give_what_one_gives(table, store):
    tasks, _ = make_tasks(table, "session")
    two = SweepSettings(classifiers="ridge,lda", jobs=2)
    assert same(sweep(table, store, tasks, FAST), sweep(table, store, tasks, two))


def test_equals_are_decided_by_log_loss(table, store):
    tasks, _ = make_tasks(table, "session")
    (trial,) = sweep(table, store, tasks, SweepSettings(classifiers="ridge", layers="1", jobs=1))
    surer = replace(trial, classifier="surer", log_loss=trial.log_loss / 2)
    worse = replace(trial, classifier="worse", log_loss=0.0, accuracy=trial.accuracy - 0.1)
    assert choose([trial, surer, worse]).classifier == "surer"


def test_equal_penalties_are_decided_by_log_loss(table, store):
    tasks, _ = make_tasks(table, "session")
    (trial,) = sweep(table, store, tasks, SweepSettings(classifiers="ridge", layers="1", jobs=1))
    alone = [
        sweep(table, store, tasks, replace(FAST, classifiers="ridge", layers="1", penalty=penalty))
        for penalty in PENALTIES["ridge"]
    ]
    equals = [one for (one,) in alone if one.accuracy == trial.accuracy]
    assert len(equals) > 1
    assert trial.log_loss == min(one.log_loss for one in equals)
    assert trial.accuracy == max(one.accuracy for (one,) in alone)


def test_trees_are_counted_before_they_grow(table, store):
    tasks, _ = make_tasks(table, "session")
    told = []
    settings = SweepSettings(classifiers="lightgbm", layers="1", jobs=1)
    sweep(table, store, tasks, settings, log=told.append)
    assert told == ["lightgbm: at most 2700 trees (300 rounds, 1 layer set)"]  # 9 speakers


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"classifiers": "ridge,forest"}, "'forest' is given"),
        ({"classifiers": "ridge,ridge"}, "names one twice"),
        ({"jobs": -1}, "--jobs: value is -1, expected a whole number from 0"),
        ({"calibration": "platt"}, "--calibration: value is 'platt', expected temperature"),
        ({"layers": "9"}, "9 is not in the store"),
        ({"pooling_part": "max"}, "--pooling-part: value is 'max', expected one of"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(table, store, settings, expected):
    tasks, _ = make_tasks(table, "session")
    with pytest.raises(InputError, match=expected):
        sweep(table, store, tasks, SweepSettings(**settings))


def test_validation_labels_that_are_all_unknown_give_no_log_loss(table, store):
    strange = table.copy()
    strange.loc[strange["split"] == "valid", "speaker"] = "newcomer"
    tasks, _ = make_tasks(strange, "session")
    for trial in sweep(strange, store, tasks, replace(FAST, layers="1")):
        assert np.isnan(trial.log_loss)
        assert trial.accuracy == 0
        assert 1 < trial.temperature < np.inf  # probabilities are even


def test_a_pair_is_scored_as_its_layers_in_one_vector(table, store):
    tasks, _ = make_tasks(table, "session")
    pairs = sweep(table, store, tasks, replace(FAST, combine="pairs"))
    assert [trial.layers.name for trial in pairs[::2]] == ["concat:0+1", "concat:0+2", "concat:1+2"]
    both = sweep(table, store, tasks, replace(FAST, combine="concat", layers="1,2"))
    for one, other in zip(pairs[4:], both, strict=True):
        assert (one.layers, one.penalty, one.log_loss) == (
            other.layers,
            other.penalty,
            other.log_loss,
        )
