"""A small store, for every test that needs one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spk.extract.store.writer import StoreWriter


@pytest.fixture(scope="session")
def store_config() -> dict[str, Any]:
    """Return the configuration of a small pooled store: 3 layers of 4 numbers, float16."""
    return {
        "schema": 1,
        "kind": "pooled",
        "encoder": "tiny",
        "revision": "0123abc",
        "layers": [0, 2, 5],
        "pooling": "mean",
        "dim": 4,
        "dtype": "float16",
        "rate": 16000,
        "channel": "0",
        "resample": False,
    }


@pytest.fixture(scope="session")
def row() -> dict[str, Any]:
    """Return the arguments of `StoreWriter.add` other than id and features."""
    return {"duration": 1.5, "frames": 74, "audio_bytes": 96000, "audio_crc32": 0xFFFFFFFF}


@pytest.fixture(scope="session")
def make_store(store_config: dict[str, Any], row: dict[str, Any]) -> Callable[..., np.ndarray]:
    """Return a function that writes ids to a store and returns their features, rounded to float16.

    Features of an id depend only on the id: (n, layers, dim) float32.
    """

    def make(path: Path, ids: Sequence[str], commit_rows: int = 4, **changes: Any) -> np.ndarray:
        config = {**store_config, **changes}
        shape = (len(config["layers"]), config["dim"])
        features = [
            np.random.default_rng([*name.encode()]).normal(size=shape).astype(np.float16)
            for name in ids
        ]
        with StoreWriter(path, config, commit_rows=commit_rows) as writer:
            for name, values in zip(ids, features, strict=True):
                writer.add(name, values.astype(np.float32), **row)
        return np.array(features, dtype=np.float32)

    return make


@pytest.fixture
def copy(tmp_path, layer_encoder):
    """Return a folder with an encoder's files that a test may damage."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in layer_encoder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder
