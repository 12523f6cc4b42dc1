"""One way to read audio: header, true length, decoding from a sample on, channel, mix, resampling.

A sample position means the same to every reader. Where libsndfile's seek is exact
(`containers.EXACT`), a file is decoded from the requested position. All other files are decoded
once from the start, and their samples stay in memory, up to `HELD` bytes in total.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..counts import counted
from ..errors import InputError
from ..files import is_special
from .containers import TRUE_LENGTH, add_header, is_exact, reason_unread
from .decoder_lines import without_decoder_lines
from .lengths import unannounced_seconds
from .recent import Recent

if TYPE_CHECKING:
    import soundfile


BLOCK_SECONDS = 20  # decoded at a time: 5 MB of an 8-channel recording
HELD = 1 << 30  # bytes of float32 samples
FULL_SCALE = 32768


class Header(NamedTuple):
    """The header of an audio file; `size` and `modified` distinguish it from a later version."""

    path: str
    rate: int  # Hz
    channels: int
    frames: int  # samples per channel; may be wrong: `count_samples` has the truth
    container: str
    codec: str
    size: int  # bytes
    modified: int  # ns

    @property
    def exact(self) -> bool:
        """Whether a seek lands exactly on the requested sample."""
        return is_exact(self.container, self.codec)

    @property
    def seconds(self) -> float:
        """Length in s, as the header says."""
        return self.frames / self.rate


def read_header(path: str | Path) -> Header:
    """Read an audio file's header.

    Raises
    ------
    InputError
        The file is missing, not a file, or not decodable by libsndfile; says how to repair it.
    """
    path = str(path)
    if is_special(path):
        raise InputError(
            f"{path}: cannot be read (a folder, pipe or device), expected an audio file; correct "
            "the audio folder"
        )
    try:
        status = os.stat(path)  # first: of a missing file libsndfile says "System error."
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise InputError(
            f"{path}: cannot be read ({reason}), expected an audio file; correct the audio folder"
        ) from None
    return _read_header(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _read_header(path: str, size: int, modified: int) -> Header:
    try:
        with _quiet(_may_be_mpeg(path)), _open(path) as file:
            facts = file.samplerate, file.channels, file.frames, file.format, file.subtype
    except (OSError, RuntimeError, TypeError) as problem:  # TypeError: a suffix without header
        reason = getattr(problem, "error_string", None) or problem
        headerless = isinstance(problem, TypeError)
        fault = (not headerless and reason_unread(path)) or (
            f"cannot be read ({str(reason).strip('.')}), expected audio that libsndfile "
            f"decodes; {add_header(path) if headerless else 'replace it'}"
        )
        raise InputError(f"{path}: {fault}") from None
    if facts[0] < 1 or facts[1] < 1:
        raise InputError(
            f"{path}: sample rate is {facts[0]} Hz and channels are {facts[1]}, expected 1 or "
            "more; replace the damaged file"
        )
    return Header(path, *facts, size, modified)


def count_samples(header: Header) -> int:
    """Return how many samples a recording really has, even if its header promises more.

    Formats with unreliable headers (MP3) are decoded completely; for the others, only the last
    sample is, unless it is missing.
    """
    return _count_samples(header)


@lru_cache(maxsize=4096)
def _count_samples(header: Header) -> int:
    if header.codec in TRUE_LENGTH:
        return header.frames
    if header.exact and _has_last_sample(header):
        return header.frames
    count = 0
    try:
        for block in decode(header):
            count += len(block)
    except InputError:
        pass  # damaged from there on
    return count


def _has_last_sample(header: Header) -> bool:
    if header.frames == 0:
        return True
    try:
        return sum(map(len, decode(header, header.frames - 1, header.frames))) == 1
    except InputError:
        return False


def decode(
    header: Header, first: int = 0, stop: int | None = None, *, integers: bool = False
) -> Iterator[np.ndarray]:
    """Yield a recording's samples from `first` to `stop` (or its end), block by block.

    Returns
    -------
    Iterator
        Blocks (samples, channels) of at most `BLOCK_SECONDS`: float32 in -1..1, or int16 with
        `integers`.

    Raises
    ------
    InputError
        The file cannot be decoded any further.
    """
    reached = first if header.exact else 0
    dtype = "int16" if integers else "float32"
    size = BLOCK_SECONDS * header.rate
    quiet = header.codec.startswith("MPEG")
    try:
        with _quiet(quiet):
            opened = _open(header.path)
        with opened as file:
            if reached:
                file.seek(reached)
            while stop is None or reached < stop:
                wanted = size if stop is None else min(size, stop - reached)
                with _quiet(quiet):
                    block = file.read(wanted, dtype, always_2d=True)
                if not len(block):
                    return
                before, reached = reached, reached + len(block)
                if reached > first:
                    yield block[max(0, first - before) :]
    except (OSError, RuntimeError) as problem:
        reason = getattr(problem, "error_string", None) or problem
        raise InputError(
            f"{header.path}: decodes to {counted(reached, 'sample')} "
            f"({str(reason).strip('.') or 'damaged'}), expected {header.frames} as its header "
            "says; replace the damaged file"
        ) from None


def _open(path: str) -> soundfile.SoundFile:
    return _sequential()(path)


@lru_cache(maxsize=1)
def _sequential() -> Any:
    import soundfile

    class Sequential(soundfile.SoundFile):
        """A file read sequentially: soundfile's own `read` seeks after every block."""

        def seekable(self) -> bool:
            return False

    return Sequential


