"""Fixtures of the tests about cutting: recordings of noise, tables by hand, one meeting."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.manifests.table import segment_id

RATE = 16000


def _audio(path: Path, seconds: float, channels: int = 1, rate: int = RATE, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    samples = rng.integers(-32768, 32768, (round(seconds * rate), channels), dtype=np.int16)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def _table(*turns: tuple[str, str, float, float, int]) -> pd.DataFrame:
    """Return a segment table in session scope from (session, speaker, start, end, line)."""
    return pd.DataFrame(
        {
            "segment_id": [segment_id(s, p, start, end) for s, p, start, end, _ in turns],
            "audio": [f"{session}.flac" for session, *_ in turns],
            "start": [turn[2] for turn in turns],
            "end": [turn[3] for turn in turns],
            "speaker": [f"{session}_{speaker}" for session, speaker, *_ in turns],
            "session": [turn[0] for turn in turns],
            "line": [turn[4] for turn in turns],
        }
    )


@pytest.fixture(scope="session")
def audio() -> Callable[..., Path]:
    """Return a function that writes a recording of loud noise, 16 bits."""
    return _audio


@pytest.fixture(scope="session")
def table() -> Callable[..., pd.DataFrame]:
    """Return a function that makes a segment table from (session, speaker, start, end, line)."""
    return _table


@pytest.fixture
def meeting(tmp_path: Path) -> tuple[pd.DataFrame, Path]:
    """Return a table with overlaps and its folder: one meeting of 45 s, three channels."""
    _audio(tmp_path / "wav" / "S1.flac", 45, channels=3)
    turns = _table(
        ("S1", "002-F", 30.0, 44.9999, 3),
        ("S1", "001-M", 0.0, 1.5, 0),
        ("S1", "001-M", 19.0, 21.5, 1),  # over a block's border
        ("S1", "001-M", 21.5, 41.5, 2),  # over two
        ("S1", "002-F", 20.123, 20.9, 7),
    )
    return turns, tmp_path / "wav"
