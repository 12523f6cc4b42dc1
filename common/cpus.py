"""How many processor cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # where Linux says what a container may use


def available_cores() -> int:
    """Return how many cores this process may use, at least 1.

    Those of the machine, of its affinity (``taskset``, batch systems), or of its container's quota,
    whichever is least; a part of a core counts as one.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota() or cores))


def _quota() -> int | None:
    """Return the cores of a container's quota, rounded up; None where there is none."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            found = " ".join((CGROUP / name).read_text() for name in names).split()
            quota, period = int(found[0]), int(found[1])
        except (OSError, ValueError, IndexError):  # no such file, or "max": no quota
            continue
        if quota > 0 and period > 0:
            return -(-quota // period)
    return None
