"""What validation chose learns from train and validation before test is scored."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spk.classify.classifiers.boosted_trees import count_rounds
from spk.classify.cli import main
from spk.classify.experiment import fit_best, run_experiment
from spk.classify.metrics import wilson
from spk.classify.options import SweepSettings
from spk.classify.selection.candidates import Candidate, choose
from spk.classify.speaker_model import with_validation
from spk.classify.speaker_model_files import load_model
from spk.manifests.splits.tasks import make_tasks
from spk.manifests.table import write_table

FAST = SweepSettings(classifiers="ridge", layers="1", penalty=10.0, jobs=1)
SAME = 1e-5  # float32 features in another order of sums


@pytest.mark.parametrize("refit", [True, False])
def test_test_rows_are_named_by_what_scikit_learn_learns_from_the_same_rows(
    refit, table, features, store_path
):
    outcome = run_experiment(table, store_path, replace(FAST, refit=refit))
    named = outcome.predictions.set_index("segment_id")["predicted"]
    learnt = ["train", "valid"] if refit else ["train"]
    for _, part in table.groupby("session"):
        rows = part.index[part["split"].isin(learnt)]
        model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=10.0))
        model.fit(features[rows, 1].astype(float), table["speaker"][rows])
        test = part.index[part["split"] == "test"]
        expected = model.predict(features[test, 1].astype(float))
        assert list(named[table["segment_id"][test]]) == list(expected)
    assert outcome.model.origin["fitted_on"] == " and ".join(learnt)
    assert any(fact.startswith(f"learnt: {' and '.join(learnt)}") for fact in outcome.facts)


def test_the_temperatures_are_those_from_before(table, store_path):
    again, before = (
        fit_best(table, store_path, replace(FAST, refit=refit))[0] for refit in (True, False)
    )
    assert again.temperatures == before.temperatures
    assert len(again.temperatures) == 3
    name = next(iter(again.fitted))
    assert np.abs(again.fitted[name].weights - before.fitted[name].weights).max() > SAME


@pytest.mark.parametrize("split", ["enrol", "roll-call"])
def test_an_enrolment_is_left_as_it_is(split, table, store_path):
    model, facts, _ = fit_best(table, store_path, FAST, split=split)
    assert model.origin["fitted_on"] == "train"
    assert f"learnt: train alone (split {split} learns no more)" in " ".join(facts)


def test_trees_grow_as_many_rounds_as_validation_allowed(table, store_path):
    settings = replace(FAST, classifiers="lightgbm", penalty=None)
    again, before = (
        fit_best(table, store_path, replace(settings, refit=refit))[0] for refit in (True, False)
    )
    for name, fitted in again.fitted.items():
        other = before.fitted[name]
        assert fitted.booster != other.booster
        # LightGBM itself ends where nothing is left to split
        assert 0 < count_rounds(fitted.booster, 3) <= count_rounds(other.booster, 3)


def test_validation_rows_of_unknown_speakers_are_not_learnt(table):
    train = table["split"].eq("train") & table["speaker"].str.endswith("003-M")
    task = make_tasks(table[~train].reset_index(drop=True), "session")[0][0]
    both = with_validation(task)
    known = task.codes["valid"] >= 0
    assert 0 < known.sum() < len(known)
    assert set(both.rows["train"]) == {*task.rows["train"], *task.rows["valid"][known]}
    assert (np.diff(both.rows["train"]) > 0).all()
    assert (both.codes["train"] >= 0).all()


def test_the_command_keeps_what_was_learnt_in_the_model_folder(tmp_path, table, store_path):
    write_table(table, tmp_path / "t.csv")
    words = ["fit", str(tmp_path / "t.csv"), str(store_path)]
    fast = ["--classifiers", "ridge", "--layers", "1"]
    for option, fitted_on in (("--refit", "train and valid"), ("--no-refit", "train")):
        done = CliRunner().invoke(main, [*words, str(tmp_path / option), *fast, option])
        assert done.exit_code == 0, done.output
        assert f"fitted on {fitted_on}\n" in done.output
        model = load_model(tmp_path / option)
        assert model.origin["fitted_on"] == fitted_on
        assert set(model.temperatures) == set(model.fitted)


def candidate(classifier, accuracy, loss, interval):
    return Candidate(None, classifier, None, 1.0, accuracy, interval, loss, np.arange(400) % 5 > 0)


def test_equals_go_to_the_simpler_classifier_where_validation_is_too_small():
    trials = [("logistic", 0.8, 0.1), ("ridge", 0.8, 0.4), ("ridge", 0.8, 0.3), ("lda", 0.7, 0.0)]
    wide, narrow = (0.65, 0.95), (0.75, 0.85)
    assert choose([candidate(*trial, narrow) for trial in trials]).classifier == "logistic"
    chosen = choose([candidate(*trial, wide) for trial in trials])
    assert (chosen.classifier, chosen.log_loss) == ("ridge", 0.3)


def test_a_validation_too_small_to_choose_by_is_told_with_its_interval(table, store_path):
    few = table[(table["split"] != "valid") | ~table.duplicated(["session", "split"])]
    settings = replace(FAST, layers="0,2")
    outcome = run_experiment(few.reset_index(drop=True), store_path, settings)
    told = [fact for fact in outcome.facts if fact.startswith("valid: 3 segments are too few")]
    low, high = wilson(round(3 * outcome.chosen.accuracy), 3)
    assert f"({low:.1%} to {high:.1%})" in told[0]
    assert "pass --folds 5" in told[0]
    enough = run_experiment(table, store_path, replace(FAST, layers="0,1"))
    assert not any("too few to choose by" in fact for fact in enough.facts)
