"""Which device computes, in which number format, and whether its memory was too small."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from ..manifests.table import InputError

DTYPES = ("auto", "float32", "bfloat16", "float16")


def choose_device(name: str) -> torch.device:
    """Return the device of that name, or raise `InputError` where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(
            f"--device: value is {name!r}, expected auto, cpu, cuda or cuda:1; correct it"
        )
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= count:
        raise InputError(
            f"--device: {name!r} is not there, found {count} GPUs; pass --device cpu or install "
            "torch for this GPU"
        )
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the number format to compute in, or raise `InputError` where `device` has it not."""
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


def exact(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """While open, float32 convolutions on a GPU are not rounded to TF32, torch's default there."""
    if device.type != "cuda" or dtype != torch.float32:
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def out_of_memory(problem: Exception) -> bool:
    """Tell whether torch could not allocate; frees what it holds in reserve on a GPU."""
    found = isinstance(problem, torch.cuda.OutOfMemoryError) or "can't allocate" in str(problem)
    if found and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found
