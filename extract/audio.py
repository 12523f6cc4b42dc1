"""Read one segment of a recording: mono float32 samples at the encoder's rate, or a rejection.

Only the segment's own samples are decoded. Problems of the whole run (a sample rate, a missing
channel) raise `InputError`; problems of a single segment raise `Rejected` with one of `CODES`, so
that the run can continue with the rest of the table.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..common.audio.containers import check_files_exist
from ..common.audio.decoding import (
    Header,
    PastEndError,
    check_has_channel,
    check_rate,
    end_of,
    int16_to_float32,
    read_channel,
    read_header,
    resample,
)
from ..common.counts import counted
from ..common.errors import InputError
from ..manifests.table import sample_span

if TYPE_CHECKING:
    import pandas as pd


CODES = {
    "unreadable": "the file is missing or cannot be decoded",
    "past-end": "the recording ends before the segment does",
    "no-channel": "the recording has no channel of the number that the table names",
    "too-short": "fewer samples than the encoder's receptive field",
    "not-finite": "samples are NaN or infinite",
    "out-of-range": "samples beyond the full scale of 32 bits, which no recording reaches",
    "silent": "all samples are equal (digital silence)",
}


LARGEST = 2.0**31  # some programs write integers as floats; far above, float32 sums overflow


class Rejected(Exception):  # noqa: N818 (a finding about one segment, not a failure of the program)
    """An unusable segment: `code` is one of `CODES`, `message` says what is wrong."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment to decode: `path` of the recording, `start` and `end` in seconds.

    `channel`, where the table names one, overrides the run's channel. `same_span` are other
    segments of exactly these samples, under other labels, which get the same features.
    """

    segment_id: str
    path: str
    start: float
    end: float
    channel: str = ""
    same_span: tuple[Segment, ...] = ()

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


@dataclass(frozen=True)
class ReadOptions:
    """How to read segments: rate (Hz), channel policy, and the fewest samples accepted.

    With `integers`, samples of a 16-bit file stay int16, which halves the bytes to pass on. Divided
    by 32768 they equal the float32 samples bit for bit.
    """

    rate: int = 16000
    channel: str = "0"
    resample: bool = False
    shortest: int = 400
    integers: bool = False


@dataclass(frozen=True, eq=False)
class Audio:
    """A segment's samples (mono, float32 or int16) and their checksum."""

    samples: np.ndarray
    nbytes: int  # bytes of `samples` as float32
    crc32: int  # of the bytes of `samples` as float32
    digest: int  # 64 bits of the BLAKE2b of the same bytes, never 0; tells samples apart
    clipped: bool = False  # the header promised more samples than there are


def segments_of(table: pd.DataFrame, audio_root: str | Path) -> list[Segment]:
    """Return the segments of a segment table, in its order."""
    root = Path(audio_root)
    paths = {audio: str(root / audio) for audio in table["audio"].unique()}
    names = ["segment_id", "audio", "start", "end"]
    columns = [table[name].tolist() for name in names]
    columns.append(table["channel"].tolist() if "channel" in table else [""] * len(table))
    return [
        Segment(name, paths[audio], start, end, channel)
        for name, audio, start, end, channel in zip(*columns, strict=True)
    ]


def read_segment(segment: Segment, reading: ReadOptions) -> Audio:
    """Return a segment's samples at `reading.rate`.

    Raises
    ------
    Rejected
        The segment is unusable; the code is one of `CODES`.
    InputError
        The recording's rate or channels are not those of the run.
    """
    header = _header(segment, reading)
    decoded, clipped = _decode(segment, header, reading)
    samples = int16_to_float32(decoded)
    if decoded.dtype != np.int16 and (wrong := int((~np.isfinite(samples)).sum())):
        raise Rejected("not-finite", f"{counted(wrong, 'sample', 'is')} not finite")
    if (largest := float(np.abs(samples).max(initial=0))) > LARGEST:
        raise Rejected("out-of-range", f"samples reach {largest:g}, expected at most {LARGEST:g}")
    samples = resample(samples, header.rate, reading.rate)
    if len(samples) < reading.shortest:
        raise Rejected(
            "too-short",
            f"segment has {counted(len(samples), 'sample')}, expected at least {reading.shortest}",
        )
    if samples.min() == samples.max():
        raise Rejected("silent", f"all {counted(len(samples), 'sample', 'is')} {samples[0]:g}")
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    output = samples if decoded.dtype != np.int16 else np.ascontiguousarray(decoded)
    return Audio(output, samples.nbytes, zlib.crc32(samples.data), digest_of(samples), clipped)


def digest_of(samples: np.ndarray) -> int:
    """Return 64 bits, never 0, that tell different samples (contiguous) apart."""
    return int.from_bytes(blake2b(samples.data, digest_size=8).digest(), "little") or 1


