"""Bytes of main memory that a run's lists take per segment, without audio or encoder.

Usage: ``python benchmarks/extract_table.py [SEGMENTS]``. A line for each list, by `tracemalloc`, of
a made-up table whose ids have 38 characters.
"""

import sys
import tracemalloc
from functools import partial

import numpy as np
import pandas as pd

from spk.extract.options import ExtractOptions
from spk.extract.pipeline.batching import make_batches, unfinished_batches
from spk.extract.planning import choose_segments
from spk.extract.profiling import TimedStage


def table_of(count: int) -> pd.DataFrame:
    """Return a table of so many segments of 50 recordings, 1.5 to 30 s long."""
    lengths = np.clip(np.random.default_rng(0).lognormal(1.1, 0.6, count), 1.5, 30.0)
    starts = np.arange(count, dtype=float)
    return pd.DataFrame(
        {
            "segment_id": [f"20200616_M_R001S01C01_001-M_{i:010.4f}" for i in range(count)],
            "audio": [f"20200616_M_R001S{i % 50:02d}C01.flac" for i in range(count)],
            "start": starts,
            "end": starts + lengths,
        }
    )


def main() -> None:
    """Make each list and print what it took."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    table = table_of(count)
    tracemalloc.start()
    traced = [tracemalloc.get_traced_memory()[0]]

    def report(name: str, _: object) -> None:
        traced.append(tracemalloc.get_traced_memory()[0])
        print(f"{name:<24}{(traced[-1] - traced[-2]) / count:>8.0f} bytes per segment")

    segments = choose_segments(table, ExtractOptions(audio_root="/data/aishell4/train_L/wav"))
    report("segments", segments)
    cut = partial(make_batches, batch_seconds=20.0)
    batches = unfinished_batches(segments, set(), set(), cut)
    report("batches", batches)
    done = {segment.segment_id for segment in segments}
    report("ids that are done", done)
    spans = [TimedStage("decode", "decode_0", float(i), i + 0.5) for i in range(count)]
    report("spans (--profile)", spans)


if __name__ == "__main__":
    main()
