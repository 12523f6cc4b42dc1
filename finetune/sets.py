"""A task's segments by split, read once: the usable ones, and why the others are not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..common.errors import InputError
from ..extract.audio import Reading, Rejected, check_recordings, segments_of
from ..extract.weights import Parts
from ..manifests.tasks import Task
from .config import Config
from .data import Waveforms, read_all
from .trunk import Trunk

if TYPE_CHECKING:
    import pandas as pd


def reading_of(parts: Parts | Trunk, config: Config) -> Reading:
    """Return how segments are read; refuse a `sample_rate` that is not the encoder's."""
    if config.sample_rate not in (None, parts.rate):
        raise InputError(
            f"--sample-rate: value is {config.sample_rate} Hz, expected {parts.rate} Hz, the "
            "encoder's; leave it out (recordings of another rate: --resample)"
        )
    return Reading(parts.rate, config.channel, config.resample, parts.front.shortest)


def data_sets(
    task: Task, table: pd.DataFrame, reading: Reading, config: Config
) -> tuple[dict[str, Waveforms], dict[str, str]]:
    """Return each split's usable segments, and why others are not."""
    segments = segments_of(table, config.audio_root)
    chosen = [segments[i] for part in task.rows.values() for i in part]
    paths = sorted({segment.path for segment in chosen})
    _refuse_absent(paths, config)
    check_recordings(chosen, reading)
    held, rejected = read_all(chosen, reading)
    sets = {}
    for split, rows in task.rows.items():
        good = np.array([segments[i].segment_id not in rejected for i in rows], dtype=bool)
        kept = [segments[i] for i in rows[good]]
        sets[split] = Waveforms(kept, task.codes[split][good], reading, held, config)
    return sets, {name: _why(found) for name, found in rejected.items()}


def _refuse_absent(paths: list[str], config: Config) -> None:
    absent = [path for path in paths if not Path(path).is_file()]
    if absent:
        raise InputError(
            f"{config.audio_root}: {len(absent)} of {len(paths)} recordings are missing, first "
            f"{absent[0]!r}, expected them there; name their folder with --audio-root"
        )


def _why(found: Rejected) -> str:
    return f"{found.code}: {found.message}"


def lacking(task: Task, sets: dict[str, Waveforms]) -> str:
    """Return why a task cannot be trained once the rejected segments are gone."""
    for split, found in sets.items():
        if not len(found):
            return f"no {split} segments: all {len(task.rows[split])} were rejected"
    if (sets["valid"].codes < 0).all():
        return "no validation segment of a speaker in train"
    left = len(set(sets["train"].codes.tolist()))
    return "" if left >= 2 else f"{left} speaker in train, the others' segments were rejected"
