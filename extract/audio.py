"""One segment out of a recording: mono float32 samples at the encoder's rate, or a coded rejection.

Only the segment's own samples are decoded. What the user must repair for the whole run (a sample
rate, a channel that is not there) is an `InputError`; what is wrong with one segment is a
`Rejected` with one of `CODES`, so that the rest of the table goes on.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import InputError
from ..common.files import is_special
from ..manifests.table import sample_span

CODES = {
    "unreadable": "the file is missing or cannot be decoded",
    "past-end": "the recording ends before the segment does",
    "too-short": "fewer samples than the encoder's receptive field",
    "not-finite": "samples are NaN or infinite",
    "out-of-range": "samples beyond the full scale of 32 bits, which no recording reaches",
    "silent": "all samples are equal (digital silence)",
}


LARGEST = 2.0**31  # some programs write integers as floats; far beyond, float32 sums overflow


class Rejected(Exception):  # noqa: N818 (a finding about one segment, not a failure of the program)
    """One segment that has no features: `code` is one of `CODES`, `message` says what is found."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Segment:
    """What a decoder needs to know: `path` to the recording, `start` and `end` in seconds."""

    segment_id: str
    path: str
    start: float
    end: float

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True)
class Reading:
    """How segments are read: rate (Hz), channel policy, and the fewest samples accepted.

    With `integers`, samples of a 16-bit file stay int16: half the bytes to hand on. Divided by
    32768 they are the same float32 numbers, to the last bit.
    """

    rate: int = 16000
    channel: str = "0"
    resample: bool = False
    shortest: int = 400
    integers: bool = False


@dataclass(frozen=True, eq=False)
class Audio:
    """A segment's samples (mono, float32 or int16) and the identity of what was decoded."""

    samples: np.ndarray
    size: int  # bytes of `samples` as float32
    crc32: int  # of the bytes of `samples` as float32


def check_channel(channel: str) -> str:
    """Return `channel` if it is ``mean`` or an index from 0, or raise `InputError`."""
    if channel != "mean" and not (channel.isascii() and channel.isdigit()):
        raise InputError(
            f"--channel: value is {channel!r}, expected an index from 0 or 'mean'; give one of them"
        )
    return channel if channel == "mean" else str(int(channel))


def read_segment(segment: Segment, reading: Reading) -> Audio:
    """Return a segment's samples at `reading.rate`.

    Raises
    ------
    Rejected
        This segment can't be used; the code is one of `CODES`.
    InputError
        The recording's rate or channels are not what the run was told.
    """
    decoded, rate = _decode(segment, reading)
    samples = as_float(decoded)
    if decoded.dtype != np.int16 and not np.isfinite(samples).all():
        raise Rejected("not-finite", f"{int((~np.isfinite(samples)).sum())} samples are not finite")
    if (largest := float(np.abs(samples).max(initial=0))) > LARGEST:
        raise Rejected("out-of-range", f"samples reach {largest:g}, expected at most {LARGEST:g}")
    if rate != reading.rate:
        samples = _resampled(samples, rate, reading.rate)
    if len(samples) < reading.shortest:
        raise Rejected(
            "too-short", f"segment has {len(samples)} samples, expected at least {reading.shortest}"
        )
    if samples.min() == samples.max():
        raise Rejected("silent", f"all {len(samples)} samples are {samples[0]:g}")
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    kept = samples if decoded.dtype != np.int16 else np.ascontiguousarray(decoded)
    return Audio(kept, samples.nbytes, zlib.crc32(samples.data))


def as_float(samples: np.ndarray) -> np.ndarray:
    """Return samples as float32; int16 is divided by 32768, as libsndfile does."""
    if samples.dtype != np.int16:
        return samples
    return np.multiply(samples, np.float32(1 / 32768), dtype=np.float32)


def check_recording(path: str, reading: Reading) -> None:
    """Raise `InputError` where a recording's rate or channels are not what the run was told.

    Only the header is read. What cannot be opened passes: its segments are rejected one by one.
    """
    import soundfile

    if is_special(path):
        return
    try:
        found = soundfile.info(path)
    except (OSError, RuntimeError, TypeError):
        return
    _check_rate(found.samplerate, path, reading)
    _check_channels(found.channels, path, reading)


def _decode(segment: Segment, reading: Reading) -> tuple[np.ndarray, int]:
    import soundfile

    if is_special(segment.path):
        raise Rejected("unreadable", f"{segment.path}: is a folder, pipe or device, no file")
    try:
        file = soundfile.SoundFile(segment.path)
    except (OSError, RuntimeError, TypeError) as problem:  # LibsndfileError is a RuntimeError,
        # and TypeError what soundfile says of a suffix that means headerless (.raw)
        raise Rejected("unreadable", f"{segment.path}: {problem}") from None
    with file:
        _check_rate(file.samplerate, segment.path, reading)
        _check_channels(file.channels, segment.path, reading)
        first, stop = sample_span(segment.start, segment.end, file.samplerate)
        if stop > file.frames:
            raise Rejected("past-end", _ends_early(segment, file.frames, file.samplerate))
        try:
            file.seek(first)
            block = file.read(stop - first, dtype=_kind(file, reading), always_2d=True)
        except (OSError, RuntimeError) as problem:
            raise Rejected("unreadable", f"{segment.path}: {problem}") from None
        if len(block) != stop - first:
            raise Rejected("past-end", _ends_early(segment, first + len(block), file.samplerate))
        return _mono(block, reading.channel), file.samplerate


def _kind(file: Any, reading: Reading) -> str:
    """Return the number format to decode to; what is averaged or resampled is no integer."""
    whole = file.subtype == "PCM_16" and reading.channel != "mean"
    return "int16" if reading.integers and whole and file.samplerate == reading.rate else "float32"


def _ends_early(segment: Segment, samples: int, rate: int) -> str:
    return f"{segment.path}: ends at {samples / rate:.4f} s, the segment at {segment.end:.4f} s"


def _check_rate(rate: int, path: str, reading: Reading) -> None:
    if rate != reading.rate and not reading.resample:
        raise InputError(
            f"{Path(path).name}: sample rate is {rate} Hz, expected {reading.rate} Hz; "
            "pass --resample"
        )


def _check_channels(count: int, path: str, reading: Reading) -> None:
    if reading.channel != "mean" and int(reading.channel) >= count:
        raise InputError(
            f"{Path(path).name}: channels are {count}, expected more than {reading.channel}; "
            "pass --channel 0 or mean"
        )


def _mono(block: np.ndarray, channel: str) -> np.ndarray:
    """Return one channel of a block (samples, channels), or the channels' equal average."""
    if channel == "mean":
        with np.errstate(over="ignore"):  # an infinite average is rejected as such
            return block.mean(axis=1, dtype=np.float32)
    return block[:, int(channel)]


def _resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Resample by a polyphase low-pass filter (scipy's default, Kaiser 5.0)."""
    from scipy.signal import resample_poly

    shared = math.gcd(rate, wanted)
    return resample_poly(samples, wanted // shared, rate // shared)
