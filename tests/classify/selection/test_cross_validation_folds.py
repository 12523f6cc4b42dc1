from dataclasses import replace

import numpy as np
import pytest

from spk.classify.experiment import fit_best, run_experiment
from spk.classify.features import LayerSet
from spk.classify.options import SweepSettings
from spk.classify.selection.candidates import ValidationScores, choose, make_trial
from spk.classify.selection.cross_validation import add_folds, join_tuning
from spk.classify.selection.sweep import sweep
from spk.common.errors import InputError
from spk.manifests.splits.tasks import make_tasks

FAST = SweepSettings(classifiers="ridge,lda", jobs=1, folds=3, gap=0.4)


def folded(table, folds=3, gap=0.4, within="session"):
    joined = join_tuning(table)
    tasks, _ = make_tasks(joined, within, needed=("train",))
    return joined, *add_folds(tasks, joined, folds, gap=gap)


@pytest.mark.parametrize("within", ["session", "corpus"])
def test_every_tuning_row_but_the_roll_call_is_held_out_once(table, within):
    joined, tasks, skipped = folded(table, within=within)
    assert skipped == {}
    held = np.concatenate([task.rows["train"][cut[1]] for task in tasks for cut in task.cuts])
    tuning = np.flatnonzero(table["split"].isin(["train", "valid"]))
    opening = joined.groupby("session").head(3).index  # three speakers, each says who it is
    assert sorted(held) == sorted(set(tuning) - set(opening))
    for task in tasks:
        assert sorted(task.rows["valid"]) == sorted(
            np.concatenate([task.rows["train"][cut[1]] for cut in task.cuts])
        )


def test_blocks_are_consecutive_per_speaker(table):
    joined, tasks, _ = folded(table)
    for task in tasks:
        for speaker in task.labels:
            own = np.flatnonzero(joined["speaker"].to_numpy()[task.rows["train"]] == speaker)
            order = [np.flatnonzero(np.isin(own, held)) for _, held in task.cuts]
            assert all((np.diff(places) == 1).all() for places in order)
            assert max(map(len, order)) - min(map(len, order)) <= 1


@pytest.mark.parametrize("gap", [0.0, 0.4, 0.6, 3.0])
def test_nothing_learnt_lies_within_the_gap_of_what_is_held_out(table, gap):
    joined, tasks, _ = folded(table, gap=gap)
    start, end = joined["start"].to_numpy(), joined["end"].to_numpy()
    for task in tasks:
        rows = task.rows["train"]
        for learnt, held in task.cuts:
            a, b = rows[learnt], rows[held]
            apart = np.maximum(start[a][:, None] - end[b], start[b] - end[a][:, None])
            assert (apart > gap).all()
            left = np.setdiff1d(np.arange(len(rows)), np.concatenate([learnt, held]))
            if len(left):  # and nothing else is purged
                c = rows[left]
                near = np.maximum(start[c][:, None] - end[b], start[b] - end[c][:, None])
                assert (near.min(axis=1) <= gap).all()


def test_a_task_that_keeps_nothing_to_learn_is_left_out_with_its_reason(table):
    with pytest.raises(InputError, match="0 of 3 tasks can be folded"):
        folded(table, gap=1e4)
    apart = table.copy()
    last = apart["session"] == sorted(set(table["session"]))[-1]
    apart.loc[last, ["start", "end"]] *= 100
    _, tasks, skipped = folded(apart, gap=120.0)
    assert len(tasks) == 1
    assert set(skipped.values()) == {"3 of 3 folds have nothing left to learn from"}


def test_segments_cut_to_files_are_folded_without_a_purge(table):
    cut = table.assign(audio=table["segment_id"])
    _, tasks, _ = folded(cut, gap=100.0)
    for task in tasks:
        for learnt, held in task.cuts:
            assert len(learnt) + len(held) == len(task.rows["train"])


def test_a_folded_sweep_finds_the_telling_layer_and_reads_no_test_row(
    tmp_path, table, features, write_store
):
    from spk.extract.store.reader import FeatureStore

    joined, tasks, _ = folded(table)
    found = []
    for name, factor in (("whole", 1), ("spoilt", 1e4)):
        changed = features.copy()
        changed[table["split"] == "test"] *= factor
        path = write_store(tmp_path / name, table["segment_id"], changed)
        found.append(sweep(joined, FeatureStore.open(path), tasks, FAST))
    assert choose(found[0]).layers.name == "1"
    for one, other in zip(*found, strict=True):
        assert (one.name, one.penalty, one.accuracy) == (other.name, other.penalty, other.accuracy)
        assert len(one.correct) == sum(len(task.rows["valid"]) for task in tasks)


def test_two_processes_fold_as_one(table, store):
    joined, tasks, _ = folded(table)
    for one, other in zip(
        sweep(joined, store, tasks, FAST),
        sweep(joined, store, tasks, replace(FAST, jobs=2)),
        strict=True,
    ):
        assert (one.name, one.penalty, one.log_loss) == (other.name, other.penalty, other.log_loss)


def test_with_folds_the_chosen_one_is_fitted_on_train_and_valid(table, store_path):
    model, facts, _ = fit_best(table, store_path, FAST)
    assert model.origin["fitted_on"] == "train and valid"
    assert model.origin["segments"]["train"] == int((table["split"] != "test").sum())
    assert any(
        fact.startswith("folds: 3 blocks of time per speaker, 135 segments") for fact in facts
    )


def test_folds_need_no_validation_rows(table, store_path):
    none = table[table["split"] != "valid"].reset_index(drop=True)
    outcome = run_experiment(none, store_path, replace(FAST, within="corpus", layers="1"))
    assert "the meeting is recognised" in outcome.conclusion
    assert set(outcome.predictions["split"]) == {"test"}


def test_a_label_that_a_fold_did_not_learn_is_wrong_and_in_no_log_loss():
    rng = np.random.default_rng(0)
    scores, codes = rng.normal(size=(40, 3)), np.arange(40) % 3
    unlearnt = scores.copy()
    unlearnt[:4, 2] = -np.inf  # of these rows, the third is of class 2
    layer, meetings = LayerSet((0,)), np.full(40, "m")
    settings = SweepSettings(penalty=1.0)

    def trial(scores, codes):
        outcome = ValidationScores([scores], [""])
        return make_trial(layer, "ridge", [outcome], codes, meetings[: len(codes)], settings)

    whole, known = trial(unlearnt, codes), trial(np.delete(unlearnt, 2, 0), np.delete(codes, 2))
    assert not whole.correct[2]
    assert whole.log_loss == pytest.approx(known.log_loss)
    assert whole.temperature == pytest.approx(known.temperature)
    assert whole.accuracy == pytest.approx(known.accuracy * 39 / 40)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"folds": 1}, "1 is given, expected 0"),
        ({"folds": -1}, "--folds: value is -1, expected a whole number from 0"),
        ({"gap": -1.0}, "--gap: value is -1.0, expected a number from 0"),
        ({"classifiers": "lightgbm"}, "0 validation segments are given"),
    ],
)
def test_folds_that_cannot_be_are_refused(table, store_path, changes, expected):
    with pytest.raises(InputError, match=expected):
        run_experiment(table, store_path, replace(FAST, **changes))
