"""The settings of an extraction, each an option of ``spk-extract``, and its summary."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..common.counts import agree, counted
from ..common.engine.options import beside_engine, check_engine, engine_field, ray_address_field
from ..common.errors import InputError
from ..common.options import (
    AUDIO_ROOT,
    CheckedOptions,
    joined,
    option_field,
    parse_channel,
    yes_or_no,
)

DEFAULT_ENCODER = "jonatasgrosman/wav2vec2-large-xlsr-53-chinese-zh-cn"
UNPOOLED = "none"  # the pooling of frames, stored as they are
POOLINGS = ("mean+std", "mean", "std", "max")
AUDIO, ENCODER, FEATURES = "Audio", "Encoder", "Features"
COMPUTING, RUNNING = "Computing", "How it runs"


@dataclass(frozen=True)
class ExtractOptions(CheckedOptions):
    """Settings of a run; each is an option of ``spk-extract`` with this name and default.

    Examples
    --------
    >>> ExtractOptions(layers=[4, 8], channel=0, normalize=True).layers
    '4,8'
    """

    audio_root: str = option_field(".", AUDIO_ROOT, path=True, group=AUDIO)
    channel: str = option_field(
        "0",
        "Index from 0, or mean (equal average).",
        parse=parse_channel,
        native=joined,
        expected="an index from 0 or 'mean'",
        metavar="CHANNEL",
        group=AUDIO,
    )
    resample: bool = option_field(False, "Accept recordings of another sample rate.", group=AUDIO)
    encoder: str = option_field(
        DEFAULT_ENCODER,
        "Hub id, local folder, small (ships with spk, trained on 4.5 h of speech), untrained "
        "(tiny, random weights), or mfcc (20 cepstral coefficients: a baseline without weights).",
        group=ENCODER,
    )
    revision: str | None = option_field(None, "Branch, tag or commit of a hub id.", group=ENCODER)
    normalize: str | None = option_field(
        None,
        "Whether to scale each waveform to zero mean and unit variance, if the encoder's files do "
        "not say or are wrong.",
        choices=("yes", "no"),
        native=yes_or_no,
        default_text="from the encoder's files",
        group=ENCODER,
    )
    layers: str = option_field(
        "all", "all, 0-12, or 4,8.", native=joined, metavar="LAYERS", group=FEATURES
    )
    pooling: str = option_field(
        "mean+std", "Statistics over a segment's frames.", choices=POOLINGS, group=FEATURES
    )
    frames: bool = option_field(
        False, "Store every frame instead of pooled features.", group=FEATURES
    )
    max_seconds: float = option_field(
        40.0,
        "Encode longer segments in windows of this length, and pool over all of them.",
        unit="s",
        over=0.1,
        group=FEATURES,
    )
    store_dtype: str = option_field(
        "float16", "Number format to store.", choices=("float16", "float32"), group=FEATURES
    )
    device: str = option_field(
        "auto",
        "auto, cpu, cuda or cuda:i; cuda:all, or a list such as cuda:0,cuda:1: one process per "
        "device, one store.",
        native=joined,
        metavar="DEVICE",
        group=COMPUTING,
    )
    dtype: str = option_field(
        "auto",
        "Number format to compute in; auto: bfloat16 on a GPU that has it, float32 on a CPU.",
        choices=("auto", "float32", "bfloat16", "float16"),
        aliases=("precision",),
        group=COMPUTING,
    )
    batch_seconds: float | None = option_field(
        None,
        "Audio in a batch, including padding.",
        unit="s",
        over=0,
        default_text="20 on a CPU; on a GPU by free memory, at most 480",
        group=COMPUTING,
    )
    workers: int | None = option_field(
        None,
        "Threads per device that decode audio ahead; 0: none.",
        least=0,
        default_text="available cores divided by devices, at most 16",
        aliases=("num_workers",),
        group=COMPUTING,
    )
    engine: str = engine_field("one store", group=RUNNING)
    ray_address: str | None = ray_address_field(group=RUNNING)
    unit_minutes: float = option_field(
        60.0,
        "With --engine ray: most audio that a process encodes before a commit.",
        unit="min",
        over=0,
        group=RUNNING,
    )
    shard: str = option_field(
        "1/1",
        "Part i of n, i from 1 to n; write each to its own store, then run spk-store merge.",
        metavar="I/N",
        group=RUNNING,
    )
    verify: int = option_field(
        0,
        "First encode this many random segments alone in float32 and in batches, and report the "
        "difference; with another --dtype also layer by layer.",
        least=0,
        group=RUNNING,
    )
    profile: str | None = option_field(
        None,
        "Write a profile of the run to this file, as text, and FILE.trace.json for Chrome.",
        path=True,
        group=RUNNING,
    )
    strict: bool = option_field(False, "Stop at the first segment that is rejected.", group=RUNNING)
    retry_rejected: bool = option_field(False, "Try rejected segments again.", group=RUNNING)

    @property
    def stored_pooling(self) -> str:
        """The pooling of the stored features; `UNPOOLED` for frames."""
        return UNPOOLED if self.frames else self.pooling

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames and self.pooling != "mean+std":
            raise InputError(
                f"--pooling: value is {self.pooling!r} beside --frames, expected none there, since "
                "frames are stored unpooled; leave out one of the two"
            )
        check_engine(self.engine, self.ray_address)
        if self.profile is not None and self.engine != "local":
            why = "from whose machines no times come back"
            repair = "leave out one of the two"
            raise InputError(
                beside_engine("--profile", self.profile, self.engine, why=why, repair=repair)
            )


@dataclass(frozen=True)
class ExtractSummary:
    """Summary of a run."""

    store: str
    requested: int  # segments of the table (of this shard)
    segments: int  # of these, with features in the store
    new: int  # of these, encoded in this run
    seconds: float  # of audio encoded in this run
    wall: float  # s spent encoding
    rejected: dict[str, int] = field(default_factory=dict)  # code -> requested segments
    interrupted: bool = False
    difference: float | None = None  # largest relative difference of --verify
    compute_dtype: str = "float32"
    untrained: bool = False
    shared: int = 0  # of `segments`, written in this run with features of equal samples
    trained_on: str = ""  # how much speech the encoder was trained on, if that is little
    failed: tuple[str, ...] = ()  # units that were given up
    again: int = 0  # lost tries of units, which were repeated

    def __str__(self) -> str:
        """Return one line."""
        parts = [
            f"{self.store}: {counted(self.segments, 'segment', 'has', of=self.requested)} "
            f"features, {self.new:,} of them new"
        ]
        if self.shared:
            parts.append(f"{self.shared:,} take those of the same samples under another segment_id")
        if self.new:
            parts.append(f"{self.seconds / self.wall:.1f} times real time")
        if self.difference is not None:
            parts.append(
                f"largest relative difference of {self.compute_dtype} in a batch from float32 "
                f"alone {self.difference:.1e}"
            )
        if self.rejected:
            reasons = ", ".join(f"{code} {count}" for code, count in sorted(self.rejected.items()))
            parts.append(f"{sum(self.rejected.values())} rejected ({reasons}), see {self.listing}")
        if self.again:
            tries, were = agree(self.again, "try", "tries"), agree(self.again, "was", "were")
            parts.append(f"{self.again} {tries} of units {were} lost and made again")
        if self.failed:
            parts.append(
                f"{counted(len(self.failed), 'unit')} failed; run the same command to try again"
            )
        if self.untrained:
            parts.append("the encoder is untrained")
        if self.trained_on:
            parts.append(f"a small encoder, trained on {self.trained_on}")
        return "; ".join(parts)

    @property
    def listing(self) -> str:
        """Name of the file that lists the rejected segments."""
        from .store.layout import rejected_path

        return rejected_path(self.store)


def parse_layers(text: str, count: int) -> list[int]:
    """Return the layers that `text` names, ascending: ``all``, ``0-12``, ``4,8`` or ``0,4-6``.

    Raises
    ------
    InputError
        `text` is not of that form, names a layer twice, or one beyond `count`, the encoder's last.
    """
    if text == "all":
        return list(range(count + 1))
    layers = sorted(parse_layer_list(text, count))
    if layers[-1] > count:
        raise _not_each_once(text, count)
    return layers


def parse_layer_list(text: str, last: int) -> list[int]:
    """Return the numbers that `text` names, in its order: ``0-12``, ``4,8`` or ``0,4-6``.

    Numbers beyond `last`, the last layer, are returned for the caller to check; a range is cut off
    one beyond it.

    Raises
    ------
    InputError
        `text` is not of that form, is empty, or names a number twice.
    """
    layers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip(), re.ASCII)
        if not match:
            raise InputError(
                f"--layers: value is {text!r}, expected all, 0-12 or 4,8; correct {part!r}"
            )
        first, stop = int(match[1]), int(match[2] or match[1]) + 1
        layers += range(first, min(stop, max(first, last + 1) + 1))
    if not layers or len({*layers}) < len(layers):
        raise _not_each_once(text, last)
    return layers


def _not_each_once(text: str, last: int) -> InputError:
    return InputError(
        f"--layers: value is {text!r}, expected each layer once, from 0 to {last}; correct it"
    )
