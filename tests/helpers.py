"""What tests of several packages make: a recording of noise and the table of its segments."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from spk.manifests.table import check_table, segment_id


def noise_meeting(
    folder: Path,
    audio: str,
    spans: Sequence[tuple[float, float]],
    *,
    speakers: Sequence[str] = ("001-M",),
    silent: float = 0.0,
    channels: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """Write a recording of white noise that ends 1 s after its last span; return its segments.

    Parameters
    ----------
    folder, audio
        Where it is written, and its name there; the stem is the session.
    spans
        Start and end of each segment, s.
    speakers
        Their names, who take turns.
    silent
        How much of the beginning is zeros, s.
    """
    seconds = max(end for _, end in spans) + 1
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (int(seconds * 16000), channels))
    samples[: int(silent * 16000)] = 0
    soundfile.write(folder / audio, samples, 16000)
    session = Path(audio).stem
    rows = [
        {
            "segment_id": segment_id(session, speakers[i % len(speakers)], start, end),
            "audio": audio,
            "start": start,
            "end": end,
            "speaker": speakers[i % len(speakers)],
            "session": session,
        }
        for i, (start, end) in enumerate(spans)
    ]
    return check_table(pd.DataFrame(rows))
