import hashlib
import io
import json

import numpy as np
import pytest

from spk.classify.options import SweepSettings
from spk.classify.selection.candidates import choose
from spk.classify.selection.sweep import sweep
from spk.classify.speaker_model import fit_model, name_segments
from spk.classify.speaker_model_files import load_model, save_model
from spk.common.errors import InputError
from spk.manifests.splits.tasks import make_tasks


@pytest.fixture(scope="module")
def saved(tmp_path_factory, table, store):
    """Return model folders by classifier."""
    root, tasks = tmp_path_factory.mktemp("models"), make_tasks(table, "session")[0]
    for name in ("ridge", "lightgbm"):
        settings = SweepSettings(layers="1", classifiers=name, jobs=1)
        trial = choose(sweep(table, store, tasks, settings))
        save_model(fit_model(table, store, tasks, trial, settings), root / name)
    return root


def forge(source, target, name="", content=b"", **changes):
    """Copy a model folder, changed by somebody who knows how to compute a SHA-256."""
    target.mkdir()
    description = {**json.loads((source / "model.json").read_text()), **changes}
    for file in source.iterdir():
        (target / file.name).write_bytes(content if file.name == name else file.read_bytes())
    if name:
        description["sha256"][name] = hashlib.sha256(content).hexdigest()
    (target / "model.json").write_text(json.dumps(description))
    return target


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classifier", "\x1b[2J"),
        ("classifier", "centroid"),
        ("penalty", "strong"),
        ("temperature", -1.0),
        ("temperature", None),
        ("temperature", float("nan")),
        ("temperatures", {"m": -1.0}),
        ("temperatures", {"m": "warm"}),
        ("layers", []),
        ("layers", "1"),
        ("layers", [1, 2]),
        ("combine", "sum"),
        ("weights", [1.0]),
        ("weights", None),
        ("pooling_part", "mean"),
        ("standardise", "perhaps"),
        ("within", "room"),
        ("calibration", "platt"),
        ("calibration", "isotonic"),
        ("config", []),
        ("origin", {"split": 1}),
        ("fitted", []),
        ("fitted", [{"name": "A", "kind": "linear", "labels": ["a", "b"]}]),
        ("fitted", [{"name": "A", "kind": "linear", "labels": "abc"}]),
        ("fitted", [{"name": ["A"], "kind": "linear", "labels": ["a", "b", "c"]}]),
        ("sha256", {"arrays.npz\0": ""}),
    ],
)
def test_a_description_of_another_type_or_range_is_refused(tmp_path, saved, key, value):
    forged = forge(saved / "ridge", tmp_path / "m", **{key: value})
    with pytest.raises(InputError, match="is not a model"):
        load_model(forged)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "\xff"])
def test_json_that_python_cannot_read_is_refused(tmp_path, text):
    (tmp_path / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="is not a model"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("0.mean", lambda a: np.array([{}, 1], dtype=object)),
        ("0.mean", lambda a: a.astype(str)),
        ("0.mean", lambda a: a[:5]),
        ("0.mean", lambda a: a[0]),
        ("0.scale", lambda a: a * 0),
        ("0.weights", lambda a: a[:1]),
        ("0.weights", lambda a: a * np.nan),
        ("0.weights", lambda a: a.astype(complex)),
        ("0.intercept", lambda a: a[:, None]),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, saved, name, change):
    with np.load(saved / "ridge" / "arrays.npz") as file:
        arrays = dict(file)
    image = io.BytesIO()
    np.savez(image, **{**arrays, name: change(arrays[name])})
    forged = forge(saved / "ridge", tmp_path / "m", "arrays.npz", image.getvalue())
    with pytest.raises(InputError, match="is not a model"):
        load_model(forged)


