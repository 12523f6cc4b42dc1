"""Attention over a padded batch without a mask: only its real frames, end to end.

A kernel (Flash, by `torch.nn.attention.varlen`) is told where each row begins, so padding is never
computed. Queries, keys and values are packed in every layer, since transformers' encoders carry a
batch (n, time, d); which frames are real is worked out once. The encoder calls `attend` by a name
in transformers' own registry of attention functions, for the time of a pass.
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
# Kinds whose attention is that of the registry and has no term of positions, unlike w2v-BERT's.
KINDS = ("wav2vec2", "hubert", "data2vec-audio", "unispeech", "unispeech-sat")
Kernel = Callable[..., Any]  # called as `varlen_attn` of torch, gives a tensor


class Packing(NamedTuple):
    """Where the real frames of a batch (n, time) stand end to end, on the device.

    Attributes
    ----------
    places
        (total,) int64: each real frame's place in the batch, counted through all its rows.
    bounds
        (n + 1,) int32: where each row begins among the real frames, and where the last one ends.
    longest
        Frames of the longest row.
    kernel
        What attends to the packed frames.
    """

    places: torch.Tensor
    bounds: torch.Tensor
    longest: int
    kernel: Kernel


def varlen_kernel(encoder: Any, device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """Return what attends over rows of varying length; None where a mask is needed.

    A program that has switched Flash attention off is obeyed.

    Parameters
    ----------
    encoder
        The transformer of an encoder.
    device, dtype
        Where it computes, in which number format.
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
    """Tell whether an encoder hands on to the registry what is passed to it; older ones do not."""
    parameters = inspect.signature(encoder.forward).parameters.values()
    hands_on = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    return encoder.config.model_type in KINDS and hands_on


def pack(real: PaddingMask, kernel: Kernel | None) -> Packing | None:
    """Return where a batch's real frames stand; None without padding or a kernel.

    Worked out on the CPU: the device would have to be waited for.
    """
    if real.mask is None or kernel is None:
        return None
    lengths, device = real.lengths, real.mask.device
    places = (torch.arange(real.mask.shape[1]) < lengths[:, None]).flatten().nonzero()[:, 0]
    bounds = functional.pad(lengths.cumsum(0), (1, 0)).int()
    return Packing(carried(places, device), carried(bounds, device), int(lengths.max()), kernel)


@contextmanager
def attention_of(encoder: Any, packing: Packing | None) -> Iterator[dict[str, Packing]]:
    """While open, an encoder that is called with what this gives attends to `packing` alone.

    transformers makes no mask for an attention function that has registered none. Without a packing
    the encoder is left as it is.
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
    """Attend from and to real frames alone, as transformers' registry has it; without dropout.

    Parameters
    ----------
    query, key, value
        (n, heads, time, head_size).
    packing
        Which frames are real. It has no default: without it padding would count in silence.
    scaling
        What products of queries and keys are multiplied by.

    Returns
    -------
    tuple
        (n, time, heads, head_size), 0 at padding; and no weights.
    """
    places, bounds, longest, kernel = packing
    packed = [x.transpose(1, 2).flatten(0, 1).index_select(0, places) for x in (query, key, value)]
    states = kernel(*packed, bounds, bounds, longest, longest, scale=scaling)
    n, heads, time, head_size = query.shape
    padded = query.new_zeros(n * time, heads, head_size).index_copy_(0, places, states)
    return padded.unflatten(0, (n, time)), None
