"""What `extract.py` says of a run: a row, memory, the ceiling of the machine, and ratios."""

import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch


@dataclass(frozen=True)
class Row:
    """One run of one side."""

    side: str
    encoder: str
    segments: int
    seconds: float  # s of audio
    channels: int
    device: str
    dtype: str
    options: str
    reader: str
    threads: int  # of torch
    wall_s: float
    cpu_s: float
    times_real_time: float
    decode: float  # shares of the time of all stages; empty where they were not measured
    transfer: float
    cnn: float
    layers: float
    pooling: float
    writing: float
    padding: float  # share of what was encoded
    product_share: float  # of the GFLOP/s that large products of matrices reach here, by wall clock
    peak_gb: float  # of main memory above what was held before; on a GPU that of the GPU
    difference: float
    load: float  # of the machine before the run, one minute's average


def memory_held(device: str) -> int:
    """Return the bytes held now, and begin to watch the peak anew."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return status_bytes("VmRSS")


def peak(device: str) -> int:
    """Return the most bytes held since then: of the GPU's memory, or on a CPU of main memory."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return status_bytes("VmHWM")


def status_bytes(name: str) -> int:
    """Return a size out of Linux's /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def product_ceiling(device: str, dtype: torch.dtype) -> float:
    """Return GFLOP/s of the best product of large matrices: ten, or as many as start within 2 s."""
    size = 8192 if device.startswith("cuda") else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best, until = np.inf, time.perf_counter() + 2
    for _ in range(10):
        begun = time.perf_counter()
        (a @ b)[0, 0].item()  # which waits for the device
        best = min(best, time.perf_counter() - begun)
        if time.perf_counter() > until:
            break
    return 2 * size**3 / best / 1e9


def ratios(rows: list[Row]) -> list[str]:
    """Return each side's speed over the others', median (lowest to highest) of the turns."""
    by_side: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_side[row.side].append(row)
    lines = []
    for name in ("plain-1", "plain-16", "ours"):
        for side, runs in by_side.items():
            if name in by_side and side != name and (name != "ours" or "plain" not in side):
                pairs = list(zip(by_side[name], runs, strict=False))  # one may have failed
                wall = [a.wall_s / b.wall_s for a, b in pairs]
                cpu = [a.cpu_s / b.cpu_s for a, b in pairs]
                lines.append(
                    f"{side} is {median(wall):.2f} ({min(wall):.2f} to {max(wall):.2f}) times as "
                    f"fast as {name}; by processor time {median(cpu):.2f} ({min(cpu):.2f} to "
                    f"{max(cpu):.2f})"
                )
    return lines
