"""Segments in batches of like length, read ahead by worker processes.

A batch holds at most so many seconds, padding counted; sorted by length hardly anything is padded.
The longest come first, so that a batch that is too large for the device shows at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait

from ..manifests.table import InputError
from .audio import Audio, Reading, Rejected, Segment, read_segment

Read = tuple[Segment, "Audio | Rejected"]
AHEAD = 3  # batches that are read while one is encoded


def sort_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Return segments from long to short; equal lengths in the order of the recordings."""
    return sorted(segments, key=lambda s: (-round(s.duration, 4), s.path, s.start, s.segment_id))


def take_shard(segments: Sequence[Segment], shard: str) -> list[Segment]:
    """Return part ``i/n`` (i from 1 to n) of sorted segments: every n-th, so all parts are alike.

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
    """Cut segments into batches, in order: longest times number is at most `batch_seconds`.

    A segment longer than that is a batch of its own.
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


def read_batches(
    batches: Iterable[Sequence[Segment]], reading: Reading, *, workers: int
) -> Generator[list[Read], None, None]:
    """Yield each batch with its audio, or why it has none, in order.

    Parameters
    ----------
    workers
        Number of processes that decode ahead; 0 decodes here.

    Raises
    ------
    InputError
        A recording's rate or channels are not what the run was told, or a worker was killed.
    """
    if workers == 0:
        for batch in batches:
            yield [_read(segment, reading) for segment in batch]
        return
    # Spawned, not forked: a fork of a process that runs torch's threads may hang.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare_worker)
    try:
        yield from _ahead(pool, batches, reading)
    except BrokenProcessPool:
        raise InputError(
            "--workers: a decoding process was killed, expected all to live (memory may be short); "
            "pass --workers 0"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(
    pool: ProcessPoolExecutor, batches: Iterable[Sequence[Segment]], reading: Reading
) -> Iterator[list[Read]]:
    waiting: deque[list[Future[Read]]] = deque()
    for batch in batches:
        waiting.append([pool.submit(_read, segment, reading) for segment in batch])
        if len(waiting) > AHEAD:
            yield [future.result() for future in waiting.popleft()]
    while waiting:
        yield [future.result() for future in waiting.popleft()]


def _read(segment: Segment, reading: Reading) -> Read:
    try:
        return segment, read_segment(segment, reading)
    except Rejected as found:
        return segment, found
    except InputError:
        raise
    except Exception as problem:
        raise RuntimeError(f"{segment.segment_id}: reading {segment.path} failed") from problem


def _prepare_worker() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # the cores belong to the encoder and the other workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the run decides
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End this worker when the run is killed: nobody would ever tell it to stop."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
