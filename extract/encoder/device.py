"""The device, its number format and memory, and the transfer of data to and from it."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from ...common.errors import InputError

DTYPES = ("auto", "float32", "bfloat16", "float16")


ONE = "auto, cpu, cuda or cuda:1"
SEVERAL = "auto, cpu, cuda, cuda:1, cuda:all or a list such as cuda:0,cuda:1"


def choose_device(name: str, expected: str = ONE) -> torch.device:
    """Return the device of that name, or raise `InputError` if it does not exist.

    `expected` is the EXPECTED part of the error.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device: value is {name!r}, expected {expected}; correct it")
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= count:
        raise InputError(
            f"--device: {name!r} is not there, found {count} GPUs; pass --device cpu or install "
            "torch for this GPU"
        )
    return device


def choose_devices(names: str) -> list[str]:
    """Return the single devices of ``cuda:all`` or of a list such as ``cuda:0,cuda:1``.

    Raises
    ------
    InputError
        One of them does not exist, or they are not all of one type.
    """
    devices = names.split(",")
    if names == "cuda:all":
        devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cuda"]
    types = {choose_device(name, SEVERAL).type for name in devices}
    if len(types) > 1:
        raise InputError(
            f"--device: value is {names!r}, of types {sorted(types)}, expected one type, for "
            "rows that are alike; correct it"
        )
    return devices


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the number format to compute in, or raise `InputError` if `device` lacks it."""
    if name not in DTYPES:
        raise InputError(f"--dtype: value is {name!r}, expected one of {list(DTYPES)}; correct it")
    if name == "auto":
        ampere = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if ampere else torch.float32
    if name == "float16" and device.type == "cpu":
        raise InputError(
            "--dtype: value is 'float16' on a CPU, expected float32 or bfloat16 there (float16 is "
            "emulated, a hundred times slower); pass --dtype float32"
        )
    return getattr(torch, name)


def out_of_memory(problem: Exception) -> bool:
    """Return whether torch could not allocate; on a GPU, free its reserve."""
    exhausted = isinstance(problem, torch.cuda.OutOfMemoryError) or "can't allocate" in str(problem)
    if exhausted and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return exhausted


def carried(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Copy a small CPU tensor to a device without waiting for it."""
    pinned = torch.device(device).type == "cuda"  # a copy from pageable memory would wait
    return (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=True)


class DeviceTransfer:
    """Transfers of batches to a device, and of features back, in parallel with its computing.

    On a GPU each direction has its own stream and pinned memory; on a CPU nothing is copied.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._gpu = device.type == "cuda"
        if self._gpu:
            self._going, self._coming = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """Return CPU memory for a batch that goes `to_device`."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._gpu)

    def to_device(self, batch: torch.Tensor) -> torch.Tensor:
        """Return a batch on the device; work queued later waits for it."""
        if not self._gpu:
            return batch.to(self.device)  # no copy on a CPU
        with torch.cuda.stream(self._going):
            moved = batch.to(self.device, non_blocking=True)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self._going)
        moved.record_stream(computing)
        return moved

    def to_host(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Send a tensor to the CPU; return a function that waits for it and returns it."""
        if not self._gpu:
            return lambda: tensor
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        arrived = torch.cuda.Event(blocking=True)
        self._coming.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._coming):
            host.copy_(tensor, non_blocking=True)
            arrived.record()
        tensor.record_stream(self._coming)

        def wait() -> torch.Tensor:
            arrived.synchronize()
            return host

        return wait


ALONE = 1 << 15  # size from which torch divides the work between its threads


def convert(target: np.ndarray, values: np.ndarray) -> float:
    """Copy a 3-D array into one of another number format, rounded to the nearest.

    numpy converts to float16 without the processor's instruction for it, ten times as slowly as
    torch. The parts are too small for torch to start threads: the caller is one of many.

    Returns
    -------
    float
        The largest magnitude of `values`; NaN if one is NaN.
    """
    rows = max(1, (ALONE - 1) // values.shape[2])  # rows of a part
    step = max(1, rows // values.shape[1])  # layers of a part
    largest = []
    for first in range(0, len(values), step):
        for row in range(0, values.shape[1], rows):
            part = np.s_[first : first + step, row : row + rows]
            largest += [values[part].max(), -values[part].min()]
            torch.from_numpy(target[part]).copy_(torch.from_numpy(values[part]))
    return float(np.max(largest))


# Elements per second of audio at the peak, in the front end: 3200 positions of 512 channels
# for the first convolution, norm and activation, and the second's windows and output.
POSITIONS = (3200 * 3 + 1600 * 4) * 512
CPU_SECONDS = 20.0  # a CPU is fastest while a batch stays near its caches
GPU_SECONDS = 480.0  # with less, an H200 waits for the host's launches; more only takes memory
SPARE = 0.5  # share of the free memory for a batch; the next one is prepared beside it


def default_batch_seconds(device: torch.device, dtype: torch.dtype, sharing: int = 1) -> float:
    """Return the seconds of audio that suit a batch on this device, given its free memory.

    On a GPU, `sharing` processes share the memory.
    """
    if device.type == "cpu":
        return CPU_SECONDS
    return batch_seconds_for_memory(torch.cuda.mem_get_info(device)[0] // sharing, dtype.itemsize)


def shared_batch_seconds(names: Sequence[str], dtype: str) -> float:
    """Return the seconds of audio that suit a batch on all these devices; frees reserves."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    devices = [choose_device(name) for name in names]
    counts = Counter((device.type, device.index or 0) for device in devices)
    return min(
        default_batch_seconds(device, getattr(torch, dtype), counts[device.type, device.index or 0])
        for device in devices
    )


def threads_each(count: int) -> int:
    """Return how many of this machine's threads each of `count` processes may use."""
    return max(1, torch.get_num_threads() // count)


def set_threads_and_device(name: str, threads: int) -> None:
    """Limit this process to `threads` threads, and make that GPU its default device."""
    torch.set_num_threads(threads)
    device = choose_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)


def batch_seconds_for_memory(free: int, itemsize: int) -> float:
    """Return how many s of audio a batch may hold with `free` bytes of memory; at least 1.

    Examples
    --------
    >>> [batch_seconds_for_memory(gib << 30, itemsize=2) for gib in (4, 80)]
    [131.0, 480.0]
    """
    return max(1.0, min(GPU_SECONDS, float(SPARE * free // (POSITIONS * itemsize))))


# Parameters of glibc's malloc.h, their values while a CPU works, and their values afterwards: the
# limits that glibc itself reaches in a process that has freed large blocks.
TRIM, MAP_FROM, MAPS = -1, -3, -4  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX
WORKING = {TRIM: 2**31 - 1, MAPS: 0}
RESTING = {TRIM: 64 << 20, MAP_FROM: 32 << 20, MAPS: 65536}


@contextmanager
def keep_freed_memory(device: torch.device) -> Iterator[None]:
    """Within this context, memory freed by CPU tensors is kept for the next ones.

    By default the C library returns the largest blocks to the system, which must clear every page
    again for the next one. Without glibc nothing changes.
    """
    library = ctypes.CDLL(None) if device.type == "cpu" else None
    if library is None or not hasattr(library, "mallopt"):
        yield
        return
    _set(library, WORKING)
    try:
        yield
    finally:
        _set(library, RESTING)
        library.malloc_trim(0)


def _set(library: ctypes.CDLL, values: Mapping[int, int]) -> None:
    for name, value in values.items():
        library.mallopt(name, value)
