"""The settings of ``spk-finetune predict`` and ``embed``; those of ``fit`` are `FinetuneConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from ..common.options import (
    AUDIO_ROOT,
    CheckedOptions,
    joined,
    option_field,
    parse_channel,
)
from ..extract.options import POOLINGS

SPLITS = ("train", "valid", "test", "all")
_encoder = partial(
    option_field,
    None,
    "Folder or hub id of the encoder, if it has moved.",
    default_text="as in training",
)
_audio_root = partial(option_field, ".", AUDIO_ROOT, path=True)
_resample = partial(
    option_field, None, "Accept recordings of another sample rate.", default_text="as in training"
)


def _channel() -> Any:
    return option_field(
        None,
        "Index from 0, or mean (equal average).",
        parse=parse_channel,
        expected="an index from 0 or 'mean'",
        native=joined,
        metavar="CHANNEL",
        default_text="as in training",
    )


@dataclass(frozen=True)
class PredictOptions(CheckedOptions):
    """Which segments to name, and how."""

    split: str = option_field(
        "test", "Rows of TABLE that are named; all for a table without a split.", choices=SPLITS
    )
    unknown_below: float | None = option_field(
        None,
        "Name a segment 'unknown' whose most probable speaker is less probable.",
        least=0,
        most=1,
        metavar="PROBABILITY",
    )
    audio_root: str = _audio_root()
    encoder: str | None = _encoder()
    channel: str | None = _channel()
    resample: bool | None = _resample()
    device: str = option_field(
        "auto",
        "auto, cpu, cuda or cuda:i.",
        metavar="DEVICE",
        aliases=("accelerator",),
    )
    batch_seconds: float = option_field(
        40.0, "Audio in a batch, including padding.", unit="s", over=0
    )


@dataclass(frozen=True)
class EmbedOptions(CheckedOptions):
    """Which features to write, and how to compute them."""

    audio_root: str = _audio_root()
    encoder: str | None = _encoder()
    layers: str = option_field("all", "all, 0-12, or 4,8.", native=joined, metavar="LAYERS")
    pooling: str = option_field("mean+std", "Statistics over a segment's frames.", choices=POOLINGS)
    channel: str | None = _channel()
    resample: bool | None = _resample()
    device: str = option_field("auto", "auto, cpu, cuda or cuda:i.", metavar="DEVICE")
    dtype: str = option_field(
        "auto",
        "Number format to compute in.",
        choices=("auto", "float32", "bfloat16", "float16"),
        aliases=("precision",),
    )
