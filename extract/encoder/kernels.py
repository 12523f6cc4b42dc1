"""Choice of torch kernels: exact float32 products, and attention without cuDNN plans.

These are global torch settings that belong to the user's program, so they are changed only for the
duration of one pass, and then restored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

EXACT = ("ieee", "none")  # values of fp32_precision without rounding; "none" is the default


@contextmanager
def disable_tf32(dtype: torch.dtype) -> Iterator[None]:
    """Within this context, compute float32 products and convolutions at full precision.

    A program may have selected TF32 or bfloat16 through the older settings
    (`torch.set_float32_matmul_precision`, ``allow_tf32``) or the newer ones (``fp32_precision``);
    for convolutions on a GPU, TF32 is torch's default. Other dtypes are not affected.
    """
    with ExitStack() as restored:
        if dtype == torch.float32:
            _compute_exactly(restored)
        yield


def _compute_exactly(restored: ExitStack) -> None:
    """Change the settings; `restored` restores them when it closes.

    An older setting also sets the newer ones below it, so the newer ones are restored last.
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
    products = torch.get_float32_matmul_precision()  # raises while the newer ones contradict it
    if products != "highest":
        restored.callback(torch.set_float32_matmul_precision, products)
        torch.set_float32_matmul_precision("highest")


def _tf32_in_cudnn() -> bool:
    """Return the older setting; false if the newer ones contradict it, so that torch raises."""
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        return False


def _newer_settings() -> list[tuple[Any, Any]]:
    """Return the objects with an ``fp32_precision``, each with the object it inherits from.

    Empty in older releases of torch.
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
    """Restore one of the newer settings; a value that was inherited is inherited again."""
    if place.fp32_precision != value:
        place.fp32_precision = "none" if value == above else value


@contextmanager
def no_attention_plans() -> Iterator[None]:
    """Within this context, avoid cuDNN attention on a GPU, unless no other kernel is enabled.

    cuDNN builds and caches a plan per batch shape; here nearly every batch has another shape, so
    building would take longer than computing. The other kernels need no plans.
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
