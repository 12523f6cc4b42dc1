"""Batch segments of similar length, and read them ahead in worker threads.

A batch has a limit in seconds, including padding; sorting by length keeps padding small. The
longest segments come first, so that a batch too large for the device fails at once.

Threads rather than processes: libsndfile decodes without holding the GIL, no samples are copied
between processes, and a process pool hangs if a worker is killed while it answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from ...common.errors import InputError
from ..audio import Audio, ReadOptions, Rejected, Segment, read_segment
from ..profiling import stage

Part = TypeVar("Part")
Read = tuple[Segment, "Audio | Rejected"]
Cut = Callable[[Sequence[Segment]], list[list[Segment]]]  # segments into batches
AHEAD = 3  # batches that are read while one is encoded


def sort_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Return segments from longest to shortest; equal lengths in order of recordings."""
    return sorted(segments, key=lambda s: (-round(s.duration, 4), s.path, s.start, s.segment_id))


def take_part(segments: Sequence[Part], shard: str) -> list[Part]:
    """Return part ``i/n`` (i from 1 to n) of a sorted sequence: every n-th item.

    Raises
    ------
    InputError
        `shard` is not of that form.
    """
    part, slash, parts = shard.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(
            f"--shard: value is {shard!r}, expected i/n with i from 1 to n, such as 1/4; correct it"
        )
    return list(segments[int(part) - 1 :: int(parts)])


def make_batches(segments: Iterable[Segment], batch_seconds: float) -> list[list[Segment]]:
    """Cut segments, in order, into batches; longest times number is at most `batch_seconds`.

    A longer segment is a batch of its own.
    """
    batches: list[list[Segment]] = []
    longest = 0.0
    for segment in segments:
        longest = max(longest, segment.duration)
        if not batches or longest * (len(batches[-1]) + 1) > batch_seconds:
            batches.append([])
            longest = segment.duration
        batches[-1].append(segment)
    return batches


def unfinished_batches(
    segments: Sequence[Segment], done: AbstractSet[str], passed: AbstractSet[str], cut: Cut
) -> list[list[Segment]]:
    """Return the batches still to encode, of those that `cut` makes of all segments.

    Rounding depends on the shape of a batch, so a resumed run keeps the batches of the whole table,
    minus the ids that are `passed` over: its features equal those of an uninterrupted run bit for
    bit. If a batch is partly `done`, as after a table has grown, the remaining segments are batched
    again, so that nothing is encoded twice.
    """
    batches = [
        [segment for segment in batch if segment.segment_id not in passed]
        for batch in cut(segments)
    ]
    parts = [{segment.segment_id in done for segment in batch} for batch in batches]
    if any(len(part) > 1 for part in parts):
        skipped = done | passed
        return cut([segment for segment in segments if segment.segment_id not in skipped])
    return [batch for batch, part in zip(batches, parts, strict=True) if part == {False}]


def padding(batches: Iterable[Sequence[Segment]]) -> float:
    """Return the share of padding in batches, by durations; 0 without segments."""
    padded = real = 0.0
    for batch in batches:
        padded += len(batch) * max(segment.duration for segment in batch)
        real += sum(segment.duration for segment in batch)
    return 1 - real / padded if padded else 0.0


def read_batches(
    batches: Iterable[Sequence[Segment]],
    reading: ReadOptions,
    *,
    workers: int,
) -> Generator[list[Read], None, None]:
    """Yield each batch in order, its segments with their audio or rejection.

    Parameters
    ----------
    workers
        Number of threads that decode ahead; 0 decodes in this thread, batch by batch.

    Raises
    ------
    InputError
        A recording's rate or channels are not those of the run.
    """
    if workers == 0:
        for batch in batches:
            yield [_read(segment, reading) for segment in batch]
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        yield from _ahead(pool, batches, reading)
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor,
    batches: Iterable[Sequence[Segment]],
    reading: ReadOptions,
) -> Iterator[list[Read]]:
    waiting: deque[list[Future[Read]]] = deque()
    for batch in batches:
        waiting.append(
            [pool.submit(copy_context().run, _read, segment, reading) for segment in batch]
        )
        if len(waiting) > AHEAD:
            yield [future.result() for future in waiting.popleft()]
    while waiting:
        yield [future.result() for future in waiting.popleft()]


def _read(segment: Segment, reading: ReadOptions) -> Read:
    try:
        with stage("decode"):
            return segment, read_segment(segment, reading)
    except Rejected as rejection:
        return segment, rejection
    except InputError:
        raise
    except Exception as problem:
        raise RuntimeError(f"{segment.segment_id}: reading {segment.path} failed") from problem
