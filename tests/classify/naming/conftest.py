"""Toy voices: five people in four sessions, whose vectors are their own plus noise."""

import zlib

import numpy as np
import pandas as pd
import pytest
from helpers import TOY_STORE

from spk.classify.naming.enrolment import enrol
from spk.extract.store.writer import StoreWriter

CONFIG = TOY_STORE
PEOPLE = ("Ann", "Bo", "Cem", "Di", "Eva")
DIM, NOISE = 12, (3.0, 0.7)  # of a vector; deviation of the noise, by layer
SECONDS = 2.5


def voice_of(name):
    """Return a person's vector (DIM,), always the same."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=DIM)


def toy_table(people=PEOPLE, sessions=4, turns=8):
    """Return a table in which people take turns of 2.5 s."""
    rows = [
        (f"s{session}-{turn}-{name}", f"s{session}", name, 3.0 * (turn * len(people) + place))
        for session in range(1, sessions + 1)
        for turn in range(turns)
        for place, name in enumerate(people)
    ]
    table = pd.DataFrame(rows, columns=["segment_id", "session", "speaker", "start"])
    return table.assign(end=table["start"] + SECONDS, audio=table["session"] + ".wav", overlap=0.0)


def toy_vectors(table, noise=NOISE, seed=0):
    """Return (n, layers, DIM) float32."""
    rng = np.random.default_rng(seed)
    voices = np.stack([voice_of(name) for name in table["speaker"]])
    parts = [voices + sigma * rng.normal(size=voices.shape) for sigma in noise]
    return np.stack(parts, axis=1).astype(np.float32)


def toy_store(path, table, vectors=None, **changes):
    """Write a store of the table's vectors; each segment has its own samples."""
    vectors = toy_vectors(table) if vectors is None else vectors
    config = {**CONFIG, "layers": list(range(vectors.shape[1])), "dim": DIM, **changes}
    lengths = (table["end"] - table["start"]).tolist()
    with StoreWriter(path, config) as writer:
        for name, rows, seconds in zip(table["segment_id"], vectors, lengths, strict=True):
            crc, size = zlib.crc32(name.encode()), int(seconds * 64000)
            facts = {"duration": seconds, "frames": 9, "audio_bytes": size, "audio_crc32": crc}
            writer.add(name, rows, **facts)
    return path


@pytest.fixture(scope="package")
def table():
    return toy_table()


@pytest.fixture(scope="package")
def store(table, tmp_path_factory):
    return toy_store(tmp_path_factory.mktemp("toy") / "store", table)


@pytest.fixture(scope="package")
def voices(table, store):
    return enrol(table, store, log=lambda line: None)


@pytest.fixture(scope="package")
def make_table():
    return toy_table


@pytest.fixture(scope="package")
def make_store():
    return toy_store


@pytest.fixture(scope="package")
def make_vectors():
    return toy_vectors


@pytest.fixture(scope="package")
def vectors_of():
    """Return a function from people's names to vectors (n, DIM) with half the noise of layer 1."""
    rng = np.random.default_rng(8)
    sigma = NOISE[1] / 2
    return lambda names: np.stack([voice_of(n) + sigma * rng.normal(size=DIM) for n in names])
