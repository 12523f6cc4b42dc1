"""What ``--profile`` writes: one page of where the time of a run went, and a Chrome trace."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.cpus import available_cores
from ..common.files import write_whole
from .job import Job
from .spans import Spans

if TYPE_CHECKING:
    from .encoder import Encoder


def peak_memory() -> int:
    """Return the most bytes that this process has held in main memory since it began."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write_profile(path: str, spans: Spans, job: Job, encoder: Encoder) -> None:
    """Write a page of text to `path` and a Chrome trace to `path`.trace.json."""
    known = encoder.provenance()
    speed = job.seconds / (job.wall or 1)
    facts = {
        "segments": f"{job.new:,}",
        "audio": f"{job.seconds:,.1f} s in {job.wall:,.2f} s, {speed:,.1f} times real time",
        "encoder": f"{known['encoder']}, {known['compute_dtype']} on {job.devices}",
        "batches": f"{job.batch_seconds:g} s, {job.padding:.2%} of it padding",
        "memory": f"{peak_memory() / 1e9:.2f} GB at most (main memory of the first process)",
        "processor": f"{available_cores()} cores, load {os.getloadavg()[0]:.1f}",
    }
    write_whole(Path(path), spans.page(facts).encode())
    write_whole(Path(f"{path}.trace.json"), spans.trace().encode())
