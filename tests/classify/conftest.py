"""A synthetic corpus for classify: a table with a split, and a store whose layer 1 tells voices."""

import numpy as np
import pandas as pd
import pytest

from spk.extract.store import FeatureStore, StoreWriter
from spk.manifests.table import segment_id

CONFIG = {
    "schema": 1,
    "kind": "pooled",
    "encoder": "toy",
    "revision": "0" * 40,
    "weights_sha256": "a" * 64,
    "encoder_config_sha256": "b" * 64,
    "untrained": False,
    "layers": [0, 1, 2],
    "layer_definition": "state k leaves layer k",
    "pooling": "mean+std",
    "dim": 24,
    "dtype": "float32",
    "compute_dtype": "float32",
    "rate": 16000,
    "channel": "0",
    "resample": False,
    "normalization": "none",
    "max_seconds": 30.0,
}
SESSIONS = ("20990101_S_R001S01C01", "20990101_S_R001S02C01", "20990102_M_R002S01C01")
SPLITS = ("train",) * 6 + ("valid",) * 2 + ("test",) * 2
SPREAD = (6.0, 1.0, 3.0)  # noise per layer around a voice of variance 1: layer 1 is best


def make_table(sessions=SESSIONS, speakers=3, repeats=2):
    """Return a table in which every speaker has ten segments of 1.5 s per repeat."""
    rows = []
    for session in sessions:
        for turn in range(10 * repeats):
            for number in range(speakers):
                label = f"{session}_{number + 1:03d}-M"
                start = 2.0 * (turn * speakers + number)
                end = start + 1.5
                rows.append((segment_id(session, label, start, end), session, label, start, end))
                rows[-1] += (SPLITS[turn % 10], 0.1 * (turn % 3))
    columns = ["segment_id", "session", "speaker", "start", "end", "split", "overlap"]
    return pd.DataFrame(rows, columns=columns).assign(audio="a.wav")


def make_features(table, layers=3, dim=24, seed=0):
    """Return (n, layers, dim) float32: a voice per label and noise that differs by layer."""
    rng = np.random.default_rng(seed)
    voices = {label: rng.normal(size=dim) for label in sorted(set(table["speaker"]))}
    centre = np.array([voices[label] for label in table["speaker"]])
    noise = rng.normal(size=(len(table), layers, dim)) * np.array(SPREAD)[None, :layers, None]
    return (centre[:, None] + noise).astype(np.float32)


def make_store(path, ids, features, rejected=(), **changes):
    """Write a pooled store of `features` (n, layers, dim); `changes` go to its configuration."""
    config = {**CONFIG, "layers": list(range(features.shape[1])), "dim": features.shape[2]}
    with StoreWriter(path, {**config, **changes}) as writer:
        for name, rows in zip(ids, features, strict=True):
            writer.add(name, rows, duration=1.5, frames=74, audio_bytes=48000, audio_crc32=7)
        for name in rejected:
            writer.reject(name, "short", "too short")
    return path


@pytest.fixture(scope="session")
def toy_table():
    return make_table


@pytest.fixture(scope="session")
def toy_features():
    return make_features


@pytest.fixture(scope="session")
def write_store():
    return make_store


@pytest.fixture(scope="session")
def table():
    return make_table()


@pytest.fixture(scope="session")
def features(table):
    return make_features(table)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory, table, features):
    path = tmp_path_factory.mktemp("classify") / "store"
    order = np.random.default_rng(1).permutation(len(table))  # not the table's order
    return make_store(path, table["segment_id"].to_numpy()[order], features[order])


@pytest.fixture(scope="session")
def store(store_path):
    return FeatureStore.open(store_path)