def _quiet(mpeg: bool) -> Any:
    return without_decoder_lines() if mpeg else nullcontext()


def _may_be_mpeg(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(22)
    return head[:3] == b"ID3" or head[:1] == b"\xff" or head[20:] == b"\x55\0"


def end_of(header: Header, first: int, stop: int, what: str) -> int:
    """Return where a span of samples ends: at `stop`, or with the recording if it promised more.

    Raises
    ------
    InputError
        The header's length is not the file's, or nothing decodes from `first` on.
    PastEndError
        The recording ends before `stop`, as its header says. `what` names the span.
    """
    count = count_samples(header)
    if stop <= count:
        return stop
    check_length(header)
    if stop <= header.frames and first < count:
        return count
    if stop <= header.frames:
        raise InputError(
            f"{header.path}: decodes to {counted(count, 'sample')} ({count / header.rate:.4f} s), "
            f"expected {header.frames} ({header.seconds:.4f} s) as its header says; replace the "
            "damaged file"
        )
    raise PastEndError(
        f"{header.path}: ends at {count / header.rate:.4f} s, {what} at {stop / header.rate:.4f} s"
    )


class PastEndError(InputError):
    """A span ends after its recording."""


def check_length(header: Header) -> None:
    """Raise `InputError` if the file's size shows that its header states a wrong length."""
    seconds = unannounced_seconds(header.path, header.seconds)
    if seconds:
        raise InputError(
            f"{header.path}: header says {header.seconds:.1f} s, the file holds about "
            f"{seconds:.1f} s of audio, expected one length; {_mend(header.path)}"
        )


def _mend(path: str) -> str:
    old, new = shlex.quote(f"{path}.original"), shlex.quote(path)
    with open(path, "rb") as file:
        riff = file.read(4) == b"RIFF"
    read, write = ("-ignore_length 1 ", "-rf64 auto -f wav ") if riff else ("", "-f mp3 ")
    return f"rewrite the header: `mv {new} {old} && ffmpeg {read}-i {old} -c copy {write}{new}`"


def clipped_text(header: Header) -> str:
    """Return the note on a recording whose header promises more than can be decoded."""
    count = count_samples(header)
    return (
        f"{header.path}: header says {header.seconds:.4f} s, {count / header.rate:.4f} s decode; "
        "segments that end later are cut there"
    )


def read_channel(
    header: Header, first: int, stop: int, channel: str, *, integers: bool = False
) -> np.ndarray:
    """Return samples `first` to `stop` of one channel, or of the mean: fewer if the file ends.

    Returns
    -------
    ndarray
        (n,) float32 in -1..1, or int16 with `integers` (only for files with exact seeks).

    Raises
    ------
    InputError
        The file cannot be decoded there.
    """
    if header.exact:
        blocks = [mono(b, channel) for b in decode(header, first, stop, integers=integers)]
        return _joined(blocks)
    if header.frames * 4 > HELD:
        return _joined([mono(block, channel) for block in decode(header, first, stop)])
    decoded = _recent.get((header, channel), lambda: _Decoded(header, channel))
    return decoded.part(first, stop)


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


class _Decoded:
    """One channel of a recording, decoded from the start as far as possible."""

    def __init__(self, header: Header, channel: str) -> None:
        self._size = BLOCK_SECONDS * header.rate
        self._blocks: list[np.ndarray] = []
        self._problem: InputError | None = None
        try:
            for block in decode(header):
                self._blocks.append(np.ascontiguousarray(mono(block, channel)))
        except InputError as problem:
            self._problem = problem

    @property
    def nbytes(self) -> int:
        """Bytes of the samples."""
        return sum(block.nbytes for block in self._blocks)

    def part(self, first: int, stop: int) -> np.ndarray:
        """Return samples `first` to `stop`."""
        place = first // self._size
        joined = _joined(self._blocks[place : -(-stop // self._size)])
        samples = joined[first - place * self._size : stop - place * self._size]
        if self._problem is not None and len(samples) < stop - first:
            raise self._problem
        return samples


_recent: Recent[_Decoded] = Recent(HELD)


def check_channel(channel: str) -> str:
    """Return `channel` if it is ``mean`` or an index from 0, or raise `InputError`."""
    if channel != "mean" and not (channel.isascii() and channel.isdigit()):
        raise InputError(
            f"--channel: value is {channel!r}, expected an index from 0 or 'mean'; give one of them"
        )
    return channel if channel == "mean" else str(int(channel))


def check_has_channel(
    header: Header, channel: str, repair: str = "pass --channel 0 or mean"
) -> None:
    """Raise `InputError` if a recording does not have that channel."""
    if channel != "mean" and int(channel) >= header.channels:
        raise InputError(
            f"{header.path}: channels are {header.channels}, expected more than {channel}; {repair}"
        )


def check_rate(header: Header, rate: int, *, resample: bool) -> None:
    """Raise `InputError` if a recording's rate (Hz) differs and resampling is not allowed."""
    if header.rate != rate and not resample:
        raise InputError(
            f"{header.path}: sample rate is {header.rate} Hz, expected {rate} Hz; pass --resample"
        )


def mono(block: np.ndarray, channel: str) -> np.ndarray:
    """Return one channel of a block (samples, channels), or the channels' equal average.

    An average of integers is float32: it need not be whole.
    """
    if channel != "mean":
        return block[:, int(channel)]
    if block.shape[1] == 1:
        return block[:, 0]
    with np.errstate(over="ignore"):  # an infinite average is rejected as such
        return int16_to_float32(block).mean(axis=1, dtype=np.float32)


def int16_to_float32(samples: np.ndarray) -> np.ndarray:
    """Return samples as float32; int16 is divided by 32768, as libsndfile does."""
    if samples.dtype != np.int16:
        return samples
    return np.multiply(samples, np.float32(1 / FULL_SCALE), dtype=np.float32)


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Resample by a polyphase low-pass filter (scipy's default, Kaiser 5.0), from Hz to Hz."""
    if rate == wanted:
        return samples
    from scipy.signal import resample_poly

    shared = math.gcd(rate, wanted)
    return resample_poly(int16_to_float32(samples), wanted // shared, rate // shared)
