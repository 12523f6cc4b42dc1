"""The number of CPU cores available to this process."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # limits of a Linux container


def available_cores() -> int:
    """Return the number of cores available to this process, at least 1.

    The minimum of the machine's cores, the process's affinity (``taskset``, batch systems) and the
    container's quota, which is rounded up.
    """
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS
    cores = len(os.sched_getaffinity(0)) if has_affinity else machine_cores()
    return max(1, min(cores, _quota() or cores))


def machine_cores() -> int:
    """Return the number of cores that the machine has, at least 1."""
    return os.cpu_count() or 1


def _quota() -> int | None:
    """Return the container's quota in cores, rounded up; None without a quota."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            numbers = " ".join((CGROUP / name).read_text() for name in names).split()
            quota, period = int(numbers[0]), int(numbers[1])
        except (OSError, ValueError, IndexError):  # no such file, or "max": no quota
            continue
        if quota > 0 and period > 0:
            return -(-quota // period)
    return None