@pytest.mark.parametrize(
    "weights", [[0.5], [1.5, -0.5], [0.5, 0.6], ["a", "b"], [float("nan")] * 2]
)
def test_weights_that_are_not_shares_of_the_layers_are_refused(tmp_path, mixed, weights):
    with pytest.raises(InputError, match="is not a model"):
        load_model(forge(mixed, tmp_path / "m", weights=weights))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, table, store):
    """Return a model folder of a mix of two layers, as earlier versions wrote it."""
    root, tasks = tmp_path_factory.mktemp("mixed"), make_tasks(table, "session")[0]
    settings = SweepSettings(layers="1,2", combine="concat", classifiers="ridge", jobs=1)
    model = fit_model(table, store, tasks, choose(sweep(table, store, tasks, settings)), settings)
    save_model(model, root / "concat")
    return forge(root / "concat", root / "model", combine="mix", weights=[0.75, 0.25])


def test_a_mix_of_before_names_by_its_weighted_layers(mixed, table, store):
    model = load_model(mixed)
    assert model.layers.description == "layers mix:1+2"
    assert model.layers.weights == (0.75, 0.25)
    named, _ = name_segments(model, table[table["split"] == "test"], store)
    assert (named["predicted"] == named["speaker"]).mean() > 0.8
    assert set(named["model"]) == {"ridge, layers mix:1+2"}


def test_features_that_earlier_versions_did_not_standardise_need_one_scale_for_all(
    saved, tmp_path, table, store
):
    with pytest.raises(InputError, match="not divided by one number"):
        load_model(forge(saved / "ridge", tmp_path / "wrong", standardise="no"))
    with np.load(saved / "ridge" / "arrays.npz") as file:
        arrays = {name: a * 0 + 2 if name.endswith("scale") else a for name, a in file.items()}
    image = io.BytesIO()
    np.savez(image, **arrays)
    old = forge(saved / "ridge", tmp_path / "old", "arrays.npz", image.getvalue(), standardise="no")
    named, _ = name_segments(load_model(old), table[table["split"] == "test"], store)
    assert set(named["model"]) == {"ridge, layer 1, not standardised"}


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[:, :2],
        lambda a: a.astype(np.float32),
        lambda a: a[a[:, 0] > 0],
        lambda a: a * [1, 1, np.nan],
        lambda a: a * [1, 1, 2],
        lambda a: a[::-1],
    ],
)
def test_curves_that_do_not_rise_from_0_to_1_for_each_label_are_refused(
    tmp_path, saved, with_curves, change
):
    curved = with_curves(saved / "ridge", tmp_path / "curved")
    assert load_model(curved).knots
    with np.load(curved / "arrays.npz") as file:
        arrays = dict(file)
    image = io.BytesIO()
    np.savez(image, **{**arrays, "0.knots": np.ascontiguousarray(change(arrays["0.knots"]))})
    forged = forge(curved, tmp_path / "m", "arrays.npz", image.getvalue())
    with pytest.raises(InputError, match="is not a model"):
        load_model(forged)


def test_a_file_that_is_no_archive_is_refused(tmp_path, saved):
    with pytest.raises(InputError, match="is not a model"):
        load_model(forge(saved / "ridge", tmp_path / "m", "arrays.npz", b"no archive"))


def test_damaged_trees_are_refused(tmp_path, saved):
    text = (saved / "lightgbm" / "0.txt").read_bytes()
    load_model(forge(saved / "lightgbm", tmp_path / "whole", "0.txt", text))
    with pytest.raises(InputError, match="is not a model"):
        load_model(forge(saved / "lightgbm", tmp_path / "half", "0.txt", text[: len(text) // 2]))


def test_names_of_before_are_read_as_tables_are(saved, tmp_path):
    fitted = json.loads((saved / "ridge" / "model.json").read_text())["fitted"]
    fitted[0]["name"] = "Bu\u0308ro"
    fitted[0]["labels"][:2] = ["Jo\u0308rg", " Ann "]
    model = load_model(forge(saved / "ridge", tmp_path / "old", fitted=fitted))
    assert model.fitted["B\u00fcro"].labels[:2] == ("J\u00f6rg", "Ann")
    fitted[0]["labels"][1] = "J\u00f6rg"  # of which there are two then
    with pytest.raises(InputError, match="is not a model"):
        load_model(forge(saved / "ridge", tmp_path / "two", fitted=fitted))