def group_by_span(
    segments: Iterable[Segment], channel: str, done: AbstractSet[str]
) -> list[Segment]:
    """Return one segment for each distinct span, in order; the others are its `same_span`.

    Segments have the same span if recording, channel, first and last sample are equal, whatever
    their ids. If some ids of a group are `done`, only the others are returned.
    """
    groups: dict[tuple[object, ...], list[Segment]] = {}
    rates: dict[str, int] = {}
    for segment in segments:
        if segment.path not in rates:
            rates[segment.path] = _rate(segment.path)
        span = sample_span(segment.start, segment.end, rates[segment.path])
        key = (segment.path, segment.channel or channel, *span)
        groups.setdefault(key if rates[segment.path] else (segment.segment_id,), []).append(segment)
    left = [[s for s in group if s.segment_id not in done] or group for group in groups.values()]
    return [replace(first, same_span=tuple(others)) for first, *others in left]


def _rate(path: str) -> int:
    """Return a recording's rate in Hz, or 0 if it cannot be opened."""
    try:
        return read_header(path).rate
    except InputError:
        return 0


def check_recordings_exist(
    segments: Iterable[Segment], audio_root: str | Path, *, all_needed: bool = True
) -> None:
    """Raise `InputError` if recordings are missing or, without `all_needed`, if all are missing."""
    check_files_exist({segment.path for segment in segments}, audio_root, all_needed=all_needed)


def check_recordings(segments: Iterable[Segment], reading: ReadOptions) -> int:
    """Raise `InputError` if a recording's rate or channels are not those of the run.

    Return the most channels of a recording whose segments do not name theirs.
    Only headers are read. Unreadable recordings are skipped: their segments are rejected one by
    one, as are segments whose own channel does not exist.
    """
    most = 1
    for path, own in sorted({(segment.path, bool(segment.channel)) for segment in segments}):
        try:
            header = read_header(path)
        except InputError:
            continue
        check_rate(header, reading.rate, resample=reading.resample)
        if not own:
            check_has_channel(header, reading.channel)
            most = max(most, header.channels)
    return most


def count_channels(segments: Sequence[Segment]) -> int:
    """Return the largest number of channels among the recordings that exist, from their headers."""
    most = 1
    for path in {segment.path for segment in segments}:
        try:
            most = max(most, read_header(path).channels)
        except InputError:
            continue
    return most


def channel_note(most: int, channel: str) -> str:
    """Return a line that says which of several channels is read; "" if there is only one.

    If each speaker has a channel of their own, the other speakers would not be heard.
    """
    if most == 1 or channel == "mean":
        return ""
    return (
        f"recordings have up to {counted(most, 'channel')}, and only channel {channel} is read "
        "(the first is 0); --channel names another, or mean, which mixes all"
    )


def channels_unread(segments: Iterable[Segment], channel: str) -> str:
    """Return the line of `channel_note` for recordings whose segments name no channel."""
    return channel_note(count_channels([s for s in segments if not s.channel]), channel)


def _header(segment: Segment, reading: ReadOptions) -> Header:
    try:
        header = read_header(segment.path)
    except InputError as problem:
        raise Rejected("unreadable", str(problem)) from None
    check_rate(header, reading.rate, resample=reading.resample)
    if not segment.channel:
        check_has_channel(header, reading.channel)
    elif int(segment.channel) >= header.channels:
        raise Rejected(
            "no-channel",
            f"{segment.path}: channels are {header.channels}, the table names {segment.channel} "
            "(from 0)",
        )
    return header


def _decode(segment: Segment, header: Header, reading: ReadOptions) -> tuple[np.ndarray, bool]:
    """Return the segment's samples at the recording's rate, and whether they are clipped."""
    channel = segment.channel or reading.channel
    whole = header.exact and header.codec == "PCM_16" and channel != "mean"
    integers = reading.integers and whole and header.rate == reading.rate
    first, stop = sample_span(segment.start, segment.end, header.rate)
    try:
        samples = _read(header, first, stop, channel, integers)
        if len(samples) == stop - first:
            return samples, False
        end = end_of(header, first, stop, "the segment")
        samples = read_channel(header, first, end, channel, integers=integers)
    except PastEndError as problem:
        raise Rejected("past-end", str(problem)) from None
    except InputError as problem:
        raise Rejected("unreadable", str(problem)) from None
    if len(samples) != end - first:
        raise Rejected("unreadable", f"{segment.path}: is damaged before {segment.end:.4f} s")
    return samples, end < stop


def _read(header: Header, first: int, stop: int, channel: str, integers: bool) -> np.ndarray:
    """Return the samples of a span, or none if any of them cannot be decoded."""
    if header.exact and stop > header.frames:
        return np.zeros(0, np.float32)
    try:
        return read_channel(header, first, stop, channel, integers=integers)
    except InputError:
        return np.zeros(0, np.float32)
