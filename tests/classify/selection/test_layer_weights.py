from dataclasses import replace

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler

from spk.classify.classifiers.fitted import TrainingSet
from spk.classify.classifiers.linear import principal_axes
from spk.classify.classifiers.registry import fit_path
from spk.classify.evaluation.sweep_choice import read_chosen
from spk.classify.experiment import run_experiment
from spk.classify.features import LayerSet
from spk.classify.options import SweepSettings
from spk.classify.output import write_outcome
from spk.classify.selection import layer_weights as module
from spk.classify.selection.candidates import choose
from spk.classify.selection.cross_validation import add_folds, cross_validate, join_tuning
from spk.classify.selection.layer_weights import (
    LEAST_WEIGHT,
    exponentiated_gradient,
    kernels,
    learn_layer_weights,
    make_parts,
    squared_error,
)
from spk.classify.selection.sweep import sweep
from spk.classify.speaker_model import fit_model, name_segments
from spk.classify.speaker_model_files import load_model, save_model
from spk.common.errors import InputError
from spk.extract.store.reader import FeatureStore
from spk.manifests.splits.tasks import make_tasks

EXACT = 1e-8  # two float64 solutions of one linear system
SLOPE = 1e-5  # central differences of a step of 1e-5
MIX = SweepSettings(combine="mix", classifiers="ridge", jobs=1, refit=False)
WEIGHTS = np.array([0.2, 0.5, 0.3])


def ids_of(table):
    return table["segment_id"].to_numpy(str)


def parts_of(table, store, tasks, layers=(0, 1, 2)):
    cuts = [cut for task in tasks for cut in module._cuts(task)]
    return make_parts(ids_of(table), store, cuts, layers, "both")


def scaled(features, rows, others, constant=False):
    """Return scikit-learn's standardised rows of each layer, on its own, learnt and held out."""
    pairs = []
    for layer in range(features.shape[1]):
        scaler = StandardScaler().fit(features[rows, layer].astype(float))
        pairs.append([scaler.transform(features[k, layer].astype(float)) for k in (rows, others)])
    return pairs


def test_ridge_on_scaled_layers_is_kernel_ridge_on_the_weighted_kernel(table, features, store):
    (task, *_), _ = make_tasks(table, "session")
    train, valid, codes = task.rows["train"], task.rows["valid"], task.codes["train"]
    blocks = scaled(features, train, valid)
    gram = sum(w * Z @ Z.T for w, (Z, _) in zip(WEIGHTS, blocks, strict=True))
    cross = sum(w * H @ Z.T for w, (Z, H) in zip(WEIGHTS, blocks, strict=True))
    targets = np.where(np.arange(3) == codes[:, None], 1.0, -1.0)
    theirs = KernelRidge(alpha=30.0, kernel="precomputed").fit(gram, targets - targets.mean(0))
    X = features.reshape(len(features), -1)
    rotation = principal_axes(X[train], tuple(WEIGHTS))
    (head,) = fit_path("ridge", TrainingSet(rotation, codes, 3), [30.0])
    ours = head.scores(rotation, X[valid], rotation.project(X[valid]))
    np.testing.assert_allclose(ours, theirs.predict(cross) + targets.mean(0), atol=EXACT)


def test_a_kernel_has_the_trace_of_one_without_constant_features():
    X = np.random.default_rng(0).normal(size=(20, 8))
    X[:, :6] = 3.0
    for rows in (X, X[:, 6:]):
        assert np.trace(kernels(rows, rows)[0]) == pytest.approx(rows.size)
    gram, cross = kernels(X, X[:5])
    np.testing.assert_allclose(cross, gram[:5], atol=EXACT)
    turned = principal_axes(np.hstack([X, X]), (0.25, 0.75)).train
    np.testing.assert_allclose(turned @ turned.T, gram, atol=EXACT)
    assert not kernels(np.ones((4, 3)), np.ones((2, 3)))[0].any()


def test_the_squared_error_is_scikit_learns_over_all_tasks(table, features, store):
    tasks, _ = make_tasks(table, "session")
    gaps = []
    for task in tasks:
        train, valid = task.rows["train"], task.rows["valid"]
        blocks = scaled(features, train, valid)
        Z, H = (
            np.hstack([np.sqrt(w) * b[k] for w, b in zip(WEIGHTS, blocks, strict=True)])
            for k in (0, 1)
        )
        model = RidgeClassifier(alpha=30.0).fit(Z, task.codes["train"])
        truth = np.where(np.arange(3) == task.codes["valid"][:, None], 1.0, -1.0)
        gaps.append(model.decision_function(H) - truth)
    error, _ = squared_error(parts_of(table, store, tasks), WEIGHTS, 30.0)
    assert error == pytest.approx(np.mean(np.concatenate(gaps) ** 2), abs=EXACT)


def test_the_slope_is_that_of_finite_differences(table, store):
    parts = parts_of(table, store, make_tasks(table, "session")[0])
    slope = squared_error(parts, WEIGHTS, 30.0)[1]
    for layer, step in enumerate(1e-5 * np.eye(3)):
        up, down = (squared_error(parts, WEIGHTS + s, 30.0)[0] for s in (step, -step))
        assert slope[layer] == pytest.approx((up - down) / 2e-5, rel=SLOPE)


@pytest.mark.parametrize("penalty", [1.0, 100.0, 1e4])
def test_weights_are_shares_and_the_error_never_rises(table, store, penalty):
    parts = parts_of(table, store, make_tasks(table, "session")[0])
    weights, errors = exponentiated_gradient(parts, penalty)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert len(errors) > 2
    assert (np.diff(errors) <= 0).all()
    assert errors[0] == squared_error(parts, np.full(3, 1 / 3), penalty)[0]
    assert errors[-1] == pytest.approx(squared_error(parts, weights, penalty)[0])


def test_no_weights_on_a_grid_have_a_smaller_error(table, store):
    parts = parts_of(table, store, make_tasks(table, "session")[0])
    best = exponentiated_gradient(parts, 100.0)[1][-1]
    grid = [(a, b, 20 - a - b) for a in range(21) for b in range(21 - a)]
    found = min(squared_error(parts, np.array(w) / 20, 100.0)[0] for w in grid)
    assert best <= found * 1.001  # the end of the steps, not of the way


def test_the_weight_goes_to_the_layer_that_carries_the_signal(tmp_path, table, write_store):
    rng = np.random.default_rng(3)
    features = rng.normal(size=(len(table), 4, 24))
    voices = {label: 2 * rng.normal(size=24) for label in sorted(set(table["speaker"]))}
    features[:, 2] += np.array([voices[label] for label in table["speaker"]])
    path = write_store(tmp_path / "s", table["segment_id"], features.astype(np.float32))
    tasks, told = make_tasks(table, "session")[0], []
    found = learn_layer_weights(
        ids_of(table), FeatureStore.open(path), tasks, (0, 1, 2, 3), MIX, log=told.append
    )
    shares = dict(zip(found.layers, found.weights or (1.0,), strict=True))
    assert shares[2] > 0.9
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= LEAST_WEIGHT
    assert f"layer 2 {shares[2]:.3f}" in told[0]


def test_one_layer_asked_is_that_layer_alone(table, store):
    tasks, told = make_tasks(table, "session")[0], []
    (one,) = sweep(table, store, tasks, replace(MIX, layers="1"), log=told.append)
    assert not told  # there is nothing to learn
    (alone,) = sweep(table, store, tasks, replace(MIX, layers="1", combine="alone"))
    assert one.layers == LayerSet((1,))
    assert (one.penalty, one.log_loss, one.name) == (alone.penalty, alone.log_loss, alone.name)


def test_a_layer_of_hardly_any_weight_is_left_out_and_one_that_is_left_stands_alone(
    table, store, monkeypatch
):
    tasks, _ = make_tasks(table, "session")
    for weights, expected in (
        ([0.6, 0.4, 0.0], LayerSet((0, 1), "mix", (0.6, 0.4))),
        ([0.0, 1.0, 1e-9], LayerSet((1,))),
    ):
        monkeypatch.setattr(
            module, "exponentiated_gradient", lambda *_, w=weights: (np.array(w), [1.0, 0.5])
        )
        assert learn_layer_weights(ids_of(table), store, tasks, (0, 1, 2), MIX) == expected


def test_test_rows_are_not_read(tmp_path, table, features, store, write_store):
    tasks, _ = make_tasks(table, "session")
    spoilt = features.copy()
    spoilt[table["split"] == "test"] = 1e4
    other = FeatureStore.open(write_store(tmp_path / "s", table["segment_id"], spoilt))
    first, second = (
        learn_layer_weights(ids_of(table), one, tasks, (0, 1, 2), MIX) for one in (store, other)
    )
    assert first == second


