"""Features standardised one by one, or divided by one number: tried, chosen, kept, read back."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeClassifier

from spk.classify.classifiers.fold_sums import GramSums
from spk.classify.classifiers.linear import principal_axes
from spk.classify.evaluation.learning_curve import learning_curve
from spk.classify.evaluation.open_set import open_set
from spk.classify.evaluation.sweep_choice import read_chosen
from spk.classify.experiment import fit_best, run_experiment
from spk.classify.features import LayerSet
from spk.classify.options import SweepSettings
from spk.classify.output import outcome_text, write_outcome
from spk.classify.report.runs import read_runs
from spk.classify.selection import sweep as module
from spk.classify.selection.candidates import choose
from spk.classify.selection.prepare import prepare_tasks
from spk.classify.selection.sweep import sweep
from spk.classify.speaker_model import fit_model, name_segments
from spk.classify.speaker_model_files import load_model, save_model
from spk.common.errors import InputError
from spk.extract.store.reader import FeatureStore
from spk.manifests.splits.tasks import make_tasks
from spk.manifests.table import SPLITS, write_predictions

BOTH = SweepSettings(
    classifiers="ridge,logistic", layers="0,1", standardise="both", jobs=1, refit=False
)
PLAIN = LayerSet((1,), standardise="no")
TELLING = 4  # of 24 features; they vary more than the others


@pytest.fixture(scope="module")
def loud(table, features):
    """Return (n, 3, 24) float32: few features of large variance tell voices, the others nothing."""
    rng = np.random.default_rng(5)
    noise = rng.normal(size=features.shape)
    noise[..., :TELLING] = 8 * features[..., :TELLING]
    return noise.astype(np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory, table, loud, write_store):
    return write_store(tmp_path_factory.mktemp("loud") / "store", table["segment_id"], loud)


@pytest.fixture(scope="module")
def outcome(table, path):
    return run_experiment(table, path, BOTH)


@pytest.fixture(scope="module")
def run(tmp_path_factory, outcome):
    folder = tmp_path_factory.mktemp("standardise") / "run"
    write_outcome(outcome, folder)
    return folder


def numbers(trials):
    return [(t.classifier, t.penalty, t.accuracy, t.log_loss, t.temperature) for t in trials]


@pytest.mark.parametrize("folds", [0, 3])
@pytest.mark.parametrize("within", ["session", "corpus"])
def test_both_are_tried_as_each_alone_and_a_layer_is_read_once(
    table, path, monkeypatch, folds, within
):
    read, real = [], module.read_features
    monkeypatch.setattr(module, "read_features", lambda *a: read.append(a[2].name) or real(*a))
    store, settings = FeatureStore.open(path), replace(BOTH, folds=folds, within=within)
    ready = prepare_tasks(table, store, settings, ("train", "valid"))
    known, tasks = ready.table, ready.tasks
    trials = sweep(known, store, tasks, settings)
    assert read == ["0", "1"]
    names = [(t.layers.name, t.layers.standardise, t.classifier) for t in trials]
    every = [(layer, way) for layer in "01" for way in ("yes", "no")]
    assert names == [(*one, name) for one in every for name in ("ridge", "logistic")]
    for way in ("yes", "no"):
        alone = sweep(known, store, tasks, replace(settings, standardise=way))
        assert numbers(alone) == numbers([t for t in trials if t.layers.standardise == way])
    assert choose(trials).layers == PLAIN
    assert choose(trials).name.endswith(", layer 1, not standardised")


def test_what_is_not_standardised_is_named_by_scikit_learns_pipeline(table, loud, outcome):
    assert outcome.chosen.layers == PLAIN
    assert outcome.chosen.classifier == "ridge"
    tested = outcome.predictions
    for session, part in table.groupby("session"):
        X, test = loud[part.index, 1].astype(np.float64), (part["split"] == "test").to_numpy()
        train = (part["split"] == "train").to_numpy()
        alpha = outcome.chosen.penalty * X[train].var(axis=0).mean()
        centred = X - X[train].mean(axis=0)
        model = RidgeClassifier(alpha=alpha).fit(centred[train], part["speaker"][train])
        named = tested["predicted"][tested["session"] == session]
        np.testing.assert_array_equal(named, model.predict(centred[test]))


def test_the_choice_stands_in_every_file_of_a_run(run, outcome):
    config = json.loads((run / "config.json").read_text())
    assert config["settings"]["standardise"] == "both"
    assert config["chosen"]["standardise"] == "no"
    rows = pd.read_csv(run / "sweep.csv", dtype=str, keep_default_na=False)
    assert list(rows["standardise"]) == ["yes", "yes", "no", "no"] * 2
    assert list(rows["standardise"][rows["chosen"] == "yes"]) == ["no"]
    assert set(outcome.predictions["model"]) == {"ridge, layer 1, not standardised"}
    text = outcome_text(outcome)
    assert "standardise" in text
    same = replace(outcome, trials=[t for t in outcome.trials if t.layers.standardise == "yes"])
    assert "standardise " not in outcome_text(same)  # a column of nothing but yes


def test_a_report_takes_both_for_classifiers_of_their_own(tmp_path, run, outcome):
    write_predictions(outcome.predictions, tmp_path / "predictions.csv")
    (tmp_path / "sweep.csv").write_bytes((run / "sweep.csv").read_bytes())
    (found,) = read_runs([str(tmp_path)])
    names = ["ridge", "logistic", "ridge, not standardised", "logistic, not standardised"]
    assert list(found.trials["classifier"]) == names * 2


def test_a_model_is_kept_and_loaded_with_its_choice(tmp_path, table, path, outcome):
    save_model(outcome.model, tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert model.layers == PLAIN
    tested = table[table["split"] == "test"].reset_index(drop=True)
    named, _ = name_segments(model, tested, FeatureStore.open(path))
    assert named.equals(outcome.predictions)


def test_a_model_from_before_there_was_a_choice_is_standardised(tmp_path, table, store):
    tasks, settings = make_tasks(table, "session")[0], SweepSettings(layers="1", jobs=1)
    trial = choose(sweep(table, store, tasks, settings))
    save_model(fit_model(table, store, tasks, trial, settings), tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    description = json.loads(file.read_text())
    assert description.pop("standardise") == "yes"
    file.write_text(json.dumps(description))
    assert load_model(tmp_path / "model").layers == LayerSet((1,))
    file.write_text(json.dumps({**description, "standardise": "no"}))
    with pytest.raises(InputError, match="not divided by one number"):
        load_model(tmp_path / "model")


def test_curve_and_open_set_take_what_the_run_chose(table, path, run, outcome):
    chosen = read_chosen(run, table, path)
    assert chosen.layers == PLAIN
    test = outcome.measures.query("stratum == 'all' and measure == 'accuracy'").iloc[0]["value"]
    found = learning_curve(table, path, run, seconds="1000", draws=1)
    assert found["accuracy"].tolist() == [test]
    rotation, _ = chosen.fit(chosen.tasks[0], [chosen.penalty])
    assert len(set(rotation.scale)) == 1
    config = json.loads((run / "config.json").read_text())
    other = run.parent / "standardised"
    other.mkdir()
    del config["chosen"]["standardise"], config["files"]  # a run from before
    (other / "config.json").write_text(json.dumps(config))
    assert read_chosen(other, table, path).layers == LayerSet((1,))
    rates = [open_set(table, path, one)["identified"].tolist() for one in (run, other)]
    assert rates[0] != rates[1]


def test_fit_takes_the_setting(table, path):
    model, facts, _ = fit_best(table, path, replace(BOTH, standardise="no", classifiers="lda"))
    assert model.layers.standardise == "no"
    assert any("not standardised" in fact for fact in facts)


def test_trees_see_the_principal_axes_of_centred_features(loud):
    X = loud[:60, 0]
    theirs = PCA(5).fit_transform(X.astype(np.float64))
    ours = principal_axes(X, standardise="no")
    np.testing.assert_allclose(np.abs(ours.train[:, :5] * ours.scale[0]), np.abs(theirs), atol=1e-6)


@pytest.mark.parametrize("way", ["no", "both"])
def test_a_mix_is_standardised_or_refused(table, store, way):
    tasks, _ = make_tasks(table, "session")
    with pytest.raises(InputError, match=f"{way!r} is given for a mix, expected 'yes'"):
        sweep(table, store, tasks, SweepSettings(combine="mix", standardise=way, jobs=1))


def test_an_unknown_way_is_refused(table, store):
    tasks, _ = make_tasks(table, "session")
    with pytest.raises(InputError, match="--standardise: value is 'robust', expected one of"):
        sweep(table, store, tasks, SweepSettings(standardise="robust", jobs=1))


def test_the_meeting_is_recognised_from_features_scaled_alike(table, path, monkeypatch, outcome):
    from spk.classify.evaluation import confounds as room

    asked, real = [], room.sweep
    monkeypatch.setattr(room, "sweep", lambda *a: asked.append(a[3].standardise) or real(*a))
    corpus = replace(BOTH, within="corpus")
    named, opened = outcome.predictions, FeatureStore.open(path)
    ready = prepare_tasks(table, opened, corpus, SPLITS)
    room.confound_table(ready, opened, outcome.chosen, corpus, named)
    assert asked == ["no"]


def test_a_picture_has_a_line_for_each_way(outcome, monkeypatch):
    from matplotlib.axes import Axes

    from spk.classify.output import plot_sweep

    labels, real = [], Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda *a, **k: labels.append((k["label"], np.size(a[1]))) or real(*a, **k)
    )
    plot_sweep(outcome)
    lines = ["ridge", "logistic", "ridge, not standardised", "logistic, not standardised"]
    assert labels == [*((name, 2) for name in lines), ("chosen", 1)]


def test_rows_are_summed_once_for_both(table, path, monkeypatch):
    summed, real = [], GramSums._of
    monkeypatch.setattr(GramSums, "_of", lambda self, rows: summed.append(1) or real(self, rows))
    store = FeatureStore.open(path)
    # a gap of 0 purges nothing here
    settings = replace(BOTH, layers="1", within="corpus", folds=3, gap=0.0)
    ready = prepare_tasks(table, store, settings, ("train", "valid"))
    known, tasks = ready.table, ready.tasks
    sweep(known, store, tasks, settings)
    assert len(summed) == 3 + 1  # folds, and what is never held out
