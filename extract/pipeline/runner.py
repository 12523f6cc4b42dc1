"""One run over batches: audio in, committed rows out, and smaller batches where memory is short.

Three things go on at once: threads decode the batches to come, the device encodes one, and a
thread writes those before. The queues between them are short, so memory is bounded; what fails in
any of them ends the run and names the segment.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ...common.audio.decoding import check_channel, clipped_text, read_header
from ...common.cpus import available_cores
from ...common.errors import InputError
from ..audio import Audio, ReadOptions, Segment
from ..options import ExtractOptions
from ..profiling import Profile, stage
from ..store.shard_writer import ShardWriter
from .batching import Read, make_batches, padding, read_batches, unfinished_batches

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..encoder.encoder import Encoder


DECODERS = 16  # threads: what a GPU takes in is more than four of them decode

Good = list[tuple[Segment, Audio]]
Wait = Callable[[], list[tuple[np.ndarray, int]]]  # gives each waveform's features and frames
Encode = Callable[[Sequence[np.ndarray]], Wait]
Progress = Callable[[float], None]  # is given s of audio that were read since the last call


class ExtractionRun:
    """One run's settings and counts: batches go in, committed rows come out."""

    def __init__(
        self,
        encoder: Encoder,
        layers: Sequence[int],
        options: ExtractOptions,
        writer: ShardWriter,
        tell: Callable[[str], None],
        spans: Profile | None = None,
    ) -> None:
        self._options, self._writer, self._spans = options, writer, spans
        self._tell, self._clipped = tell, set[str]()  # recordings that end early, told of once
        self._encoder = encoder
        self._reading = read_options(encoder, options)
        self.batch_seconds = options.batch_seconds or encoder.batch_seconds
        self.devices = str(encoder.device)
        self._encode = SplitOnOutOfMemory(_encoding(encoder, layers, options), tell)
        self._flying: tuple[Good, Wait] | None = None
        self.new, self.seconds, self.wall, self.padding = 0, 0.0, 0.0, 0.0

    def run(self, segments: Sequence[Segment], stop: Callable[[], bool]) -> bool:
        """Encode those of `segments` that the store lacks; return whether `stop` ended it early."""
        begun = time.perf_counter()
        batches = self._batches(segments)
        self.padding = padding(batches)
        with _bar(segment for batch in batches for segment in batch) as bar:

            def progress(seconds: float) -> None:
                bar.update(seconds)
                self.wall = time.perf_counter() - begun
                bar.set_description_str(self._told(), refresh=False)

            stopped = self.encode(batches, stop, progress)
        self.wall = time.perf_counter() - begun
        return stopped

    def encode(
        self, batches: Iterable[Sequence[Segment]], stop: Callable[[], bool], progress: Progress
    ) -> bool:
        """Take batches from audio to committed rows; return whether `stop` ended it early."""
        workers = count_workers(self._options)
        reading = read_batches(batches, self._reading, workers=workers, spans=self._spans)
        with ExitStack() as closed:
            closed.enter_context(self._encoder.session(self._spans))
            writing = closed.enter_context(BackgroundWriter(self._spans))
            found = closed.enter_context(closing(reading))
            closed.callback(self._finish_batch, writing)
            while not (stopped := stop()) and (read := self._next(found)) is not None:
                self._start_batch(read, writing)
                progress(sum(segment.duration for segment, _ in read))
            self._finish_batch(writing)
            writing.put(self._writer.commit)
        return stopped

    def _batches(self, segments: Sequence[Segment]) -> list[list[Segment]]:
        options, writer = self._options, self._writer
        frames = self._encoder.frames_of if options.buckets else None
        cut = partial(make_batches, batch_seconds=self.batch_seconds, frames=frames)
        passed = set() if options.retry_rejected else set(writer.rejected)
        return unfinished_batches(segments, writer.done, passed, cut)

    def _told(self) -> str:
        return f"{self.new} segments, {self.seconds / self.wall:.0f} times real time, "

    def _next(self, found: Iterator[list[Read]]) -> list[Read] | None:
        with stage(self._spans, "wait for audio"):
            return next(found, None)

    def _start_batch(self, read: Sequence[Read], writing: BackgroundWriter) -> None:
        good: Good = []
        for segment, audio in read:
            if isinstance(audio, Audio):
                good.append((segment, audio))
                self._tell_clipped(segment, audio)
                continue
            if self._options.strict:
                raise InputError(
                    f"{segment.segment_id}: {audio.code}: {audio.message}, expected a usable "
                    "segment; correct the table, or leave out --strict"
                )
            refused = (segment.segment_id, audio.code, audio.message)
            writing.put(partial(self._writer.reject, *refused))
        if not good:
            return
        with _named(good, "encoding"):
            wait = self._encode([audio.samples for _, audio in good])
        self._finish_batch(writing)
        self._flying = good, wait

    def _tell_clipped(self, segment: Segment, audio: Audio) -> None:
        if audio.clipped and segment.path not in self._clipped:
            self._clipped.add(segment.path)
            self._tell(clipped_text(read_header(segment.path)))

    def _finish_batch(self, writing: BackgroundWriter) -> None:
        """Hand on the batch that the device is at, while it has the next one to do."""
        if self._flying is None:
            return
        (good, wait), self._flying = self._flying, None
        with _named(good, "encoding"), stage(self._spans, "wait for device"):
            rows = wait()
        writing.put(partial(self._write, good, rows))
        self.new += len(good)
        self.seconds += sum(segment.duration for segment, _ in good)

    def _write(self, good: Good, rows: Sequence[tuple[np.ndarray, int]]) -> None:
        with self._writer.one_commit():
            for (segment, audio), (features, frames) in zip(good, rows, strict=True):
                with _named([(segment, audio)], "writing"):
                    self._writer.add(
                        segment.segment_id,
                        features,
                        duration=segment.duration,
                        frames=frames,
                        audio_bytes=audio.nbytes,
                        audio_crc32=audio.crc32,
                    )


