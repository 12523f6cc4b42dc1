"""What `classify.py` runs on: random features with a centre per class, a table of meetings."""

import multiprocessing
from pathlib import Path

import numpy as np
import pandas as pd

from spk.extract.store.reader import FeatureStore
from spk.extract.store.writer import StoreWriter

CONFIG = {
    "schema": 1,
    "kind": "pooled",
    "encoder": "random",
    "revision": None,
    "weights_sha256": "0" * 64,
    "encoder_config_sha256": "0" * 64,
    "untrained": True,
    "layer_definition": "random",
    "pooling": "mean+std",
    "dtype": "float16",
    "compute_dtype": "float32",
    "rate": 16000,
    "channel": "0",
    "resample": False,
    "normalization": "none",
    "max_seconds": 30.0,
}


def write_store(path: Path, codes: np.ndarray, layers: int, dim: int) -> FeatureStore:
    """Write random features (n, layers, dim) with a centre per class, and open them.

    In a process of its own, so that the writer's memory is not counted as ours.
    """
    writer = multiprocessing.Process(target=_write, args=(path, codes, layers, dim))
    writer.start()
    writer.join()
    return FeatureStore.open(path)


def _write(path: Path, codes: np.ndarray, layers: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(codes.max() + 1, layers, dim)).astype(np.float32)
    config = {**CONFIG, "layers": list(range(layers)), "dim": dim}
    with StoreWriter(path, config) as writer:
        for number, code in enumerate(codes):
            noise = rng.standard_normal((layers, dim), dtype=np.float32)
            row = 0.15 * centres[code] + noise
            facts = {"frames": 74, "audio_bytes": 48000, "audio_crc32": 7}
            writer.add(f"s{number:06d}", row, duration=1.5, **facts)


def session_table(sessions: int, per_session: int) -> pd.DataFrame:
    """Return a table of `sessions` meetings with seven speakers each, four fifths of it train."""
    rows = np.arange(sessions * per_session)
    session, turn = rows // per_session, rows % per_session
    speaker = [f"m{a:02d}_{b}" for a, b in zip(session, turn % 7, strict=True)]
    share = turn / per_session
    return pd.DataFrame(
        {
            "segment_id": [f"s{row:06d}" for row in rows],
            "audio": [f"m{a:02d}.wav" for a in session],
            "start": 2.0 * turn,
            "end": 2.0 * turn + 1.5,
            "speaker": speaker,
            "session": [f"m{a:02d}" for a in session],
            "split": np.select([share < 0.68, share < 0.8], ["train", "valid"], "test"),
        }
    )
