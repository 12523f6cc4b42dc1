"""Choose and order the segments of a run, and estimate its cost, without loading any weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.counts import counted
from ..common.errors import InputError
from .audio import Segment, check_recordings_exist, count_channels, segments_of
from .encoder.checkpoint import Checkpoint, find_checkpoint
from .encoder.mfcc import COEFFICIENTS, HOP, MFCC, RATE
from .encoder.untrained import UNTRAINED_NAMES, UNTRAINED_SHAPE
from .options import ExtractOptions, parse_layers
from .pipeline.batching import sort_segments, take_part

if TYPE_CHECKING:
    import pandas as pd


FRAMES_PER_SECOND = 50  # of the untrained encoder: one frame per 320 samples at 16 kHz


@dataclass(frozen=True)
class Plan:
    """What a run would do: `size` is the estimated bytes of the store, absent if `note` says why.

    `channels` is the largest number of channels of a recording; `absent` says which recordings are
    missing.
    """

    segments: int
    seconds: float
    size: int | None
    note: str
    channels: int = 1
    absent: str = ""

    def __str__(self) -> str:
        """Return one line, or more if cutting first would save time or recordings are missing."""
        size = "unknown" if self.size is None else f"about {self.size / 1e6:,.1f} MB"
        line = f"{counted(self.segments, 'segment')}, {self.seconds / 3600:.2f} h, cache {size}"
        advice = (
            f"\nrecordings have up to {counted(self.channels, 'channel')}, and all are decoded to "
            "read one; where you extract more than once, or on a GPU, cut first: spk-manifests cut"
        )
        absent = f"\n{self.absent}" if self.absent else ""
        return f"{line} ({self.note})" + (advice if self.channels > 1 else "") + absent


def plan(table: pd.DataFrame, options: ExtractOptions) -> Plan:
    """Return what `extract` would do; nothing is decoded and no weight is loaded."""
    segments = choose_segments(table, options)
    seconds = sum(segment.duration for segment in segments)
    recordings: dict[str, Any] = {
        "channels": count_channels(segments),
        "absent": _absent(segments, options),
    }
    try:
        count, hidden = _shape(options)
    except InputError as problem:
        return Plan(len(segments), seconds, None, str(problem), **recordings)
    layers, dim = len(parse_layers(options.layers, count)), row_width(options, hidden)
    rows = seconds * _frame_rate(options) if options.frames else len(segments)
    size = int(rows * layers * dim * np.dtype(options.store_dtype).itemsize)
    note = f"{counted(layers, 'layer')} x {dim}, {options.store_dtype}"
    return Plan(len(segments), seconds, size, note, **recordings)


def _absent(segments: list[Segment], options: ExtractOptions) -> str:
    """Return the error of a run that would stop because recordings are missing, or ""."""
    try:
        check_recordings_exist(segments, options.audio_root, all_needed=False)
    except InputError as problem:
        return str(problem)
    return ""


def choose_segments(table: pd.DataFrame, options: ExtractOptions) -> list[Segment]:
    """Return this shard's segments, sorted."""
    segments = segments_of(table, options.audio_root)
    return take_part(sort_segments(segments), options.shard)


def _shape(options: ExtractOptions) -> tuple[int, int]:
    """Return the encoder's number of layers and width of a state, from its configuration alone."""
    if options.encoder in UNTRAINED_NAMES:
        return UNTRAINED_SHAPE["num_hidden_layers"], UNTRAINED_SHAPE["hidden_size"]
    if options.encoder == MFCC:
        return 0, COEFFICIENTS
    checkpoint = _find(options)
    return checkpoint.layer_count, checkpoint.hidden_size


def _frame_rate(options: ExtractOptions) -> float:
    """Return the number of frames per second of audio."""
    if options.encoder == MFCC:
        return RATE / HOP
    return FRAMES_PER_SECOND if options.encoder in UNTRAINED_NAMES else _find(options).frame_rate


def _find(options: ExtractOptions) -> Checkpoint:
    """Find the encoder's configuration, without its weights."""
    return find_checkpoint(
        options.encoder, revision=options.revision, normalize=options.normalize, weights=False
    )


def row_width(options: ExtractOptions, hidden: int) -> int:
    """Return how many numbers a row has at one layer, for states of width `hidden`."""
    return hidden * (2 if options.pooling == "mean+std" and not options.frames else 1)
