import json
from dataclasses import replace

import numpy as np
import pytest

from spk.classify.options import SweepSettings
from spk.classify.selection.candidates import choose
from spk.classify.selection.sweep import sweep
from spk.classify.speaker_model import fit_model, name_segments
from spk.classify.speaker_model_files import load_model, save_model
from spk.common.errors import InputError
from spk.extract.store.reader import FeatureStore
from spk.manifests.splits.tasks import make_tasks

SIX_DIGITS = 1e-6  # `scores` are written to six significant digits


def make_model(table, store, **changes):
    settings = SweepSettings(**{"layers": "1", "classifiers": "ridge", "jobs": 1, **changes})
    tasks, _ = make_tasks(table, settings.within)
    trial = choose(sweep(table, store, tasks, settings))
    return fit_model(table, store, tasks, trial, settings, split="chronological")


@pytest.fixture(scope="module")
def model(table, store):
    return make_model(table, store)


def test_predictions_are_the_segments_of_the_split_in_table_order(model, table, store):
    named, left_out = name_segments(model, table, store)
    tested = table[table["split"] == "test"]
    assert list(named["segment_id"]) == list(tested["segment_id"])
    assert list(named["speaker"]) == list(tested["speaker"])
    assert (named["predicted"] == named["speaker"]).mean() > 0.8  # chance is 1/3
    assert set(named["model"]) == {"ridge, layer 1"}
    assert not left_out


def test_scores_are_probabilities_over_the_meetings_speakers(model, table, store):
    named, _ = name_segments(model, table, store)
    for row in named.to_dict("records"):
        scores = json.loads(row["scores"])
        assert all(label.startswith(row["session"]) for label in scores)
        assert sum(scores.values()) == pytest.approx(1, abs=3 * SIX_DIGITS)
        assert max(scores, key=scores.get) == row["predicted"]
        assert max(scores.values()) == pytest.approx(row["score"], rel=SIX_DIGITS)


def test_predictions_do_not_depend_on_the_order_of_the_table(model, table, store):
    named, _ = name_segments(model, table, store)
    mixed, _ = name_segments(model, table.sample(frac=1, random_state=0), store)
    columns = ["predicted", "score", "scores"]
    again = mixed.set_index("segment_id").loc[named["segment_id"], columns]
    assert list(again["predicted"]) == list(named["predicted"])
    np.testing.assert_allclose(again["score"], named["score"], rtol=SIX_DIGITS)


@pytest.mark.parametrize("name", ["ridge", "lda", "logistic", "linear-svm", "centroid", "lightgbm"])
def test_a_model_read_back_names_the_same(tmp_path, table, store, name):
    model = make_model(table, store, classifiers=name)
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.origin == model.origin
    assert again.config == model.config
    first, second = name_segments(model, table, store)[0], name_segments(again, table, store)[0]
    assert first.equals(second)


