"""The baseline's coefficients are torchaudio's, and a store of them is one like any other."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from click.testing import CliRunner

from spk.common.errors import InputError
from spk.extract.cli import main
from spk.extract.encoder.encoder import load_encoder
from spk.extract.encoder.mfcc import BANDS, COEFFICIENTS, HOP, WINDOW
from spk.extract.store.reader import FeatureStore

SAME = 2e-3  # dB; torchaudio computes in float32, on levels around 100 dB
ALONE = 1e-5  # relative; the promise of every encoder


def voices(lengths, seed=0):
    """Return noise of falling loudness, so that the quietest bands lie below the 80 dB."""
    rng = np.random.default_rng(seed)
    return [
        (rng.standard_normal(n) * np.geomspace(0.3, 1e-6, n)).astype(np.float32) for n in lengths
    ]


@pytest.fixture(scope="module")
def mfcc():
    return load_encoder("mfcc", device="cpu")


def test_coefficients_are_torchaudios(mfcc):
    transforms = pytest.importorskip("torchaudio.transforms")
    theirs = transforms.MFCC(
        sample_rate=16000,
        n_mfcc=COEFFICIENTS,
        melkwargs={"n_fft": WINDOW, "hop_length": HOP, "n_mels": BANDS, "center": False},
    )
    for wave in voices([16000, 5000, 400]):
        ours = mfcc.states([wave], layers=[0])[0][:, 0]
        expected = theirs(torch.from_numpy(wave)[None])[0].T.numpy()
        np.testing.assert_allclose(ours, expected, atol=SAME)


@pytest.mark.slow
def test_it_loads_first_of_all_in_a_process_of_its_own():
    code = "from spk.extract.encoder.encoder import load_encoder as load; print(load('mfcc').rate)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "16000\n", done.stderr


def test_a_segment_is_its_coefficients_mean_and_deviation(mfcc):
    wave = voices([8000])[0]
    states = mfcc.states([wave], layers=[0])[0][:, 0]
    features, frames = mfcc.encode([wave], layers=[0])
    assert frames.tolist() == [1 + (8000 - WINDOW) // HOP]
    expected = np.concatenate([states.mean(axis=0), states.std(axis=0)])
    np.testing.assert_allclose(features[0, 0], expected, rtol=ALONE, atol=ALONE)


def test_features_do_not_depend_on_the_batch_or_the_number_format(mfcc):
    waves = voices([16000, 5000, 400])
    together, _ = mfcc.encode(waves, layers=[0])
    for wave, row in zip(waves, together, strict=True):
        np.testing.assert_allclose(mfcc.encode([wave], layers=[0])[0][0], row, rtol=ALONE)
    whole = np.round(waves[1] * 32767).astype(np.int16)
    again, _ = mfcc.encode([whole, waves[0]], layers=[0])
    alone, _ = mfcc.encode([whole.astype(np.float32) / 32768], layers=[0])
    np.testing.assert_allclose(again[0], alone[0], rtol=ALONE)


def test_windows_of_a_long_segment_add_up(mfcc):
    wave = voices([48000])[0]
    whole, _ = mfcc.encode([wave], layers=[0])
    parts, _ = mfcc.encode([wave], layers=[0], max_seconds=1.0)
    np.testing.assert_allclose(parts, whole, rtol=ALONE, atol=ALONE)


def test_normalising_is_refused():
    with pytest.raises(InputError, match="--normalize: value is 'yes' beside --encoder mfcc"):
        load_encoder("mfcc", normalize="yes")


@pytest.fixture
def table(tmp_path):
    waves = np.concatenate(voices([16000] * 4))
    soundfile.write(tmp_path / "m.wav", waves, 16000)
    rows = [("m", f"s{k % 2}", "m.wav", float(k), k + 0.9, f"m-{k}") for k in range(4)]
    names = ["session", "speaker", "audio", "start", "end", "segment_id"]
    pd.DataFrame(rows, columns=names).to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def test_the_command_writes_a_store_that_says_baseline(table, tmp_path):
    words = [str(table), str(tmp_path / "f"), "--audio-root", str(tmp_path), "--encoder", "mfcc"]
    plan = CliRunner().invoke(main, [*words, "--plan"])
    assert plan.exit_code == 0, plan.output
    assert "1 layer x 40" in plan.output
    done = CliRunner().invoke(main, [*words, "--verify", "3"])
    assert done.exit_code == 0, done.output
    store = FeatureStore.open(tmp_path / "f")
    assert store.config["encoder"] == "mfcc"
    assert store.config["baseline"] is True
    assert store.config["untrained"] is False
    assert (store.layers, store.config["dim"]) == ([0], 40)


def test_two_runs_are_one_run(table, tmp_path):
    for name in ("a", "b"):
        words = [str(table), str(tmp_path / name), "--audio-root", str(tmp_path)]
        CliRunner().invoke(main, [*words, "--encoder", "mfcc", "--batch-seconds", "2"])
    first, second = (FeatureStore.open(tmp_path / name) for name in ("a", "b"))
    ids = [f"m-{k}" for k in range(4)]
    np.testing.assert_array_equal(first.read(ids, 0), second.read(ids, 0))
