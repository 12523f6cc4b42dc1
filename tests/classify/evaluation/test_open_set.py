from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.special import softmax
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spk.classify.cli import main
from spk.classify.evaluation.open_set import (
    COLUMNS,
    _interval,
    conclude_open_set,
    find_threshold,
    open_set,
    without_speaker,
)
from spk.classify.evaluation.sweep_choice import read_chosen
from spk.classify.experiment import run_experiment
from spk.classify.options import SweepSettings
from spk.classify.output import write_outcome
from spk.common.errors import InputError
from spk.manifests.splits.tasks import make_tasks
from spk.manifests.table import write_table

FAST = SweepSettings(classifiers="ridge", layers="1", penalty=10.0, jobs=1)


@pytest.fixture(scope="module")
def outcome(table, store_path):
    return run_experiment(table, store_path, FAST)


@pytest.fixture(scope="module")
def run(tmp_path_factory, outcome):
    folder = tmp_path_factory.mktemp("openset") / "run"
    write_outcome(outcome, folder)
    return folder


def by_hand(table, X, temperatures, split):
    """Return score, right and stranger of each trial, by scikit-learn's ridge."""
    trials = []
    for session, part in table.groupby("session"):
        for speaker in sorted(set(part["speaker"])):
            train = part.index[(part["split"] == "train") & (part["speaker"] != speaker)]
            asked = part.index[part["split"] == split]
            model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=10.0))
            model.fit(X[train].astype(float), table["speaker"][train])
            second = model.decision_function(X[asked].astype(float))  # two are left
            chances = softmax(np.stack([-second, second], axis=1) / temperatures[session], axis=1)
            truth = table["speaker"][asked].to_numpy()
            named = model.classes_[chances.argmax(axis=1)]
            trials += zip(chances.max(axis=1), named == truth, truth == speaker, strict=True)
    score, right, stranger = (np.array(part) for part in zip(*trials, strict=True))
    return score, right, stranger


def test_rates_are_those_counted_by_hand(table, features, store_path, run, outcome):
    found = open_set(table, store_path, run, false_accepts="0.5,0.1").to_dict("records")
    assert tuple(found[0]) == COLUMNS
    assert [row["wanted"] for row in found] == [0.1, 0.5]
    temperature = outcome.model.temperatures
    assert len(set(temperature.values())) == 3  # each meeting's own
    valid, _, strange = by_hand(table, features[:, 1], temperature, "valid")
    score, right, stranger = by_hand(table, features[:, 1], temperature, "test")
    for row in found:
        reached = (valid[strange] >= row["threshold"] - 1e-9).mean()
        assert row["wanted"] - 1 / strange.sum() < reached <= row["wanted"]
        accepted = score >= row["threshold"]
        assert row["false_accepts"] == pytest.approx(accepted[stranger].mean())
        assert row["identified"] == pytest.approx((accepted & right)[~stranger].mean())
        assert (row["strangers"], row["known"], row["valid_strangers"]) == (36, 72, strange.sum())
        assert row["named"] == pytest.approx(right[~stranger].mean())
        assert row["low"] <= row["identified"] <= row["high"]


def test_a_segment_is_drawn_with_all_its_trials():
    sessions = np.array(["a"] * 4 + ["b"] * 4)
    row = np.repeat(np.arange(8), 5)
    right = np.repeat([1, 0, 1, 1, 0, 1, 0, 1], 5)  # a segment's trials end alike
    alone = _interval(right[::5], row[::5], sessions, 0)
    assert _interval(right, row, sessions, 0) == pytest.approx(alone)
    low, high = alone
    assert 0 <= low < right.mean() < high <= 1
    uneven = _interval(np.array([1, 1, 1, 0]), np.array([0, 0, 0, 1]), np.array(["a", "a"]), 0)
    assert uneven == (0, 1)


def test_what_was_wanted_is_said_to_be_kept_only_within_the_interval(table, store_path, run):
    found = open_set(table, store_path, run, false_accepts="0.001,0.3")
    row = found.iloc[-1]
    told = conclude_open_set(found.assign(false_low=0.0, false_high=1.0))
    assert told.startswith("The threshold that lets in at most 30% of the strangers on validation")
    assert f"lets in {row['false_accepts']:.1%} (0.0% to 100.0%)" in told
    assert "(the wanted share is within the interval)" in told
    assert f"names {row['identified']:.1%} ({row['low']:.1%} to {row['high']:.1%})" in told
    assert f"if all were accepted, {row['named']:.1%}. Validation has 36 strangers, so a" in told
    assert "below 2.8% lets in none of them." in told
    assert "(more than wanted)" in conclude_open_set(found.assign(false_low=0.4, false_high=0.5))
    assert "(fewer than wanted)" in conclude_open_set(found.assign(false_low=0.1, false_high=0.2))
    loose = open_set(table, store_path, run, false_accepts="0.3")
    assert "Validation" not in conclude_open_set(loose)


