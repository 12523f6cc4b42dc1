"""Segments in batches of like length, read ahead by worker threads.

A batch holds at most so many seconds, padding counted; sorted by length hardly anything is padded.
The longest come first, so that a batch that is too large for the device shows at once.

Threads, not processes: libsndfile decodes without the interpreter's lock, nothing is copied
between processes, and a process pool waits forever when a worker is killed while it answers.
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
Frames = Callable[[float], int]  # of so many seconds
Cut = Callable[[Sequence[Segment]], list[list[Segment]]]  # segments into batches
AHEAD = 3  # batches that are read while one is encoded


def sort_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Return segments from long to short; equal lengths in the order of the recordings."""
    return sorted(segments, key=lambda s: (-round(s.duration, 4), s.path, s.start, s.segment_id))


def take_part(segments: Sequence[Part], shard: str) -> list[Part]:
    """Return part ``i/n`` (i from 1 to n) of sorted things: every n-th, so all parts are alike.

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


def make_batches(
    segments: Iterable[Segment], batch_seconds: float, frames: Frames | None = None
) -> list[list[Segment]]:
    """Cut segments into batches, in order: longest times number is at most `batch_seconds`.

    A segment longer than that is a batch of its own. With `frames`, the segments of a batch also
    have an equal number of frames, so that none is padded.
    """
    batches: list[list[Segment]] = []
    longest = 0.0
    for segment in segments:
        longest = max(longest, segment.duration)
        unequal = frames and batches and frames(batches[-1][0].duration) != frames(segment.duration)
        if not batches or unequal or longest * (len(batches[-1]) + 1) > batch_seconds:
            batches.append([])
            longest = segment.duration
        batches[-1].append(segment)
    return batches


def unfinished_batches(
    segments: Sequence[Segment], done: AbstractSet[str], passed: AbstractSet[str], cut: Cut
) -> list[list[Segment]]:
    """Return the batches that are left to encode of those that `cut` makes of all segments.

    Kernels round otherwise in batches of another shape, so a run that goes on keeps the batches of
    the whole table, without the ids that are `passed` over; then its rows have the bits of a run
    that was never stopped. Where some of a batch is `done` and some is not, as in a table that has
    grown, what is left is cut anew: nothing is encoded twice.
    """
    kept = [[one for one in batch if one.segment_id not in passed] for batch in cut(segments)]
    parts = [{one.segment_id in done for one in batch} for batch in kept]
    if any(len(part) > 1 for part in parts):
        skipped = done | passed
        return cut([one for one in segments if one.segment_id not in skipped])
    return [batch for batch, part in zip(kept, parts, strict=True) if part == {False}]


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
    """Yield each batch with its audio, or why it has none, in order.

    Parameters
    ----------
    workers
        Number of threads that decode ahead; 0 decodes here, batch by batch.

    Raises
    ------
    InputError
        A recording's rate or channels are not what the run was told.
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
    except Rejected as found:
        return segment, found
    except InputError:
        raise
    except Exception as problem:
        raise RuntimeError(f"{segment.segment_id}: reading {segment.path} failed") from problem
