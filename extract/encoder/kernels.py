"""Which of torch's kernels compute an encoder: exact products in float32, attention without plans.

These are settings of torch, which belong to the user's whole program: they are changed for the
time of one pass and then put back as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

EXACT = ("ieee", "none")  # values of fp32_precision that round nothing away; "none" is the default


@contextmanager
def disable_tf32(dtype: torch.dtype) -> Iterator[None]:
    """While open, products and convolutions of float32 numbers are not rounded to fewer bits.

    A program may have told torch to compute them in TF32 or bfloat16, by the older settings
    (`torch.set_float32_matmul_precision`, ``allow_tf32``) or the newer ones (``fp32_precision``);
    for convolutions on a GPU, TF32 is torch's default. Nothing is changed for other formats.
    """
    with ExitStack() as restored:
        if dtype == torch.float32:
            _compute_exactly(restored)
        yield


def _compute_exactly(restored: ExitStack) -> None:
    """Change the settings; `restored` puts them back when it closes.

    An older setting also sets the newer ones below it, so these are put back last.
    """
    newer = _newer_settings()
    for place, above in newer:
        restored.callback(_restore, place, place.fp32_precision, above.fp32_precision)
    if _tf32_in_cudnn():
        restored.callback(setattr, torch.backends.cudnn, "allow_tf32", True)
        torch.backends.cudnn.allow_tf32 = False
    for place, _ in newer:
        if place.fp32_precision not in EXACT:
            place.fp32_precision = "ieee"
    products = torch.get_float32_matmul_precision()  # torch refuses while newer ones contradict it
    if products != "highest":
        restored.callback(torch.set_float32_matmul_precision, products)
        torch.set_float32_matmul_precision("highest")


def _tf32_in_cudnn() -> bool:
    """Return the older setting; false where the newer ones contradict it and torch refuses."""
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        return False


def _newer_settings() -> list[tuple[Any, Any]]:
    """Return what has an ``fp32_precision``, each with what it inherits from where it has none.

    Older releases of torch have none of them.
    """
    backends: Any = torch.backends
    if not hasattr(backends, "fp32_precision"):
        return []
    cuda, cpu = backends.cudnn, backends.mkldnn
    return [
        *((place, cuda) for place in (backends.cuda.matmul, cuda.conv, cuda.rnn)),
        *((place, cpu) for place in (cpu.matmul, cpu.conv)),
    ]


def _restore(place: Any, value: str, above: str) -> None:
    """Set one of the newer settings to what it was; what was inherited is so again."""
    if place.fp32_precision != value:
        place.fp32_precision = "none" if value == above else value


@contextmanager
def no_attention_plans() -> Iterator[None]:
    """While open, attention on a GPU is not cuDNN's, unless the program allows no other.

    cuDNN builds a plan for each shape of a batch and keeps it; here nearly every batch has another
    shape, so building would take longer than computing. The other kernels need no plans.
    """
    backend = torch.backends.cuda
    others = (
        backend.flash_sdp_enabled,
        backend.mem_efficient_sdp_enabled,
        backend.math_sdp_enabled,
    )
    before = backend.cudnn_sdp_enabled()
    backend.enable_cudnn_sdp(before and not any(enabled() for enabled in others))
    try:
        yield
    finally:
        backend.enable_cudnn_sdp(before)