def test_with_folds_the_weights_have_least_error_on_what_is_held_out(table, store):
    tasks, _ = add_folds(make_tasks(join_tuning(table), "session", needed=("train",))[0], table, 3)
    parts = parts_of(table, store, tasks)
    assert len(parts) == 9
    assert sum(len(part.truth) for part in parts) == sum(len(t.rows["valid"]) for t in tasks)
    found = learn_layer_weights(ids_of(table), store, tasks, (0, 1, 2), replace(MIX, penalty=30.0))
    assert max(zip(found.weights, found.layers, strict=True))[1] == 1  # the least noise
    weights = np.zeros(3)
    weights[list(found.layers)] = found.weights
    error = squared_error(parts, weights, 30.0)[0]
    assert error < squared_error(parts, np.full(3, 1 / 3), 30.0)[0]


@pytest.mark.parametrize("shape", [(60, 30), (120, 20)])
def test_a_mix_is_cross_validated_as_its_folds_fitted_one_by_one(shape):
    rng = np.random.default_rng(4)
    rows, dim = shape
    X, y = rng.normal(size=(rows, 2 * dim)), np.arange(rows) % 3
    parts = np.array_split(np.arange(rows), 3)
    cuts = [(np.setdiff1d(np.arange(rows), held), held) for held in parts]
    mixed = LayerSet((0, 1), "mix", (0.9, 0.1))
    found, _ = cross_validate(X, y, 3, cuts, {"ridge": (5.0,)}, layers=mixed)
    root = np.repeat(np.sqrt([0.9, 0.1]), dim)
    for learnt, held in cuts:
        scaler = StandardScaler().fit(X[learnt])
        model = RidgeClassifier(alpha=5.0).fit(scaler.transform(X[learnt]) * root, y[learnt])
        expected = model.decision_function(scaler.transform(X[held]) * root)
        np.testing.assert_allclose(found["ridge"][0][held], expected, atol=EXACT)


def test_a_mix_is_told_kept_read_back_and_names_as_it_was_validated(
    tmp_path, table, store, store_path
):
    tasks, _ = make_tasks(table, "session")
    trial = choose(sweep(table, store, tasks, MIX))
    assert trial.layers.combine == "mix"
    model = fit_model(table, store, tasks, trial, MIX)
    named, _ = name_segments(model, table, store, split="valid")
    assert (named["predicted"] == named["speaker"]).mean() == pytest.approx(trial.accuracy)
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.layers == trial.layers
    assert name_segments(again, table, store, split="valid")[0].equals(named)
    outcome = run_experiment(table, store_path, MIX, keep=tmp_path / "run" / "cells.jsonl")
    write_outcome(outcome, tmp_path / "run")
    (told,) = [fact for fact in outcome.facts if fact.startswith("mix")]
    assert all(f"{weight:.3f}" in told for weight in trial.layers.weights)
    chosen = read_chosen(tmp_path / "run", table, store_path)
    assert chosen.layers == trial.layers
    rotation, (head,) = chosen.fit(tasks[0], [trial.penalty])
    rows = tasks[0].rows["test"]
    X = store.read(ids_of(table)[rows], 0)
    X = np.hstack([X, *(store.read(ids_of(table)[rows], k) for k in trial.layers.layers[1:])])
    np.testing.assert_allclose(
        chosen.scores(rotation, head, rows), model.fitted[tasks[0].name].scores(X), atol=EXACT
    )
    said = []
    run_experiment(table, store_path, MIX, keep=tmp_path / "run" / "cells.jsonl", log=said.append)
    assert said[1:] == ["1 of 1 combinations were finished before and are not tried again"]


def test_kernels_that_do_not_fit_are_refused(table, store, monkeypatch):
    tasks, _ = make_tasks(table, "session")
    monkeypatch.setattr(module, "MOST_BYTES", 1e4)
    with pytest.raises(InputError, match="kernels of 3 layers need 0.0 GB, expected at most 1e-05"):
        sweep(table, store, tasks, MIX)


def test_validation_of_unknown_labels_only_is_refused(table, store):
    strange = table.copy()
    strange.loc[strange["split"] == "valid", "speaker"] = "newcomer"
    with pytest.raises(InputError, match="0 validation segments are of labels in train"):
        sweep(strange, store, make_tasks(strange, "session")[0], MIX)
