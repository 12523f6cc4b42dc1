"""What does not belong together is refused, with what differs: stores, models, tables, audio."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.extract.audio import Segment
from spk.extract.store.layout import setting_text
from spk.extract.store.reader import FeatureStore
from spk.extract.store.writer import StoreWriter
from spk.finetune.config import FinetuneConfig
from spk.finetune.training.train_session import TrainingContext, _sign
from spk.manifests.table import read_table, write_table

# Every key of a real store's configuration that tells its features, each with another value.
OTHER = {
    "schema": 2,
    "kind": "frames",
    "weights_sha256": "0" * 64,
    "encoder_config_sha256": "0" * 64,
    "untrained": False,
    "layer_definition": "last one without normalisation",
    "compute_dtype": "bfloat16",
    "rate": 8000,
    "normalization": "none",
    "layers": [0, 2, 4],
    "pooling": "mean",
    "dim": 64,
    "dtype": "float32",
    "channel": "mean",
    "max_seconds": 20.0,
}


FREE = ("layers", "dtype", "schema")  # of which a model takes any store
NAMES = ("encoder", "revision")  # of what the hashes identify


@pytest.fixture(scope="module")
def corpus(scene, tmp_path_factory):
    """Return two short meetings and, in the same folder, their store."""
    made = scene.make_corpus(tmp_path_factory.mktemp("corpus"))
    scene.must(made.extract(made.folder / "store"))
    return made


@pytest.fixture
def copy(corpus, tmp_path):
    """Return a corpus whose table, audio and store may be changed."""
    shutil.copytree(corpus.folder, tmp_path / "c")
    return type(corpus)(tmp_path / "c", tmp_path / "c" / "table.csv")


def one_other(store, path, key):
    """Write a store whose configuration differs in one key, of the same rows where they fit."""
    opened = FeatureStore.open(store)
    config = {**opened.config, key: OTHER[key]}
    shape = (len(config["layers"]), config["dim"])
    with StoreWriter(path, config) as writer:
        for name in opened.ids().tolist():
            same = [opened.read([name], layer)[0, : shape[1]] for layer in opened.layers]
            values = np.array(same) if config["kind"] == "pooled" else np.array([same])
            row = {"duration": 1.0, "frames": 1, "audio_bytes": 4, "audio_crc32": 0}
            writer.add(name, values, **row)
        for row in opened.rejected():
            writer.reject(**row)
    return path


def test_every_key_of_a_configuration_is_tried(corpus):
    config = FeatureStore.open(corpus.folder / "store").config
    assert config.keys() == OTHER.keys() | {*NAMES}
    assert not [key for key, value in OTHER.items() if config[key] == value]


@pytest.mark.parametrize("key", OTHER)
def test_stores_of_another_configuration_are_not_mixed(corpus, tmp_path, told, key):
    other = one_other(corpus.folder / "store", tmp_path / "other", key)
    was = FeatureStore.open(corpus.folder / "store").config[key]
    pair = f"{key}: {setting_text(OTHER[key])}, asked {setting_text(was)}"
    differs = f"made with another configuration ({pair}), expected"
    assert differs in told(corpus.extract(other))
    assert differs in told(f"spk-store merge {corpus.folder}/store {other} out")
    assert not (tmp_path / "out").exists()
    (shard,) = (other / "shards").iterdir()
    shutil.copytree(corpus.folder / "store", tmp_path / "mixed")
    shutil.copy(shard, tmp_path / "mixed" / "shards")
    assert f"{shard.name}: made with another" in told("spk-store info mixed")


@pytest.fixture(scope="module")
def model(corpus, scene):
    """Return the folder of a model fitted on the store."""
    words = "--classifiers centroid --layers 5 --jobs 1"
    path = corpus.folder / "model"
    scene.must(f"spk-classify fit {corpus.table} {corpus.folder}/store {path} {words}")
    return path


@pytest.mark.parametrize("key", [key for key in OTHER if key not in FREE])
def test_a_model_reads_no_store_of_another_configuration(corpus, model, tmp_path, told, key):
    other = one_other(corpus.folder / "store", tmp_path / "other", key)
    found = told(f"spk-classify predict {model} {corpus.table} {other} predictions.csv")
    assert key in found
    assert setting_text(OTHER[key]) in found
    assert not (tmp_path / "predictions.csv").exists()


def test_other_weights_under_the_same_name_are_refused(copy, layer_encoder, tmp_path, told, scene):
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(layer_encoder, tmp_path / "encoder")
    line = copy.extract(tmp_path / "s").replace("--encoder demo", f"--encoder {tmp_path}/encoder")
    line = line.replace("0,2,5", "0,3")
    scene.must(line)
    weights = load_file(tmp_path / "encoder" / "model.safetensors")
    name = sorted(weights)[-1]
    weights[name] = weights[name] + torch.finfo(torch.float32).eps
    save_file(weights, tmp_path / "encoder" / "model.safetensors", {"format": "pt"})
    refused = told(line)
    assert "another configuration (" in refused
    assert "weights_sha256: " in refused
    settings = tmp_path / "encoder" / "preprocessor_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "sampling_rate": 8000}))
    assert "sample rate is 16000 Hz, expected 8000 Hz" in told(line)


def test_audio_that_changed_under_its_name_is_found(copy, told, typed):
    rows = read_table(copy.table)
    name = rows["audio"].iloc[0]
    path = copy.folder / "wav" / name
    samples, rate = soundfile.read(path, dtype="int16")
    soundfile.write(path, samples[::-1], rate)
    store = copy.folder / "store"
    done = typed(f"spk-store verify {store} --table {copy.table} --audio {copy.folder}/wav")
    changed = rows["audio"] == name
    assert done.exit_code == 1
    assert done.stdout.count("has other samples than those encoded") == changed.sum()
    assert f"{changed.sum()} faults, expected none" in done.stderr
    soundfile.write(path, np.stack([samples, samples], 1), 8000)
    line = copy.extract(store)
    assert "sample rate is 8000 Hz, expected 16000 Hz" in told(line)


def test_a_table_edited_after_extraction_is_told(copy, told, typed):
    rows, store, edited = read_table(copy.table), copy.folder / "store", copy.folder / "edited.csv"

    def verified(changed):
        write_table(changed, edited)
        return typed(f"spk-store verify {store} --table {edited} --audio {copy.folder}/wav")

    longer = rows.assign(start=rows["start"] + 0.002 * (rows.index == 3))
    write_table(longer, edited)
    line = copy.extract(store).replace(str(copy.table), str(edited))
    assert f"1 segment has another length in the table, first {rows.segment_id[3]!r}" in told(line)
    # of the same length: found where the audio is decoded, and only there
    moved = rows.assign(**{name: rows[name] - 0.1 * (rows.index == 3) for name in ("start", "end")})
    done = verified(moved)
    assert f"segment {rows.segment_id[3]!r} has other samples than those encoded" in done.stdout
    names = rows["segment_id"].tolist()
    swapped = rows.assign(segment_id=[names[1], names[0], *names[2:]])
    assert verified(swapped).stdout.count("has other samples than those encoded") == 2
    renamed = rows.assign(segment_id=["new", *names[1:]])
    assert "1 of 52 segments is not in the table" in verified(renamed).stdout
    told_of = told(f"spk-classify sweep {edited} {store} out --classifiers centroid --jobs 1")
    assert f"1 of {len(rows)} segments has no features, first 'new'" in told_of
    # another speaker is another label and not another feature
    named = rows.assign(speaker=rows["speaker"] + "x")
    assert verified(named).exit_code == 0


def test_a_split_edited_after_a_sweep_is_another_sweep(copy, scene, told):
    line = f"spk-classify sweep {copy.table} {copy.folder}/store {copy.folder}/swept"
    line += " --classifiers centroid --jobs 1"
    scene.must(line)
    assert "were finished before" in scene.must(line).out
    rows = pd.read_csv(copy.table, keep_default_na=False)
    place = rows.index[rows["split"] == "train"][0]
    rows.loc[place, "split"] = ""
    rows.to_csv(copy.table, index=False)
    assert "1 of 53 rows has another split" in told(line)
    assert "were finished before" not in scene.must(f"{line} --overwrite").out


SIGNED = {
    "batch_seconds": 9.0,
    "batch_size": 3,
    "channel": "mean",
    "resample": True,
    "states": "1",
    "unfreeze": "2:1",
    "freeze_encoder_layers": 1,
    "dtype": "bfloat16",
    "max_epochs": 3,
}


@pytest.mark.parametrize("name", SIGNED)
def test_kept_prefixes_are_of_one_setting(tmp_path, name):
    path = tmp_path / "r.wav"
    path.write_bytes(b"1")
    segments = [Segment("a", str(path), 0.0, 1.0)]
    of = SimpleNamespace(encoder={"revision": "1"}), SimpleNamespace(segments=segments)
    config = FinetuneConfig()
    signs = [
        _sign(*of, TrainingContext(None, one, "random", device="cpu", ranks=1, stop=lambda: False))
        for one in (config, config, replace(config, **{name: SIGNED[name]}))
    ]
    assert signs[0] == signs[1] != signs[2]
