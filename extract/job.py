"""One run over batches: audio in, committed rows out, and smaller batches where memory is short."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from ..manifests.table import InputError
from .audio import Audio, Reading, Segment, check_channel
from .batches import Read, make_batches, read_batches
from .options import Options
from .store import StoreWriter

if TYPE_CHECKING:
    from tqdm import tqdm

    from .encoder import Encoder

Encode = Callable[[Sequence[np.ndarray]], list[tuple[np.ndarray, int]]]


class Job:
    """One run's settings and counts: batches go in, committed rows come out."""

    def __init__(
        self,
        encoder: Encoder,
        layers: Sequence[int],
        options: Options,
        writer: StoreWriter,
        tell: Callable[[str], None],
    ) -> None:
        self._options, self._writer = options, writer
        self._reading = reading_of(encoder, options)
        self._batch_seconds = options.batch_seconds or encoder.batch_seconds
        self._encode = Halving(_encoding(encoder, layers, options), tell)
        self.new, self.seconds, self.wall = 0, 0.0, 0.0

    def run(self, todo: Sequence[Segment], stop: Callable[[], bool]) -> bool:
        """Encode `todo`; return whether `stop` ended it early."""
        begun = time.perf_counter()
        batches = make_batches(todo, self._batch_seconds)
        workers = _workers(self._options) if todo else 0
        with (
            _bar(todo) as bar,
            closing(read_batches(batches, self._reading, workers=workers)) as found,
        ):
            while not (stopped := stop()) and (read := next(found, None)) is not None:
                self._take(read)
                bar.update(sum(segment.duration for segment, _ in read))
                self.wall = time.perf_counter() - begun
                bar.set_description_str(self._told(), refresh=False)
        return stopped

    def _told(self) -> str:
        return f"{self.new} segments, {self.seconds / self.wall:.0f} times real time, "

    def _take(self, read: Sequence[Read]) -> None:
        good: list[tuple[Segment, Audio]] = []
        for segment, audio in read:
            if isinstance(audio, Audio):
                good.append((segment, audio))
                continue
            if self._options.strict:
                raise InputError(
                    f"{segment.segment_id}: {audio.code}: {audio.message}, expected a usable "
                    "segment; correct the table, or leave out --strict"
                )
            self._writer.reject(segment.segment_id, audio.code, audio.message)
        if not good:
            return
        rows = self._encode([audio.samples for _, audio in good])
        for (segment, audio), (features, frames) in zip(good, rows, strict=True):
            self._writer.add(
                segment.segment_id,
                features,
                duration=segment.duration,
                frames=frames,
                audio_bytes=audio.size,
                audio_crc32=audio.crc32,
            )
            self.new += 1
            self.seconds += segment.duration


class Halving:
    """Encode a batch; where it does not fit the device's memory, its halves. Tells once."""

    def __init__(self, encode: Encode, tell: Callable[[str], None]) -> None:
        self._encode, self._tell = encode, tell
        self._limit = np.inf  # samples, padding counted, that a batch may have

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, int]]:
        """Return features and number of frames of each waveform."""
        padded = len(waveforms) * max(len(waveform) for waveform in waveforms)
        if padded <= self._limit or len(waveforms) == 1:
            rows = self._tried(waveforms)
            if rows is not None:
                return rows
            self._shrink(waveforms, padded)
        middle = len(waveforms) // 2
        return self(waveforms[:middle]) + self(waveforms[middle:])

    def _tried(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, int]] | None:
        from .device import out_of_memory

        try:
            return self._encode(waveforms)
        except Exception as problem:
            if not out_of_memory(problem):
                raise
        return None  # after the except block, which kept the batch's tensors alive

    def _shrink(self, waveforms: Sequence[np.ndarray], padded: int) -> None:
        if len(waveforms) == 1:
            raise InputError(
                f"--max-seconds: a waveform of {padded} samples alone is too large for the "
                "device's memory, expected it to fit; pass a smaller --max-seconds"
            )
        if self._limit == np.inf:
            self._tell(
                f"a batch of {len(waveforms)} segments is too large for the device's memory, "
                "expected it to fit; going on with halves, pass a smaller --batch-seconds"
            )
        self._limit = padded // 2


def _encoding(encoder: Encoder, layers: Sequence[int], options: Options) -> Encode:
    """Return the function that a run encodes batches with."""

    def pooled(waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, int]]:
        features, frames = encoder.encode(
            waveforms, layers=layers, pooling=options.pooling, max_seconds=options.max_seconds
        )
        return list(zip(features, frames.tolist(), strict=True))

    def whole(waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, int]]:
        states = encoder.states(waveforms, layers=layers, max_seconds=options.max_seconds)
        return [(rows, len(rows)) for rows in states]

    return whole if options.frames else pooled


def reading_of(encoder: Encoder, options: Options) -> Reading:
    """Return how segments are read for this encoder."""
    return Reading(
        rate=encoder.rate,
        channel=check_channel(options.channel),
        resample=options.resample,
        shortest=encoder.shortest,
    )


def _workers(options: Options) -> int:
    return min(os.cpu_count() or 1, 4) if options.workers is None else options.workers


def _bar(todo: Iterable[Segment]) -> tqdm:
    """Return a progress bar over seconds of audio, on a terminal only."""
    from tqdm import tqdm

    seconds = sum(segment.duration for segment in todo)
    shape = "{percentage:3.0f}%|{bar}| {desc}{remaining} left"
    return tqdm(total=seconds, disable=None, bar_format=shape, leave=False)
