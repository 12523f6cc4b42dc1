"""Decode a recording once, block by block, and write its segments as files.

Output is 16-bit mono at 16 kHz. Nothing is scaled: one channel of a 16-bit recording is copied
exactly; an averaged or resampled signal is rounded to the nearest step.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...common.audio.decoding import (
    FULL_SCALE,
    Header,
    check_rate,
    decode,
    mono,
    read_header,
    resample,
)
from ...common.counts import agree, counted
from ...common.errors import InputError, explain_write_errors
from ...common.files import rename_when_complete
from ...common.outputs import has_to_be_written

RATE = 16000  # Hz of every file written
PROBE = 65536  # bytes read at the start, middle and end of a recording to recognise it again


class SampleRange(NamedTuple):
    """A segment's sample range and channel in its recording, and the name of its file."""

    name: str
    first: int
    stop: int
    channel: str  # 0-based index, or "mean"


class Recording(NamedTuple):
    """A recording's header, and a checksum that tells it from others of the same size."""

    header: Header
    mark: int  # CRC-32 of parts of its bytes

    def samples(self, span: SampleRange) -> int:
        """Return the number of samples in the file of `span`."""
        return -(-(span.stop - span.first) * RATE // self.header.rate)


def inspect_recording(path: Path, *, resample: bool) -> Recording:
    """Read a recording's header and checksum.

    Raises
    ------
    InputError
        The file is missing or not audio, or has another rate and `resample` is false.
    """
    header = read_header(path)
    check_rate(header, RATE, resample=resample)
    try:
        return Recording(header, _mark(path, header.size))
    except OSError as problem:
        raise InputError(
            f"{path}: cannot be read ({problem.strerror}), expected an audio file; correct the "
            "audio folder"
        ) from None


def _mark(path: Path, size: int) -> int:
    """Return a CRC-32 that tells recordings of the same size apart without reading all of them."""
    mark = 0
    with open(path, "rb") as file:
        for place in (0, size // 2, max(0, size - PROBE)):
            file.seek(place)
            mark = zlib.crc32(file.read(PROBE), mark)
    return mark


def cut_recording(recording: Recording, spans: list[SampleRange], out: Path) -> float:
    """Write each segment's file to `out`; return the seconds of audio decoded.

    Decodes once, up to the last segment's end, starting at the first segment if the format seeks
    exactly. Memory holds one block and, for the requested channels, the samples that unfinished
    segments still need.

    Raises
    ------
    InputError
        The recording is damaged, or shorter than its header says.
    """
    header = recording.header
    spans = sorted(spans, key=lambda span: span.first)
    origin = reached = begin = spans[0].first
    last = max(span.stop for span in spans)
    channels = sorted({span.channel for span in spans})
    buffers = {channel: np.empty(0, np.int16) for channel in channels}
    for block in decode(header, begin, last, integers=_is_integer(header)):
        for channel in channels:
            taken = mono(block, channel)
            buffers[channel] = (
                np.concatenate([buffers[channel], taken]) if reached > origin else taken
            )
        reached += len(block)
        for span in spans:
            if span.stop <= reached:
                taken = buffers[span.channel][span.first - origin : span.stop - origin]
                _check_finite(header, span, taken)
                write_audio(out / span.name, _finished(taken, header.rate))
        spans = [span for span in spans if span.stop > reached]
        if not spans:
            return (reached - (begin if header.exact else 0)) / header.rate
        keep = min(reached, spans[0].first)
        buffers = {channel: samples[keep - origin :] for channel, samples in buffers.items()}
        origin = keep
    raise InputError(
        f"{header.path}: decodes to {counted(reached, 'sample')}, expected {header.frames} as its "
        "header says; replace the damaged file"
    )


def _is_integer(header: Header) -> bool:
    """Return whether a recording decodes losslessly to 16 bits."""
    return header.exact and header.codec in ("PCM_16", "PCM_S8", "PCM_U8")


def _check_finite(header: Header, span: SampleRange, samples: np.ndarray) -> None:
    """Raise `InputError` if a float recording has NaN or infinity, which int16 cannot express."""
    wrong = int((~np.isfinite(samples)).sum())
    if wrong:
        raise InputError(
            f"{header.path}: {counted(wrong, 'sample')} of {span.name!r} "
            f"{agree(wrong, 'is', 'are')} NaN or infinite, expected numbers; take the segment out "
            "of the table, or replace the recording"
        )


def _finished(samples: np.ndarray, rate: int) -> np.ndarray:
    """Convert a segment to int16 at 16 kHz, clipping on overflow."""
    samples = resample(samples, rate, RATE)
    if samples.dtype == np.int16:
        return samples
    scaled = np.rint(samples.astype(np.float64) * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def write_audio(path: Path, samples: np.ndarray) -> None:
    """Write int16 samples, (frames,) or (frames, channels), as 16 kHz audio by `path`'s suffix.

    The file is written as ``.NAME.part`` and renamed once it is on disk. It is encoded in memory
    first, so that a full disk raises here and not inside libsndfile.

    Raises
    ------
    InputError
        The file cannot be written, or is an output that exists with other content.
    """
    import soundfile

    image = io.BytesIO()
    soundfile.write(image, samples, RATE, subtype="PCM_16", format=path.suffix[1:].upper())
    # Released also after an error: Python 3.12.1 crashes where a view outlives its buffer.
    with image.getbuffer() as view:
        if not has_to_be_written(path, view):
            return
        with explain_write_errors(path, view.nbytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            with rename_when_complete(path.with_name(f".{path.name}.part"), path) as file:
                file.write(view)


def is_complete(path: Path, samples: int) -> bool:
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
