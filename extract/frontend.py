"""Waveforms of unequal length become frames that know nothing of each other or of the padding.

Two places where a batch could leak into a segment are closed here: the waveform is normalised
over its own samples, and group norm over time counts real positions only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from .pooling import real

EPSILON = 1e-7  # added to the variance, as transformers' Wav2Vec2FeatureExtractor does


def pad(
    waveforms: list[np.ndarray], device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch (n, samples) float32 on the device, and lengths (n,) on the CPU."""
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    batch = torch.zeros(len(waveforms), int(lengths.max()), dtype=torch.float32)
    for row, waveform in zip(batch, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    return batch.to(device, non_blocking=True), lengths


def normalize(batch: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Give each row (n, samples) zero mean and unit variance over its own samples; padding is 0."""
    mask = real(lengths, batch.shape[1], batch.device)
    count = lengths.to(batch.device)[:, None].float()
    mean = torch.where(mask, batch, 0.0).sum(1, keepdim=True) / count
    centred = torch.where(mask, batch - mean, 0.0)
    return centred * (centred.square().sum(1, keepdim=True) / count + EPSILON).rsqrt()


def frame_counts(layers: Iterable[Any], samples: torch.Tensor) -> torch.Tensor:
    """Return how many frames the front end's convolutions make of so many samples (n,)."""
    for layer in layers:
        samples = _positions(layer.conv, samples)
    return samples


def receptive_field(layers: Iterable[Any]) -> int:
    """Return the fewest samples that make one frame."""
    field, step = 1, 1
    for layer in layers:
        field += (layer.conv.kernel_size[0] - 1) * step
        step *= layer.conv.stride[0]
    return field


def convolve(layers: Iterable[Any], batch: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Run a wav2vec2-kind front end: batch (n, samples) to (n, frames, channels).

    No convolution pads, so a real frame sees real samples only; group norm is the one exception.
    """
    states = batch[:, None]
    for layer in layers:
        lengths = _positions(layer.conv, lengths)
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, nn.GroupNorm):
            states = layer.activation(group_norm(norm, layer.conv(states), lengths))
        else:
            states = layer(states)
    return states.transpose(1, 2)


def group_norm(norm: nn.GroupNorm, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Normalise states (n, channels, time), one group per channel, over real positions only."""
    if int(lengths.min()) == states.shape[2]:
        return norm(states)
    mask = real(lengths, states.shape[2], states.device)[:, None]
    count = lengths.to(states.device)[:, None, None].float()
    wide = states.float()
    centred = wide - torch.where(mask, wide, 0.0).sum(2, keepdim=True) / count
    variance = torch.where(mask, centred, 0.0).square().sum(2, keepdim=True) / count
    scaled = (centred * (variance + norm.eps).rsqrt()).to(states.dtype)
    return scaled * norm.weight[:, None] + norm.bias[:, None]


def _positions(conv: nn.Conv1d, lengths: torch.Tensor) -> torch.Tensor:
    return (lengths - conv.kernel_size[0]) // conv.stride[0] + 1
