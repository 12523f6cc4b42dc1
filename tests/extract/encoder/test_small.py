"""The encoder that ships: an ordinary folder of transformers, loaded by name, that knows voices."""

import contextlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from click.testing import CliRunner

from spk.classify.cli import main as classify
from spk.common.errors import InputError
from spk.extract.cli import main as extract
from spk.extract.encoder.checkpoint import BUILT_IN, SMALL, find_checkpoint
from spk.extract.encoder.encoder import load_encoder
from spk.extract.encoder.transformer import _transformers
from spk.extract.options import ExtractOptions
from spk.extract.planning import plan
from spk.extract.store.reader import FeatureStore
from spk.manifests.cli import main as manifests
from spk.manifests.demo.sample_meeting import SAMPLE

FOLDER = BUILT_IN[SMALL]
MOST_BYTES = 8_000_000
SAME = 1e-5  # relative; the promise of every encoder
CHANCE = 1 / 7  # of the sample's speakers


@pytest.fixture(scope="module")
def small():
    return load_encoder(SMALL, device="cpu")


@pytest.fixture(scope="module")
def waves():
    """Return three pieces of the sample, in float32."""
    samples, rate = soundfile.read(SAMPLE / "sample.ogg", dtype="float32")
    assert rate == 16000
    return [samples[at : at + length] for at, length in ((6400, 29120), (86603, 16000), (0, 1360))]


def difference(one, other):
    return np.abs(one - other).max() / np.abs(other).max()


def test_small_is_the_folder_that_ships(small, waves):
    by_path = load_encoder(FOLDER, device="cpu")
    assert small.provenance() == by_path.provenance()
    layers = range(small.layer_count + 1)
    np.testing.assert_array_equal(
        small.encode(waves, layers=layers)[0], by_path.encode(waves, layers=layers)[0]
    )


def test_its_states_are_those_of_transformers(small, waves):
    transformers = _transformers()
    model = transformers.AutoModel.from_pretrained(FOLDER, dtype=torch.float32).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(FOLDER)
    inputs = extractor(waves[0], sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        theirs = model(inputs.input_values, output_hidden_states=True)
    layers = range(small.layer_count + 1)
    ours = small.states([waves[0]], layers=layers)[0]
    states = [*theirs.hidden_states[:-1], theirs.last_hidden_state]
    for layer in layers:
        assert difference(ours[:, layer], states[layer][0].numpy()) < SAME


def test_its_features_do_not_depend_on_the_batch(small, waves):
    layers = range(small.layer_count + 1)
    together, _ = small.encode(waves, layers=layers)
    for wave, row in zip(waves, together, strict=True):
        assert difference(small.encode([wave], layers=layers)[0][0], row) < SAME


def test_its_weights_are_half_floats_of_a_size_to_ship():
    checkpoint = find_checkpoint(SMALL)
    (weights,) = checkpoint.weights
    assert weights.stat().st_size <= MOST_BYTES
    header = weights.read_bytes()
    length = int.from_bytes(header[:8], "little")
    tensors = json.loads(header[8 : 8 + length])
    assert {t["dtype"] for name, t in tensors.items() if name != "__metadata__"} == {"F16"}


def test_a_revision_of_small_is_refused():
    with pytest.raises(InputError, match="--revision: value is 'main' for the folder"):
        load_encoder(SMALL, revision="main")


def test_small_is_no_untrained_encoder_and_says_how_little_it_learnt_from(small):
    provenance = small.provenance()
    assert (provenance["encoder"], provenance["untrained"]) == (SMALL, False)
    assert provenance["trained_on"].endswith("h of speech")


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Return a folder where the sample was named by the commands, and what they printed."""
    folder, said = tmp_path_factory.mktemp("sample"), []
    lines = (
        (manifests, "sample voices"),
        (manifests, "rttm voices/TextGrid turns.csv --audio-root voices/wav"),
        (manifests, "split turns.csv table.csv"),
        (extract, "table.csv store --audio-root voices/wav --encoder small --workers 0"),
        (classify, "sweep table.csv store sweep --classifiers centroid"),
    )
    with contextlib.chdir(folder):
        for command, words in lines:
            result = CliRunner().invoke(command, words.split(), catch_exceptions=False)
            assert result.exit_code == 0, result.output
            said.append(result.output)
    return folder, said


def test_the_commands_name_the_sample_with_small_far_above_chance(named):
    folder, _ = named
    metrics = pd.read_csv(folder / "sweep" / "metrics.csv").set_index("measure")["value"]
    accuracy = metrics["accuracy"]
    assert (accuracy.iloc[0] if isinstance(accuracy, pd.Series) else accuracy) > 4 * CHANCE


def test_what_is_printed_and_stored_says_that_the_encoder_is_small(named):
    folder, said = named
    assert FeatureStore.open(folder / "store").config["trained_on"].endswith("h of speech")
    assert "a small encoder, trained on" in said[3]
    assert "small encoder, trained on" in said[4]


def test_a_plan_knows_its_layers_and_frames(named, small):
    folder, _ = named
    table = pd.read_csv(folder / "table.csv", dtype={"channel": str})
    options = ExtractOptions(encoder=SMALL, audio_root=str(folder / "voices" / "wav"))
    assert f"{small.layer_count + 1} layers x {2 * small.hidden_size}" in str(plan(table, options))
    frames = plan(table, replace(options, frames=True))
    states = small.states([np.zeros(160_000, np.float32)], layers=[0])[0]
    expected = frames.seconds * len(states) / 10 * (small.layer_count + 1) * small.hidden_size * 2
    assert frames.size == pytest.approx(expected, rel=0.02)  # less at the ends
