"""What every section of the probe uses: findings written as they come, and clocks for a device."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Findings:
    """A file of findings, one JSON line each, flushed at once: a killed probe leaves what it has.

    Attributes
    ----------
    failed
        Number of findings that say that something failed.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self._begun = time.perf_counter()
        self.failed = 0

    def seconds(self) -> float:
        """Return s since the probe began."""
        return time.perf_counter() - self._begun

    def say(self, what: str, **facts: Any) -> None:
        """Print and write one finding."""
        line = json.dumps({"at": round(self.seconds(), 1), "what": what, **facts}, default=str)
        print(line, flush=True)
        self._file.write(line + "\n")
        self._file.flush()

    def fail(self, what: str, problem: Exception, **facts: Any) -> None:
        """Print and write that something failed, and why."""
        self.failed += 1
        self.say(f"{what} fails", error=f"{type(problem).__name__}: {problem}"[:300], **facts)


def wait_for(device: torch.device) -> None:
    """Wait until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_ms(work: Callable[[], object], device: torch.device, times: int = 10) -> float:
    """Return the median ms that `work` takes on the device (events), or on a CPU of one call."""
    if device.type != "cuda":
        return round(_clock_ms(work), 4)
    for _ in range(3):
        work()
    wait_for(device)
    spent = [_event_ms(work) for _ in range(times)]
    return round(float(np.median(spent)), 4)


def host_ms(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return ms until the host is free again, and ms until the device is done, of one call."""
    wait_for(device)
    begun = time.perf_counter()
    work()
    queued = time.perf_counter() - begun
    wait_for(device)
    return round(queued * 1e3, 2), round((time.perf_counter() - begun) * 1e3, 2)


def _event_ms(work: Callable[[], object]) -> float:
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last)


def _clock_ms(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e3


def peak_gb(device: torch.device) -> float | None:
    """Return the most memory that was held on a GPU, in GB, and begin anew; None on a CPU."""
    if device.type != "cuda":
        return None
    most = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return round(most, 2)


def relative(a: np.ndarray, b: np.ndarray) -> str:
    """Return the largest distance of a vector of `a` from that of `b`, relative to its length."""
    apart = np.linalg.norm(a - b, axis=-1) / np.linalg.norm(b, axis=-1)
    return f"{float(apart.max()):.1e}"
