"""Run batches through decoding, encoding and writing, which overlap.

Threads decode the next batches while the device encodes one and a thread writes those before. The
queues between them are short, so memory is bounded; a failure in any of them ends the run and names
the segment. A batch that is too large for the device's memory is split.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.audio.decoding import check_channel, clipped_text, read_header
from ...common.counts import counted
from ...common.cpus import available_cores
from ...common.engine.work import FailedUnit
from ...common.errors import InputError
from ...common.log import progress_bar
from ..audio import Audio, ReadOptions, Segment, group_by_span
from ..options import ExtractOptions
from ..profiling import stage
from ..store.reader import FeatureStore
from ..store.same_audio import AudioIndex
from ..store.shard_writer import ShardWriter
from .batching import Read, make_batches, padding, read_batches, unfinished_batches

if TYPE_CHECKING:
    from ..encoder.encoder import Encoder
    from ..encoder.pooling import EncodedBatch


DECODERS = 16  # threads at most; four cannot keep a GPU busy

Good = list[tuple[Segment, Audio]]
Progress = Callable[[float], None]  # called with the s of audio read since the last call


class ExtractionRun:
    """One run over batches: its settings and counts."""

    def __init__(
        self,
        encoder: Encoder,
        layers: Sequence[int],
        options: ExtractOptions,
        writer: ShardWriter,
        log: Callable[[str], object],
        same_audio: AudioIndex | None = None,
    ) -> None:
        self._options, self._writer = options, writer
        self._tell, self._clipped = log, set[str]()  # truncated recordings, reported once each
        self._encoder = encoder
        self._reading = read_options(encoder, options)
        self.batch_seconds = options.batch_seconds or encoder.batch_seconds
        self.devices = str(encoder.device)
        settings = layers, options.stored_pooling, options.max_seconds
        self._encode = SplitOnOutOfMemory(encoder.encode_async, log, *settings)
        self._flying: tuple[Good, list[EncodedBatch]] | None = None
        self._same_audio = same_audio  # by default of what the store holds at the first batch
        self.new, self.shared = 0, 0
        self.failed: list[FailedUnit] = []  # of an engine that runs in units
        self.again = 0  # lost tries of such units
        self.seconds, self.wall, self.padding = 0.0, 0.0, 0.0

    def plan(self, segments: Sequence[Segment]) -> list[list[Segment]]:
        """Return the batches of the `segments` that the store lacks."""
        options, writer = self._options, self._writer
        cut = partial(make_batches, batch_seconds=self.batch_seconds)
        passed = set() if options.retry_rejected else set(writer.rejections)
        segments = group_by_span(segments, self._reading.channel, writer.done | passed)
        batches = unfinished_batches(segments, writer.done, passed, cut)
        self.padding = padding(batches)
        return batches

    @contextmanager
    def shown(self, batches: Iterable[Sequence[Segment]]) -> Iterator[Progress]:
        """Time the run and show its progress on a terminal while open.

        Yields the `progress` callback for `encode`.
        """
        begun = time.perf_counter()
        total = sum(segment.duration for batch in batches for segment in batch)
        shape = "{percentage:3.0f}%|{bar}| {desc}{remaining} left"
        with progress_bar(total, bar_format=shape) as bar:

            def progress(seconds: float) -> None:
                bar.update(seconds)
                self.wall = time.perf_counter() - begun
                speed = f"{self.seconds / self.wall:.0f} times real time"
                bar.set_description_str(f"{counted(self.new, 'segment')}, {speed}, ", refresh=False)

            yield progress
        self.wall = time.perf_counter() - begun

    def encode(
        self, batches: Iterable[Sequence[Segment]], stop: Callable[[], bool], progress: Progress
    ) -> bool:
        """Encode batches and commit their rows; return whether `stop` ended the run early."""
        reading = read_batches(batches, self._reading, workers=count_workers(self._options))
        with ExitStack() as closed:
            closed.enter_context(self._session())
            writing = closed.enter_context(BackgroundWriter())
            batches_read = closed.enter_context(closing(reading))
            closed.callback(self._finish_batch, writing)
            while not (stopped := stop()):
                with stage("wait for audio"):
                    read = next(batches_read, None)
                if read is None:
                    break
                if good := self._without_features(self._usable(read, writing), writing):
                    with _named(good, "encoding"):
                        encoded = self._encode([audio.samples for _, audio in good])
                    self._finish_batch(writing)
                    self._flying = good, encoded
                progress(sum(segment.duration for segment, _ in read))
            self._finish_batch(writing)
            writing.put(self._writer.commit)
        return stopped

    def _session(self) -> AbstractContextManager[None]:
        """Return what is open while batches are encoded."""
        return self._encoder.session()

    def _usable(self, read: Sequence[Read], writing: BackgroundWriter) -> Good:
        """Return the segments of a batch that have audio; record the others as rejected."""
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
            for same in (segment, *segment.same_span):
                refused = (same.segment_id, audio.code, audio.message)
                writing.put(partial(self._writer.reject, *refused))
        return good

    def _without_features(self, good: Good, writing: BackgroundWriter) -> Good:
        """Return the segments to encode; have the others written with features of equal samples."""
        if self._same_audio is None:
            self._same_audio = AudioIndex(FeatureStore.open(self._writer.path))
        places = [self._same_audio.find(segment.segment_id, audio) for segment, audio in good]
        equal = [(pair, k) for pair, k in zip(good, places, strict=True) if k is not None]
        if equal:
            pairs, stored = [pair for pair, _ in equal], [place for _, place in equal]
            index = self._same_audio
            writing.put(lambda: self._write(pairs, index.read(stored)))
            self.shared += sum(1 + len(segment.same_span) for segment, _ in pairs)
        return [pair for pair, place in zip(good, places, strict=True) if place is None]

    def _tell_clipped(self, segment: Segment, audio: Audio) -> None:
        if audio.clipped and segment.path not in self._clipped:
            self._clipped.add(segment.path)
            self._tell(clipped_text(read_header(segment.path)))

    def _finish_batch(self, writing: BackgroundWriter) -> None:
        """Pass the batch in flight to the writer, while the device works on the next."""
        if self._flying is None:
            return
        (good, encoded), self._flying = self._flying, None
        with _named(good, "encoding"), stage("wait for device"):
            rows = [row for batch in encoded for row in batch.rows()]
        writing.put(partial(self._write, good, rows))
        self.new += len(good)
        self.shared += sum(len(segment.same_span) for segment, _ in good)
        self.seconds += sum(segment.duration for segment, _ in good)

    def _write(self, good: Good, rows: Sequence[tuple[np.ndarray, int]]) -> None:
        with self._writer.one_commit():
            for (segment, audio), (features, frames) in zip(good, rows, strict=True):
                with _named([(segment, audio)], "writing"):
                    for same in (segment, *segment.same_span):
                        self._writer.add(
                            same.segment_id,
                            features,
                            duration=same.duration,
                            frames=frames,
                            audio_bytes=audio.nbytes,
                            audio_crc32=audio.crc32,
                            audio_digest=audio.digest,
                        )


@contextmanager
def _named(good: Good, what: str) -> Iterator[None]:
    """Add the batch's segments to exceptions that the user cannot repair."""
    try:
        yield
    except InputError:
        raise
    except Exception as problem:
        others = f" and {len(good) - 1} more in its batch" if len(good) > 1 else ""
        raise RuntimeError(f"{good[0][0].segment_id}{others}: {what} failed") from problem


