import json
from dataclasses import replace

import pandas as pd
import pytest

from spk.classify.experiment import fit_best, run_experiment
from spk.classify.options import SweepSettings
from spk.classify.output import (
    outcome_parts,
    plot_sweep,
    sweep_rows,
    write_metrics,
    write_outcome,
)
from spk.common.errors import InputError
from spk.common.terminal import format_columns, plain
from spk.manifests.table import read_predictions

FAST = SweepSettings(classifiers="ridge,centroid", jobs=1)


@pytest.fixture(scope="module")
def outcome(table, store_path):
    return run_experiment(table, store_path, FAST, split="chronological")


def test_test_is_scored_for_the_chosen_trial_only(outcome):
    rows = sweep_rows(outcome)
    assert len(rows) == 6
    scored = [row for row in rows if row["test_accuracy"] != ""]
    assert [row["chosen"] for row in scored] == ["yes"]
    right = (outcome.predictions["speaker"] == outcome.predictions["predicted"]).mean()
    assert scored[0]["test_accuracy"] == pytest.approx(right)
    assert set(outcome.predictions["split"]) == {"test"}


def test_the_choice_does_not_depend_on_test(tmp_path, table, features, write_store, outcome):
    spoilt = features.copy()
    spoilt[table["split"] == "test"] *= -1
    path = write_store(tmp_path / "s", table["segment_id"], spoilt)
    other = run_experiment(table, path, FAST)
    assert other.chosen.name == outcome.chosen.name
    assert other.chosen.penalty == outcome.chosen.penalty
    assert (other.predictions["speaker"] == other.predictions["predicted"]).mean() < 0.5


def test_two_runs_are_one_run(table, store_path, outcome):
    again = run_experiment(table, store_path, FAST, split="chronological")
    pd.testing.assert_frame_equal(again.predictions, outcome.predictions)
    pd.testing.assert_frame_equal(again.measures, outcome.measures)
    assert again.conclusion == outcome.conclusion


def test_the_conclusion_carries_interval_majority_and_rivals(outcome):
    told = outcome.conclusion
    assert "of 36 test segments in 3 meetings" in told
    assert "; above the majority class (33.3%); chance 33.3%." in told
    assert "Of 5 other combinations of layers and classifier" in told


def test_features_that_tell_nothing_are_not_said_to_beat_the_majority(
    tmp_path, table, features, write_store
):
    import numpy as np

    noise = np.random.default_rng(9).normal(size=features.shape).astype(np.float32)
    path = write_store(tmp_path / "s", table["segment_id"], noise)
    told = run_experiment(table, path, replace(FAST, layers="0", classifiers="ridge")).conclusion
    assert "not shown to be above the majority class" in told
    assert "Nothing else was tried." in told


def test_an_untrained_encoder_and_a_leaky_split_are_named_with_every_score(
    tmp_path, table, features, write_store
):
    path = write_store(tmp_path / "s", table["segment_id"], features, untrained=True)
    outcome = run_experiment(table, path, replace(FAST, layers="1"), split="random (leaky)")
    name = f"{outcome.chosen.name}, untrained encoder, split random (leaky)"
    assert set(outcome.predictions["model"]) == {name}
    assert set(outcome.measures["model"]) == set(outcome.predictions["model"])
    assert "untrained encoder" in outcome.conclusion
    text = plain(*outcome_parts(outcome))
    assert "encoder: toy at 0000000000000000000000000000000000000000 (untrained encoder)" in text
    assert "split: random (leaky)" in text
    write_outcome(outcome, tmp_path / "out")
    for file in ("sweep.csv", "metrics.csv", "predictions.csv"):
        rows = (tmp_path / "out" / file).read_text().splitlines()[1:]
        assert all("untrained" in row and "random (leaky)" in row for row in rows)


