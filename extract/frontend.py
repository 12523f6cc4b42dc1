"""Waveforms of unequal length become frames that know nothing of each other or of the padding.

Two front ends, alike to use: `prepare` makes a padded batch and each row's length, `frames` says
how many real frames so long a row gives, and a call turns the batch into the input of the model's
feature projection. `shortest` is the fewest samples that make one frame. A prepared row may be
cut into windows along its second axis.

`Waveforms` is wav2vec2's kind. Two places where a batch could leak into a segment are closed
there: the waveform is normalised over its own samples, and group norm over time counts real
positions only. `LogMel` is that of w2v-BERT 2.0, whose feature extractor sees one segment at a
time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .pooling import real

EPSILON = 1e-7  # added to the variance, as transformers' Wav2Vec2FeatureExtractor does
WINDOW, HOP = 400, 160  # samples of a log-mel frame, as transformers' SeamlessM4TFeatureExtractor


class Waveforms:
    """Front end of wav2vec2's kind: convolutions over samples. Batches are (n, samples)."""

    def __init__(self, model: Any, *, normalized: bool) -> None:
        self._layers = model.feature_extractor.conv_layers
        self.normalized = normalized
        self.shortest = receptive_field(self._layers)

    def prepare(
        self, waveforms: Sequence[np.ndarray], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch (n, samples) on the device, and lengths (n,) in samples on the CPU."""
        batch, lengths = pad(waveforms, device)
        return normalize(batch, lengths) if self.normalized else batch, lengths

    def frames(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return how many frames so many samples (n,) give."""
        return frame_counts(self._layers, lengths)

    def __call__(self, batch: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return (n, frames, channels)."""
        return convolve(self._layers, batch, lengths)


class LogMel:
    """Front end of w2v-BERT 2.0: its own feature extractor. Batches are (n, frames, channels)."""

    def __init__(self, extractor: Any) -> None:  # transformers' SeamlessM4TFeatureExtractor
        self._extractor = extractor
        self.shortest = WINDOW + (extractor.stride - 1) * HOP

    def prepare(
        self, waveforms: Sequence[np.ndarray], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch (n, frames, channels) on the device, and frames (n,) on the CPU."""
        return pad([self._features(waveform) for waveform in waveforms], device)

    def _features(self, waveform: np.ndarray) -> np.ndarray:
        """Return (frames, channels) float32 of one segment alone.

        Not padded to a multiple of the stride: the extractor's mask leaves out a frame that is
        half padding, and without padding the extractor makes none.
        """
        found = self._extractor(
            waveform,
            sampling_rate=self._extractor.sampling_rate,
            pad_to_multiple_of=None,
            return_tensors="np",
        )
        return found["input_features"][0]

    def frames(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return `lengths` (n,), which are frames already."""
        return lengths

    def __call__(self, batch: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the batch, which the extractor made whole."""
        return batch


def pad(
    rows: Sequence[np.ndarray], device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows (length, ...) as a batch (n, length, ...) float32 on the device, and lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    batch = torch.zeros(len(rows), int(lengths.max()), *rows[0].shape[1:], dtype=torch.float32)
    for place, row in zip(batch, rows, strict=True):
        place[: len(row)] = torch.from_numpy(row)
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
