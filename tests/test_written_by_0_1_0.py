"""What version 0.1.0 wrote is still read: a table, store, pack, sweep, model, fine-tuned folder.

`written_by_0_1_0` was made by its commands, from ``spk-manifests demo corpus --sessions 2
--minutes 1`` and a random encoder of two layers. Where recordings are needed they are made anew.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spk.extract.store.reader import FeatureStore

WRITTEN = Path(__file__).parent / "written_by_0_1_0"


@pytest.fixture
def run(typed, tmp_path, monkeypatch):
    """Return a function that runs a line beside a copy of the folder, which it may lock."""
    shutil.copytree(WRITTEN, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")

    def run_line(line):
        result = typed(line)
        assert result.exit_code == 0, (line, result.output)
        return result.output

    return run_line


@pytest.fixture
def corpus(run):
    """Have the recordings in the current folder."""
    run("spk-manifests demo corpus --sessions 2 --minutes 1")


def assert_same_predictions(path, expected):
    ours, theirs = (
        pd.read_csv(file).sort_values("segment_id", ignore_index=True) for file in (path, expected)
    )
    assert len(theirs) == 10
    names = ["segment_id", "session", "speaker", "predicted"]
    pd.testing.assert_frame_equal(ours[names], theirs[names])
    for our, their in zip(ours["scores"], theirs["scores"], strict=True):
        assert json.loads(our) == pytest.approx(json.loads(their), abs=1e-4)


def test_the_folder_is_of_version_0_1_0():
    versions = json.loads((WRITTEN / "store" / "store.json").read_text())["versions"]
    assert versions["spk-toolkit"] == "0.1.0"


def test_a_store_passes_every_check_and_holds_what_its_pack_holds(run):
    assert "every byte is as it was written" in run("spk-store verify store")
    ids = pd.read_csv("table.csv")["segment_id"].tolist()
    for layer in range(3):
        features, packed = (
            FeatureStore.open(name).read(ids, layer) for name in ("store", "store.h5")
        )
        assert features.shape == (44, 32)
        assert np.ptp(features) > 0.1
        np.testing.assert_array_equal(features, packed)


@pytest.mark.slow
def test_a_store_is_gone_on_with_and_nothing_is_encoded_again(run, corpus):
    line = "spk-extract table.csv store --audio-root corpus/wav --encoder enc"
    assert "44 of 44 segments have features, 0 of them new" in run(line)


def test_a_model_names_segments_as_it_did(run):
    run("spk-classify predict model table.csv store again.csv")
    assert_same_predictions("again.csv", "predictions.csv")


def test_a_sweep_is_scored_and_reported(run):
    assert "40.0%" in run("spk-classify score sweep/predictions.csv --table table.csv")
    run("spk-classify report sweep --output page.html")
    assert "centroid" in Path("page.html").read_text()


def test_a_fine_tuned_folder_names_segments_as_it_did(run, corpus):
    run("spk-finetune predict tuned table.csv again.csv --audio-root corpus/wav --split test")
    assert_same_predictions("again.csv", "tuned_predictions.csv")


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["--pretrained-model enc --precision auto", "--encoder enc"])
def test_a_fine_tuned_folder_goes_on_by_the_command_that_began_it(run, corpus, encoder):
    """Its seed, 42, was the default then; its settings have names of then."""
    line = f"spk-finetune fit table.csv --log-dir tuned --audio-root corpus/wav {encoder} "
    line += "--freeze-encoder-layers 1 --max-epochs 1 --accelerator cpu"
    before = {path: path.stat().st_mtime_ns for path in Path("tuned").rglob("*.ckpt")}
    assert before
    run(line)
    assert {path: path.stat().st_mtime_ns for path in Path("tuned").rglob("*.ckpt")} == before
    assert "seed: 42\n" in Path("tuned/config.yaml").read_text()