def test_what_is_left_out_is_told(tmp_path, table, features, write_store):
    session = sorted(set(table["session"]))[0]
    few = table[(table["session"] != session) | (table["split"] != "test")].reset_index(drop=True)
    path = write_store(
        tmp_path / "s", table["segment_id"][1:], features[1:], rejected=table["segment_id"][:1]
    )
    outcome = run_experiment(few, path, replace(FAST, layers="1"))
    assert f"left out: {session}, no test segments (35 train, 12 valid, 0 test)" in outcome.facts
    told = f"left out: 1 segment rejected at extraction, first {table['segment_id'][0]!r}"
    assert told in outcome.facts


def test_labels_without_training_segments_are_told(table, store_path):
    label = table["speaker"][0]
    changed = table.copy()
    changed.loc[(table["speaker"] == label) & (table["split"] == "train"), "split"] = ""
    outcome = run_experiment(changed, store_path, replace(FAST, layers="1"))
    assert (
        f"test: 4 of 36 segments have speakers that the model does not know, first {label!r}; "
        "they count as wrong"
    ) in outcome.facts


def test_fit_needs_no_test_rows_and_chooses_as_the_sweep_does(table, store_path, outcome):
    untested = table[table["split"] != "test"].reset_index(drop=True)
    model, facts, _ = fit_best(untested, store_path, FAST, split="chronological")
    assert model.name == outcome.model.name
    assert model.temperature == outcome.model.temperature
    assert facts[-1].startswith(f"chosen on validation: {outcome.chosen.name}, ")


def test_an_outcome_is_written_whole(tmp_path, outcome):
    write_outcome(outcome, tmp_path / "out")
    names = ["config.json", "inputs.json", "metrics.csv", "predictions.csv", "sweep.csv"]
    names.append("sweep.png")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names
    trials = pd.read_csv(tmp_path / "out" / "sweep.csv")
    assert list(trials["layers"]) == [0, 0, 1, 1, 2, 2]
    assert trials["test_accuracy"].notna().sum() == 1
    named = read_predictions(tmp_path / "out" / "predictions.csv")
    assert list(named["predicted"]) == list(outcome.predictions["predicted"])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["store"]["encoder"] == "toy"
    assert config["split"] == "chronological"
    assert config["settings"]["classifiers"] == "ridge,centroid"


def test_what_was_told_of_another_choice_does_not_stay_in_the_folder(tmp_path, outcome):
    write_outcome(outcome, tmp_path)
    for name in ("learning.csv", "openset.csv"):
        (tmp_path / name).write_text("of this choice")
    write_outcome(outcome, tmp_path)
    assert (tmp_path / "learning.csv").read_text() == "of this choice"
    other = outcome.predictions.assign(score=0.5)
    write_outcome(replace(outcome, predictions=other), tmp_path)
    assert not (tmp_path / "learning.csv").exists()
    assert not (tmp_path / "openset.csv").exists()


def test_the_plot_is_the_same_png_every_time(outcome):
    image = plot_sweep(outcome)
    assert image.startswith(b"\x89PNG\r\n")
    assert image == plot_sweep(outcome)


def test_measures_are_written_by_suffix(tmp_path, outcome):
    write_metrics(outcome.measures, tmp_path / "m.json", facts=["split: x"])
    read = json.loads((tmp_path / "m.json").read_text())
    assert read["facts"] == ["split: x"]
    assert len(read["measures"]) == len(outcome.measures)
    write_metrics(outcome.measures, tmp_path / "m.csv")
    assert len(pd.read_csv(tmp_path / "m.csv")) == len(outcome.measures)
    with pytest.raises(InputError, match=r"suffix is '.txt', expected .csv or .json"):
        write_metrics(outcome.measures, tmp_path / "m.txt")


def test_columns_are_aligned():
    text = format_columns([{"layer": "3", "name": "ridge"}, {"layer": "12", "name": "lda"}])
    assert text == "layer  name\n    3  ridge\n   12  lda"


def test_of_very_many_trials_the_best_are_printed(outcome, monkeypatch):
    monkeypatch.setattr("spk.classify.output.MOST_SHOWN", 2)
    told = plain(*outcome_parts(outcome))
    assert "the best 2 of 6" in told
    assert told.count(" yes ") == 1
    accuracies = sorted(trial.accuracy for trial in outcome.trials)
    assert all(f"{accuracy:.3f}" in told for accuracy in accuracies[-2:])
