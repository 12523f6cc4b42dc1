"""Which of torch's kernels compute an encoder: exact products in float32, attention without plans.

These are settings of torch, which belong to the user's whole program: they are changed for the
time of one pass and then put back as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

EXACT = ("ieee", "none")  # values of fp32_precision that round nothing away; "none" is the default


@contextmanager
def exact(dtype: torch.dtype) -> Iterator[None]:
    """While open, products and convolutions of float32 numbers are not rounded to fewer bits.

    A program may have told torch to compute them in TF32 or bfloat16, by the older settings
    (`torch.set_float32_matmul_precision`, ``allow_tf32``) or the newer ones (``fp32_precision``);
    for convolutions on a GPU, TF32 is torch's default. Nothing is changed for other formats.
    """
    with ExitStack() as restored:
        if dtype == torch.float32:
            for place, above in _newer_settings():
                restored.callback(_restore, place, place.fp32_precision, above.fp32_precision)
            restored.callback(_set_older, _older_settings())
            _set_older(("highest", False))
            for place, _ in _newer_settings():
                if place.fp32_precision not in EXACT:
                    place.fp32_precision = "ieee"
        yield


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


def _older_settings() -> tuple[str | None, bool | None]:
    """Return the precision of products and whether cuDNN may use TF32.

    None where torch refuses to tell: the program has set both kinds, and they contradict.
    """
    return (
        _readable(torch.get_float32_matmul_precision),
        _readable(lambda: torch.backends.cudnn.allow_tf32),
    )


def _readable(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError:
        return None


def _set_older(values: tuple[str | None, bool | None]) -> None:
    """Set the older settings that can be read and differ; each also sets the newer ones below."""
    products, cudnn = values
    known = _older_settings()
    if products is not None and known[0] not in (None, products):
        torch.set_float32_matmul_precision(products)
    if cudnn is not None and known[1] not in (None, cudnn):
        torch.backends.cudnn.allow_tf32 = cudnn


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
