"""Decoding by threads against processes, and one channel out of eight against a mono file.

Usage: ``python benchmarks/decode.py RECORDING [SEGMENTS]`` with a recording of one channel. It is
written again as mono FLAC, as FLAC of eight unlike channels and as mono WAV; random segments of 1.5
to 5.5 s are then read by `spk.extract.audio.read_segment`, in this process, in threads and in
processes. A line each: seconds of audio per second, and per second of processor time, which says
more on a machine that is shared.
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from spk.extract.audio import ReadOptions, Segment, read_segment

WORKERS = (1, 2)


def samples_of(segment: Segment) -> np.ndarray:
    """Return a segment's samples, as a run reads them."""
    return read_segment(segment, ReadOptions(integers=True)).samples


def processor_time() -> float:
    """Return s of processor time of this process and of its children that ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


def in_pool(kind: Callable, workers: int, segments: Sequence[Segment]) -> None:
    """Read all segments in a pool of threads or processes."""
    with kind(workers) as pool:
        for _ in pool.map(samples_of, segments, chunksize=8):
            pass


def measure(name: str, segments: Sequence[Segment]) -> None:
    """Print a line for each way of reading."""
    ways = {"here": lambda: list(map(samples_of, segments))}
    for workers in WORKERS:
        ways[f"{workers} threads"] = partial(in_pool, ThreadPoolExecutor, workers, segments)
        ways[f"{workers} processes"] = partial(in_pool, ProcessPoolExecutor, workers, segments)
    seconds = sum(segment.duration for segment in segments)
    for way, work in ways.items():
        begun, used = time.perf_counter(), processor_time()
        work()
        wall, used = time.perf_counter() - begun, processor_time() - used
        print(f"{name:<12}{way:<14}{seconds / wall:>9.0f}{seconds / used:>9.0f}", flush=True)


def main() -> None:
    """Write the three files and measure them twice."""
    samples, rate = soundfile.read(sys.argv[1], dtype="int16", always_2d=True)
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 400
    total = len(samples) / rate
    rng = np.random.default_rng(0)
    channels = [np.roll(samples[:, 0], i * rate) for i in range(8)]
    print(f"# load {os.getloadavg()[0]:.1f}; file, way, times real time, per s of processor time")
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "mono.flac": channels[0],
            "eight.flac": np.stack(channels, 1),
            "mono.wav": channels[0],
        }
        for name, data in files.items():
            soundfile.write(Path(folder) / name, data, rate)
        spans = [
            (start, start + rng.uniform(1.5, 5.5)) for start in rng.uniform(0, total - 6, count)
        ]
        for name in [*files, *files]:
            path = str(Path(folder) / name)
            measure(name, [Segment(f"s{i}", path, *span) for i, span in enumerate(spans)])


if __name__ == "__main__":
    main()