class SplitOnOutOfMemory:
    """Split a batch on out-of-memory; warn once.

    `encode` is `Encoder.encode_async`, and `settings` are its arguments after the waveforms.
    """

    def __init__(
        self, encode: Callable[..., EncodedBatch], log: Callable[[str], object], *settings: Any
    ) -> None:
        self._encode, self._tell, self._settings = encode, log, settings
        self._limit = np.inf  # samples allowed in a batch, including padding

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[EncodedBatch]:
        """Queue waveforms for encoding on the device, in one batch or several in succession."""
        from ..encoder.device import out_of_memory

        waiting, encoded = [waveforms], []
        while waiting:
            batch = waiting.pop()
            padded = len(batch) * max(len(waveform) for waveform in batch)
            if padded <= self._limit or len(batch) == 1:
                try:
                    encoded.append(self._encode(batch, *self._settings))
                    continue
                except Exception as problem:
                    if not out_of_memory(problem):
                        raise
                # outside the except block, which keeps the batch's tensors alive
                self._shrink(batch, padded)
            middle = len(batch) // 2
            waiting += [batch[middle:], batch[:middle]]
        return encoded

    def _shrink(self, waveforms: Sequence[np.ndarray], padded: int) -> None:
        if len(waveforms) == 1:
            raise InputError(
                f"--max-seconds: a waveform of {counted(padded, 'sample')} alone is too large for "
                "the device's memory, expected it to fit; pass a smaller --max-seconds and name "
                "another store"
            )
        if self._limit == np.inf:
            self._tell(
                f"a batch of {counted(len(waveforms), 'segment')} is too large for the device's "
                "memory, expected it to fit; continuing with halves; pass a smaller --batch-seconds"
            )
        self._limit = padded // 2


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
    """Return the number of decoding threads per device, for `devices` devices."""
    if options.workers is not None:
        return options.workers
    return max(1, min(available_cores() // devices, DECODERS))


WAITING = 4  # blocks queued for the disk before the encoder waits

Write = Callable[[], None]


class BackgroundWriter:
    """A context manager that runs the calls given to `put` in a thread, in order, one at a time.

    If a call fails, the exception is raised by the next `put` or on leaving, and later calls are
    dropped. Leaving waits for the queued calls, even after an exception, since they are finished
    work. At most `waiting` calls are queued.
    """

    def __init__(self, waiting: int = WAITING) -> None:
        self._blocks: queue.Queue[Write | None] = queue.Queue(waiting)
        self._problem: BaseException | None = None
        work = partial(copy_context().run, self._work)
        self._thread = threading.Thread(target=work, name="writer")

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
        except BaseException as stopped:  # interrupted: only the call in progress is finished
            self._problem = stopped
            self._blocks.put(None)
            self._thread.join()
            raise
        if self._problem is not None and problem is None:
            raise self._problem

    def put(self, write: Write) -> None:
        """Queue the call `write`; blocks while the queue is full."""
        if self._problem is not None:
            raise self._problem
        with stage("wait for writer"):
            self._blocks.put(write)

    def _work(self) -> None:
        while (write := self._blocks.get()) is not None:
            if self._problem is None:
                try:
                    with stage("writing"):
                        write()
                except BaseException as problem:  # raised again by `put` or on leaving
                    self._problem = problem
