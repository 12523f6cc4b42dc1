"""Attention over a padded batch without a mask: its real frames only, packed end to end.

A variable-length kernel (Flash, from `torch.nn.attention.varlen`) knows where each row begins, so
padding is never computed. Queries, keys and values are packed in every layer, since transformers'
encoders expect a batch (n, time, d); the positions of real frames are computed once. During a pass,
the encoder calls `attend` through transformers' registry of attention functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from .device import carried
from .pooling import PaddingMask

NAME = "spk_packed"  # in the registry
# Model types whose attention uses the registry and has no position term, unlike w2v-BERT's.
KINDS = ("wav2vec2", "hubert", "data2vec-audio", "unispeech", "unispeech-sat")
Kernel = Callable[..., Any]  # called like torch's `varlen_attn`, returns a tensor


class Packing(NamedTuple):
    """Positions of a batch's (n, time) real frames, packed end to end, on the device.

    Attributes
    ----------
    places
        (total,) int64: each real frame's index in the flattened batch.
    bounds
        (n + 1,) int32: start of each row among the packed frames, and end of the last.
    longest
        Number of frames of the longest row.
    kernel
        The attention kernel for packed frames.
    """

    places: torch.Tensor
    bounds: torch.Tensor
    longest: int
    kernel: Kernel


def varlen_kernel(encoder: Any, device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """Return the variable-length attention kernel, or None if a mask is needed instead.

    Returns None also if the program has disabled Flash attention.

    Parameters
    ----------
    encoder
        The transformer of an encoder.
    device, dtype
        Device and dtype of the computation.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    head_size = encoder.config.hidden_size // encoder.config.num_attention_heads
    if not _dispatches(encoder) or head_size % 8 or head_size > 256:
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # an older torch
        return None
    backend = torch.backends.cuda
    flash = backend.is_flash_attention_available() and backend.flash_sdp_enabled()
    ampere = torch.cuda.get_device_capability(device) >= (8, 0)
    scales = "scale" in inspect.signature(varlen_attn).parameters  # not in its first release
    return varlen_attn if flash and ampere and scales else None


def _dispatches(encoder: Any) -> bool:
    """Return whether an encoder passes extra arguments on to the registry; older ones do not."""
    parameters = inspect.signature(encoder.forward).parameters.values()
    hands_on = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    return encoder.config.model_type in KINDS and hands_on


def pack(real: PaddingMask, kernel: Kernel | None) -> Packing | None:
    """Return the packing of a batch's real frames; None without padding or a kernel.

    Computed on the CPU, to avoid waiting for the device.
    """
    if real.mask is None or kernel is None:
        return None
    lengths, device = real.lengths, real.mask.device
    places = (torch.arange(real.mask.shape[1]) < lengths[:, None]).flatten().nonzero()[:, 0]
    bounds = functional.pad(lengths.cumsum(0), (1, 0)).int()
    return Packing(carried(places, device), carried(bounds, device), int(lengths.max()), kernel)


@contextmanager
def attention_of(encoder: Any, packing: Packing | None) -> Iterator[dict[str, Packing]]:
    """Within this context, an encoder given the yielded arguments attends to real frames only.

    transformers makes no mask for an attention function that has not registered one. Without a
    packing, the encoder is unchanged.
    """
    if packing is None:
        yield {}
        return
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    before = encoder.config._attn_implementation
    encoder.config._attn_implementation = NAME
    try:
        yield {"packing": packing}
    finally:
        encoder.config._attn_implementation = before


def attend(
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    *,
    packing: Packing,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend among real frames only, with the signature of transformers' registry; no dropout.

    Parameters
    ----------
    query, key, value
        (n, heads, time, head_size).
    packing
        Positions of the real frames. No default: without it, padding would silently count.
    scaling
        Factor on the products of queries and keys.

    Returns
    -------
    tuple
        States (n, time, heads, head_size), 0 at padding, and None for the weights.
    """
    places, bounds, longest, kernel = packing
    packed = [x.transpose(1, 2).flatten(0, 1).index_select(0, places) for x in (query, key, value)]
    states = kernel(*packed, bounds, bounds, longest, longest, scale=scaling)
    n, heads, time, head_size = query.shape
    padded = query.new_zeros(n * time, heads, head_size).index_copy_(0, places, states)
    return padded.unflatten(0, (n, time)), None