def test_a_speaker_left_out_is_neither_learnt_nor_a_candidate(table):
    task = make_tasks(table, "session")[0][0]
    fewer = without_speaker(task, 1)
    assert fewer.labels == (task.labels[0], task.labels[2])
    for split in ("train", "valid", "test"):
        truth = table["speaker"].to_numpy()[fewer.rows[split]]
        named = np.array([*fewer.labels, "nobody"])[fewer.codes[split]]
        assert set(truth[named == "nobody"]) <= {task.labels[1]}
        assert (truth == named)[named != "nobody"].all()
    assert -1 not in fewer.codes["train"]


@pytest.mark.parametrize(
    ("scores", "share", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.4], 0.5, 0.3),
        ([0.1, 0.2, 0.3, 0.4], 0.49, 0.4),
        ([0.1, 0.3, 0.3, 0.4], 0.5, 0.4),  # equals are let in together
        ([0.3, 0.3, 0.1], 0.34, np.nextafter(0.3, 1)),
        ([0.1, 0.2], 0.1, np.nextafter(0.2, 1)),  # nobody
    ],
)
def test_a_threshold_lets_in_no_more_than_wanted(scores, share, expected):
    threshold = find_threshold(np.array(scores), share)
    assert threshold == expected
    assert (np.array(scores) >= threshold).mean() <= share


def test_a_folded_sweep_sets_its_threshold_on_what_folds_have_not_learnt(
    tmp_path, table, features, store_path
):
    """The same rows, learnt and scored fold by fold by scikit-learn, give the threshold."""
    folded = replace(FAST, folds=3, gap=0.4)
    write_outcome(run_experiment(table, store_path, folded), tmp_path / "run")
    found = open_set(table, store_path, tmp_path / "run", false_accepts="0.3").iloc[0]
    chosen = read_chosen(tmp_path / "run", table, store_path)
    strange, X = [], features[:, 1].astype(float)
    place = {name: row for row, name in enumerate(table["segment_id"])}
    at = np.array([place[name] for name in chosen.table["segment_id"]])
    for task in chosen.tasks:
        for code in range(3):
            for learnt, held in task.cuts:
                rows, codes = at[task.rows["train"]], task.codes["train"]
                kept = learnt[codes[learnt] != code]
                model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=10.0))
                model.fit(X[rows[kept]], codes[kept])
                second = model.decision_function(X[rows[held[codes[held] == code]]])
                pairs = np.stack([-second, second], axis=1) / chosen.temperature_of(task)
                strange += softmax(pairs, axis=1).max(axis=1).tolist()
    assert found["valid_strangers"] == len(strange)
    assert found["threshold"] == pytest.approx(find_threshold(np.array(strange), 0.3))


def test_what_is_learnt_here_and_not_by_the_run_is_told(table, store_path, run):
    lines = []
    open_set(table, store_path, run, false_accepts="0.3", log=lines.append)
    assert any(line.startswith("learnt: train alone, since validation sets") for line in lines)


def test_two_speakers_are_too_few(tmp_path, toy_table, toy_features, write_store):
    table = toy_table(speakers=2)
    path = write_store(tmp_path / "s", table["segment_id"], toy_features(table))
    write_outcome(run_experiment(table, path, FAST), tmp_path / "run")
    with pytest.raises(InputError, match="0 of 3 tasks have 3 speakers"):
        open_set(table, path, tmp_path / "run")


@pytest.mark.parametrize("text", ["x", "0", "1", "0.1,2", ""])
def test_shares_that_cannot_be_are_refused(table, store_path, run, text):
    with pytest.raises(InputError, match="expected shares between 0 and 1"):
        open_set(table, store_path, run, false_accepts=text)


def test_the_command_writes_its_rates_beside_the_sweep(tmp_path, table, store_path, run):
    write_table(table, tmp_path / "t.csv")
    words = ["open-set", str(tmp_path / "t.csv"), str(store_path), str(run)]
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 0, told.output
    assert (run / "openset.csv").read_text().startswith("wanted,threshold,false_accepts")
    wrong = CliRunner().invoke(main, [*words[:3], "nowhere"])
    assert wrong.exit_code == 1
    assert len(wrong.output.splitlines()) == 1