@contextmanager
def _named(good: Good, what: str) -> Iterator[None]:
    """Have an exception that the user can't repair name the segments it came with."""
    try:
        yield
    except InputError:
        raise
    except Exception as problem:
        others = f" and {len(good) - 1} more in its batch" if len(good) > 1 else ""
        raise RuntimeError(f"{good[0][0].segment_id}{others}: {what} failed") from problem


class SplitOnOutOfMemory:
    """Encode a batch; where it does not fit the device's memory, its halves. Tells once."""

    def __init__(self, encode: Encode, tell: Callable[[str], None]) -> None:
        self._encode, self._tell = encode, tell
        self._limit = np.inf  # samples, padding counted, that a batch may have

    def __call__(self, waveforms: Sequence[np.ndarray]) -> Wait:
        """Return what gives features and number of frames of each waveform."""
        padded = len(waveforms) * max(len(waveform) for waveform in waveforms)
        if padded <= self._limit or len(waveforms) == 1:
            wait = self._tried(waveforms)
            if wait is not None:
                return wait
            self._shrink(waveforms, padded)
        middle = len(waveforms) // 2
        halves = self(waveforms[:middle]), self(waveforms[middle:])
        return lambda: [row for half in halves for row in half()]

    def _tried(self, waveforms: Sequence[np.ndarray]) -> Wait | None:
        from ..encoder.device import out_of_memory

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
                "device's memory, expected it to fit; pass a smaller --max-seconds and name "
                "another store"
            )
        if self._limit == np.inf:
            self._tell(
                f"a batch of {len(waveforms)} segments is too large for the device's memory, "
                "expected it to fit; going on with halves, pass a smaller --batch-seconds"
            )
        self._limit = padded // 2


def _encoding(encoder: Encoder, layers: Sequence[int], options: ExtractOptions) -> Encode:
    """Return the function that a run encodes batches with."""

    def pooled(waveforms: Sequence[np.ndarray]) -> Wait:
        wait = encoder.encode_async(waveforms, layers, options.pooling, options.max_seconds)

        def rows() -> list[tuple[np.ndarray, int]]:
            features, frames = wait()
            return list(zip(features, frames.tolist(), strict=True))

        return rows

    def whole(waveforms: Sequence[np.ndarray]) -> Wait:
        states = encoder.states(waveforms, layers=layers, max_seconds=options.max_seconds)
        return lambda: [(rows, len(rows)) for rows in states]

    return whole if options.frames else pooled


def read_options(encoder: Encoder, options: ExtractOptions) -> ReadOptions:
    """Return how segments are read for this encoder."""
    return ReadOptions(
        rate=encoder.rate,
        channel=check_channel(options.channel),
        resample=options.resample,
        shortest=encoder.shortest,
        integers=True,
    )


def count_workers(options: ExtractOptions, devices: int = 1) -> int:
    """Return how many threads decode for each of so many devices."""
    if options.workers is not None:
        return options.workers
    return max(1, min(available_cores() // devices, DECODERS))


def _bar(todo: Iterable[Segment]) -> tqdm:
    """Return a progress bar over seconds of audio, on a terminal only."""
    from tqdm import tqdm

    seconds = sum(segment.duration for segment in todo)
    shape = "{percentage:3.0f}%|{bar}| {desc}{remaining} left"
    return tqdm(total=seconds, disable=None, bar_format=shape, leave=False)


WAITING = 4  # blocks between the encoder and the disk; then the encoder waits

Write = Callable[[], None]


class BackgroundWriter:
    """A context manager: what is `put` is done in its thread, in order, one thing at a time.

    What fails there is raised by the next `put`, or on leaving, and nothing after it is done. On
    leaving, what was put is done first, also after an exception: it is finished work. At most
    `waiting` wait at a time.
    """

    def __init__(self, spans: Profile | None = None, waiting: int = WAITING) -> None:
        self._blocks: queue.Queue[Write | None] = queue.Queue(waiting)
        self._spans = spans
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="writer")

    def __enter__(self) -> BackgroundWriter:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._blocks.put(None)
            self._thread.join()
        except BaseException as stopped:  # asked to hurry: only what is under way is finished
            self._problem = stopped
            self._blocks.put(None)
            self._thread.join()
            raise
        if self._problem is not None and problem is None:
            raise self._problem

    def put(self, write: Write) -> None:
        """Have `write` done; waits while there is no room."""
        if self._problem is not None:
            raise self._problem
        with stage(self._spans, "wait for writer"):
            self._blocks.put(write)

    def _work(self) -> None:
        while (write := self._blocks.get()) is not None:
            if self._problem is None:
                try:
                    with stage(self._spans, "writing"):
                        write()
                except BaseException as problem:  # raised again by `put` or on leaving
                    self._problem = problem