def test_a_model_folder_holds_no_pickle(tmp_path, model):
    save_model(model, tmp_path / "model")
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == [
        "arrays.npz",
        "learnt.csv",
        "model.json",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    with np.load(tmp_path / "model" / "arrays.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype == np.float64 for name in arrays)


def test_a_folder_that_is_there_is_not_overwritten(tmp_path, model):
    save_model(model, tmp_path / "model")
    save_model(model, tmp_path / "model")  # the same one
    with pytest.raises(InputError, match="exists with other content, expected no such folder"):
        save_model(replace(model, temperature=9.0), tmp_path / "model")


def test_a_failed_write_leaves_nothing_behind(tmp_path, model, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("spk.classify.speaker_model_files.os.rename", full)
    with pytest.raises(InputError, match=r"cannot be written \(no space left\)"):
        save_model(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_changed_file_is_refused(tmp_path, model):
    save_model(model, tmp_path / "model")
    file = tmp_path / "model" / "arrays.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"'arrays.npz' has another SHA-256"):
        load_model(tmp_path / "model")


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'model.json' cannot be read"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text("[]")
    with pytest.raises(InputError, match="is not a model"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text('{"schema": 9}')
    with pytest.raises(InputError, match="schema is 9, expected 1"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text('{"schema": 1, "sha256": {"../x": ""}}')
    with pytest.raises(InputError, match=r"file name is '../x'"):
        load_model(tmp_path)


def test_another_encoder_is_refused_with_the_keys_that_differ(
    tmp_path, model, table, features, write_store
):
    other = {"encoder": "other", "weights_sha256": "c" * 64, "channel": "1"}
    path = write_store(tmp_path / "s", table["segment_id"], features, **other)
    expected = r"\(channel '1', not '0'; weights_sha256 'ccc.*', not 'aaa.*'\)"
    with pytest.raises(InputError, match=expected):
        name_segments(model, table, FeatureStore.open(path))


@pytest.mark.parametrize(
    "same", [{"encoder": "/moved/toy"}, {"resample": True}, {"revision": None}]
)
def test_equal_weights_under_another_name_and_allowed_resampling_serve(
    tmp_path, model, table, features, write_store, same
):
    store = FeatureStore.open(write_store(tmp_path / "s", table["segment_id"], features, **same))
    assert len(name_segments(model, table, store)[0]) == 36


def test_a_store_of_more_layers_in_another_precision_serves(
    tmp_path, model, table, features, write_store
):
    ids = table["segment_id"]
    path = write_store(tmp_path / "s", ids, features[:, :2], dtype="float16")
    named, _ = name_segments(model, table, FeatureStore.open(path))
    assert len(named) == (table["split"] == "test").sum()
    path = write_store(tmp_path / "t", ids, features[:, :1])
    with pytest.raises(InputError, match=r"layers \[1\] are missing, found \[0\]"):
        name_segments(model, table, FeatureStore.open(path))


def test_sessions_without_a_model_are_told(table, store):
    sessions = sorted(set(table["session"]))
    model = make_model(table[table["session"] != sessions[1]].reset_index(drop=True), store)
    named, left_out = name_segments(model, table, store)
    assert sorted(set(named["session"])) == [sessions[0], sessions[2]]
    assert left_out == {sessions[1]: "12 segments, no model of this session"}
    alone = table[table["session"] == sessions[1]]
    with pytest.raises(InputError, match="0 of 12 segments are of the sessions that"):
        name_segments(model, alone, store)


def test_a_table_without_a_split_is_named_whole_on_demand(model, table, store):
    plain = table.drop(columns="split")
    assert len(name_segments(model, plain, store, split="all")[0]) == len(table)
    with pytest.raises(InputError, match="0 of 180 segments have split 'test'"):
        name_segments(model, plain, store)


def test_an_untrained_encoder_is_named_in_the_model_column(model):
    untrained = replace(model, config={**model.config, "untrained": True})
    assert untrained.name == "ridge, layer 1, untrained encoder"


def test_a_corpus_model_scores_every_label(table, store):
    named, _ = name_segments(make_model(table, store, within="corpus"), table, store)
    assert all(len(json.loads(text)) == 9 for text in named["scores"])
    assert set(named["model"]) == {"ridge, layer 1, within corpus"}


def test_the_origin_says_what_the_model_learnt_from(model):
    assert model.origin["fitted_on"] == "train and valid"
    assert model.origin["chosen_and_calibrated_on"] == "valid"
    assert model.origin["segments"] == {"train": 108, "valid": 36}
    assert model.origin["split"] == "chronological"
    assert model.config["encoder"] == "toy"


def test_a_folder_with_curves_names_the_same_by_other_probabilities(
    tmp_path, model, table, store, with_curves
):
    save_model(model, tmp_path / "plain")
    with_curves(tmp_path / "plain", tmp_path / "model")
    again = load_model(tmp_path / "model")
    first, second = name_segments(model, table, store)[0], name_segments(again, table, store)[0]
    assert list(first["predicted"]) == list(second["predicted"])
    for plain, risen in zip(first["scores"], second["scores"], strict=True):
        before, after = json.loads(plain), json.loads(risen)
        curve = np.interp([*before.values()], [0.0, 0.5, 1.0], [0.1, 0.6, 0.9])
        np.testing.assert_allclose([*after.values()], curve / curve.sum(), atol=SIX_DIGITS)
    for row in second.to_dict("records"):
        scores = json.loads(row["scores"])
        assert scores[row["predicted"]] == pytest.approx(row["score"], rel=5 * SIX_DIGITS)
    save_model(again, tmp_path / "copy")  # what was read is written with its curves
    assert name_segments(load_model(tmp_path / "copy"), table, store)[0].equals(second)


def test_a_folder_from_before_there_were_curves_is_read(tmp_path, model, table, store):
    save_model(model, tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    description = json.loads(file.read_text())
    assert description.pop("calibration") == "temperature"
    file.write_text(json.dumps(description))
    again = name_segments(load_model(tmp_path / "model"), table, store)[0]
    assert again.equals(name_segments(model, table, store)[0])


def test_a_folder_from_before_tasks_had_temperatures_uses_the_shared_one(
    tmp_path, model, table, store
):
    save_model(model, tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    description = json.loads(file.read_text())
    assert set(description.pop("temperatures")) == set(model.fitted)
    file.write_text(json.dumps(description))
    again = load_model(tmp_path / "model")
    expected = name_segments(replace(model, temperatures={}), table, store)[0]
    assert name_segments(again, table, store)[0].equals(expected)
    assert not name_segments(model, table, store)[0].equals(expected)
