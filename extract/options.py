"""What an extraction is told, and what it tells."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from ..common.audio.decoding import check_channel
from ..common.errors import InputError
from .store.layout import rejected_path

DEFAULT_ENCODER = "jonatasgrosman/wav2vec2-large-xlsr-53-chinese-zh-cn"
STORE_DTYPES = ("float16", "float32")
UNPOOLED = "none"  # the pooling of frames, stored as they are


@dataclass(frozen=True)
class ExtractOptions:
    """Settings of a run; each is an option of ``spk-extract`` with this name and default."""

    audio_root: str = "."  # folder that relative paths of the table start from
    encoder: str = DEFAULT_ENCODER
    revision: str | None = None
    normalize: str | None = None  # yes or no; None: as the encoder's files say
    layers: str = "all"  # or 0-12, or 4,8
    pooling: str = "mean+std"
    frames: bool = False  # store every frame instead of pooled features
    channel: str = "0"  # index from 0, or mean
    resample: bool = False
    device: str = "auto"
    dtype: str = "auto"  # the encoder computes in
    store_dtype: str = "float16"
    batch_seconds: float | None = None  # s of audio, padding counted; None: as suits the device
    buckets: bool = False  # only segments of an equal number of frames in a batch
    workers: int | None = None  # None: the cores at hand, up to 16
    max_seconds: float = 40.0  # s; longer segments are encoded in windows
    shard: str = "1/1"
    verify: int = 0  # number of segments
    profile: str | None = None  # file that tells where the time went
    strict: bool = False
    retry_rejected: bool = False

    @property
    def stored_pooling(self) -> str:
        """The pooling of what the store holds; `UNPOOLED` of frames."""
        return UNPOOLED if self.frames else self.pooling

    def __post_init__(self) -> None:
        check_channel(self.channel)
        if self.store_dtype not in STORE_DTYPES:
            raise InputError(
                f"--store-dtype: value is {self.store_dtype!r}, expected one of "
                f"{list(STORE_DTYPES)}; correct it"
            )
        if self.normalize not in (None, "yes", "no"):
            raise InputError(
                f"--normalize: value is {self.normalize!r}, expected yes or no; correct it"
            )
        for name, least in (("batch_seconds", 0.0), ("max_seconds", 0.1)):
            value = getattr(self, name)
            if value is not None and not least < value < math.inf:
                raise InputError(
                    f"--{name.replace('_', '-')}: value is {value} s, expected more "
                    f"than {least} s, and finite; correct it"
                )
        if self.frames and self.pooling != "mean+std":
            raise InputError(
                f"--pooling: value is {self.pooling!r} beside --frames, expected none there, since "
                "frames are stored unpooled; leave out one of the two"
            )
        for name in ("workers", "verify"):
            if (getattr(self, name) or 0) < 0:
                raise InputError(
                    f"--{name}: value is {getattr(self, name)}, expected 0 or more; correct it"
                )


@dataclass(frozen=True)
class ExtractSummary:
    """What a run did."""

    store: str
    asked: int  # segments of the table (of this shard)
    segments: int  # of these, with features in the store
    new: int  # of these, made in this run
    seconds: float  # of audio encoded in this run
    wall: float  # s the encoding took
    rejected: dict[str, int] = field(default_factory=dict)  # code -> segments asked for
    interrupted: bool = False
    difference: float | None = None  # largest relative one that --verify found
    compute_dtype: str = "float32"
    untrained: bool = False

    def __str__(self) -> str:
        """Return one line."""
        parts = [
            f"{self.store}: {self.segments:,} of {self.asked:,} segments have features, "
            f"{self.new:,} of them new"
        ]
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
        if self.untrained:
            parts.append("the encoder is untrained")
        return "; ".join(parts)

    @property
    def listing(self) -> str:
        """Name of the file that lists the rejected segments."""
        return rejected_path(self.store)


def parse_layers(text: str, count: int) -> list[int]:
    """Return the states that `text` names, ascending: ``all``, ``0-12``, ``4,8`` or ``0,4-6``.

    Raises
    ------
    InputError
        Not of that form, named twice, or beyond `count`, the encoder's last.
    """
    if text == "all":
        return list(range(count + 1))
    layers = sorted(parse_layer_list(text, count))
    if layers[-1] > count:
        raise _not_each_once(text, count)
    return layers


def parse_layer_list(text: str, last: int) -> list[int]:
    """Return the numbers that `text` names, in its order: ``0-12``, ``4,8`` or ``0,4-6``.

    One may be beyond `last`, the last layer that there is; of a range no more than one is.

    Raises
    ------
    InputError
        Not of that form, none, or one named twice.
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
