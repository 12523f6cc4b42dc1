"""Shared by tests of several packages: recordings of noise, and the reference's config file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from spk.manifests.table import check_table, segment_id

# The reference project's own config file, verbatim.
REFERENCE_CONFIG = """\
seed: 42
max_epochs: 40
batch_size: 2
learning_rate: 3e-5
num_workers: 4
log_every_n_steps: 10
pretrained_model: "jonatasgrosman/wav2vec2-large-xlsr-53-chinese-zh-cn"
freeze_feature_extractor: true
freeze_encoder_layers: 8
pooling_method: "mean+std"
csv_path: "data/data_fixed.csv"
sample_rate: 16000
checkpoint_monitor: "val_acc"
checkpoint_mode: "max"
checkpoint_save_top_k: 1
checkpoint_dir: "checkpoints"
log_dir: "lightning_logs"
resume_from_checkpoint: false   # true / false
start_meeting: ""
accelerator: "gpu"
devices: 1
"""

# The configuration of a toy store; each test sets layers, pooling and dim.
TOY_STORE = {
    "schema": 1,
    "kind": "pooled",
    "encoder": "toy",
    "revision": "0" * 40,
    "weights_sha256": "a" * 64,
    "encoder_config_sha256": "b" * 64,
    "untrained": False,
    "layer_definition": "state k leaves layer k",
    "pooling": "mean",
    "dtype": "float32",
    "compute_dtype": "float32",
    "rate": 16000,
    "channel": "0",
    "normalization": "none",
    "max_seconds": 30.0,
}


def silent(line: str) -> None:
    """Take a line of a log, and show it to nobody."""


def without_next_steps(errors: str) -> str:
    """Return what a command prints to stderr, without its suggestions of what to do next."""
    lines = errors.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(("next: ", "or:   ")))


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
        Folder to write to, and the file's name there; its stem is the session.
    spans
        Start and end of each segment, s.
    speakers
        Their names; they take turns.
    silent
        Seconds of zeros at the beginning.
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
