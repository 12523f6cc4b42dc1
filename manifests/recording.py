"""One recording, decoded once, block by block: its channel taken, its segments written as files.

Samples leave as 16 bits, mono, 16 kHz. Nothing is scaled: one channel of a 16-bit recording comes
out as it went in; an average or a resampled signal is rounded to the nearest step.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..common.errors import InputError
from ..common.files import is_special, writing

RATE = 16000  # Hz of every file written
BLOCK_SECONDS = 20  # decoded at a time: 5 MB of an 8-channel recording
FULL_SCALE = 32768
PROBE = 65536  # bytes read at the begin, middle and end of a recording to know it again


class Span(NamedTuple):
    """A segment as samples of its recording, and the file it goes to."""

    name: str
    first: int
    stop: int


class Recording(NamedTuple):
    """What an audio file's header tells, and which channel of it is wanted."""

    path: Path
    rate: int  # Hz
    frames: int
    size: int  # bytes
    mark: int  # CRC-32 of parts of its bytes
    integer: bool  # decodes to 16 bits without loss
    channel: str  # 0-based index, or "mean"

    def samples(self, span: Span) -> int:
        """Return how many samples the file of `span` has."""
        return -(-(span.stop - span.first) * RATE // self.rate)


def inspect(path: Path, *, channel: str, resample: bool) -> Recording:
    """Read a recording's header.

    Raises
    ------
    InputError
        It is missing or no audio, has no such channel, or another rate and no `resample`.
    """
    import soundfile

    if is_special(path):
        raise InputError(
            f"{path}: cannot be read (a folder, pipe or device), expected an audio file; correct "
            "the audio folder"
        )
    try:
        size = path.stat().st_size  # first: of a missing file libsndfile says "System error."
        info = soundfile.info(path)
        mark = _mark(path, size)
    except (OSError, TypeError, soundfile.LibsndfileError) as problem:  # TypeError: no header
        raise InputError(
            f"{path}: cannot be read ({problem}), expected an audio file; correct the audio folder"
        ) from None
    if info.samplerate != RATE and not resample:
        raise InputError(
            f"{path}: sample rate is {info.samplerate} Hz, expected {RATE} Hz; pass --resample"
        )
    if channel != "mean" and int(channel) >= info.channels:
        raise InputError(
            f"{path}: channel is {channel}, expected 0 to {info.channels - 1}; "
            "pass another --channel"
        )
    integer = info.subtype in ("PCM_16", "PCM_S8", "PCM_U8")
    return Recording(path, info.samplerate, info.frames, size, mark, integer, channel)


def _mark(path: Path, size: int) -> int:
    """Return a CRC-32 that tells recordings of one size apart without reading them whole."""
    mark = 0
    with open(path, "rb") as file:
        for place in (0, size // 2, max(0, size - PROBE)):
            file.seek(place)
            mark = zlib.crc32(file.read(PROBE), mark)
    return mark


def cut_recording(recording: Recording, spans: list[Span], out: Path) -> float:
    """Write the file of every span to `out`; return the seconds of audio decoded for it.

    Decodes from the first span's start to the last one's end, once; holds one block and, mono,
    what the spans that are not complete yet share.

    Raises
    ------
    InputError
        The recording is damaged, or shorter than its header says.
    """
    spans = sorted(spans, key=lambda span: span.first)
    origin = reached = begin = spans[0].first
    held = np.empty(0, np.int16 if recording.integer else np.float32)
    for block in _blocks(recording, begin):
        held = np.concatenate([held, block])
        reached += len(block)
        for span in spans:
            if span.stop <= reached:
                taken = held[span.first - origin : span.stop - origin]
                _refuse_broken(recording, span, taken)
                samples = _finished(taken, recording.rate)
                write_audio(out / span.name, samples)
        spans = [span for span in spans if span.stop > reached]
        if not spans:
            return (reached - begin) / recording.rate
        keep = min(reached, spans[0].first)
        held, origin = held[keep - origin :], keep
    raise InputError(
        f"{recording.path}: decodes to {reached} samples, expected {recording.frames} as its "
        "header says; replace the damaged file"
    )


def _blocks(recording: Recording, begin: int) -> Iterator[np.ndarray]:
    """Yield mono blocks, int16 or float32 in -1..1, from sample `begin` to the end."""
    import soundfile

    dtype = "int16" if recording.integer else "float32"
    try:
        with soundfile.SoundFile(recording.path) as file:
            if begin:
                file.seek(begin)
            while len(block := file.read(BLOCK_SECONDS * file.samplerate, dtype, always_2d=True)):
                yield _mono(block, recording.channel)
    except (OSError, soundfile.LibsndfileError) as problem:
        raise InputError(
            f"{recording.path}: cannot be decoded ({problem}), expected {recording.frames} "
            "samples; replace the damaged file"
        ) from None


def _mono(block: np.ndarray, channel: str) -> np.ndarray:
    """Return one channel, or the equal average, of a block (frames, channels)."""
    if channel != "mean":
        return block[:, int(channel)]
    if block.shape[1] == 1:
        return block[:, 0]
    mean = block.mean(axis=1, dtype=np.float64)
    return np.rint(mean).astype(np.int16) if block.dtype == np.int16 else mean.astype(np.float32)


def _refuse_broken(recording: Recording, span: Span, samples: np.ndarray) -> None:
    """Raise `InputError` where a float recording holds NaN or infinity: no 16 bits mean that."""
    wrong = int((~np.isfinite(samples)).sum())
    if wrong:
        raise InputError(
            f"{recording.path}: {wrong} samples of {span.name!r} are NaN or infinite, expected "
            "numbers; take the segment out of the table, or replace the recording"
        )


def _finished(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return a segment as it is written: int16 at 16 kHz, clipped where it would overflow."""
    if rate != RATE:
        from scipy.signal import resample_poly

        if samples.dtype == np.int16:
            samples = samples.astype(np.float32) / FULL_SCALE
        common = int(np.gcd(rate, RATE))
        samples = resample_poly(samples, RATE // common, rate // common)
    if samples.dtype == np.int16:
        return samples
    scaled = np.rint(samples.astype(np.float64) * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def write_audio(path: Path, samples: np.ndarray) -> None:
    """Write int16 samples, (frames,) or (frames, channels), as 16 kHz audio by `path`'s suffix.

    The file is made under a hidden name ending in ``.part`` and renamed when it is on disk.
    Encoded in memory first: a disk that is full must raise here, not inside libsndfile.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    import soundfile

    image = io.BytesIO()
    soundfile.write(image, samples, RATE, subtype="PCM_16", format=path.suffix[1:].upper())
    part = path.with_name(f".{path.name}.part")
    with image.getbuffer() as view, writing(path, view.nbytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(view)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


def is_whole(path: Path, samples: int) -> bool:
    """Return whether `path` is mono 16 kHz audio whose last of `samples` samples decodes."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            if (file.samplerate, file.channels, file.frames) != (RATE, 1, samples):
                return False
            file.seek(samples - 1)
            return len(file.read(2, "int16")) == 1
    except (OSError, soundfile.LibsndfileError):
        return False
