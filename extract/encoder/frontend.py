"""Turn waveforms of unequal length into frames that depend neither on each other nor on padding.

There are two front ends with the same interface: `prepare` makes a padded batch and the length of
each row, `frames` returns how many real frames rows of given lengths have, and calling the front
end turns the batch into the input of the model's feature projection. `shortest` is the fewest
samples that make one frame. A prepared row may be cut into windows along its second axis.

`Waveforms` is for wav2vec2 and its relatives. It closes the two places where a batch could affect
a segment: each waveform is normalised over its own samples, and group norm over time counts real
positions only. `LogMel` is for w2v-BERT 2.0, whose feature extractor sees one segment at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ...common.audio.decoding import int16_to_float32
from ...common.errors import InputError
from .device import DeviceTransfer
from .pooling import PaddingMask

EPSILON = 1e-7  # added to the variance, as transformers' Wav2Vec2FeatureExtractor does
# Log-mel frames, as in transformers' SeamlessM4TFeatureExtractor (Kaldi's defaults): samples per
# window, per hop and per Fourier transform; pre-emphasis; the lowest power of a mel bin
WINDOW, HOP, TRANSFORM = 400, 160, 512
EMPHASIS = 0.97
FLOOR = float(np.finfo(np.float32).eps)


class Waveforms:
    """Front end of wav2vec2 and relatives: convolutions over samples. Batches are (n, samples)."""

    def __init__(self, model: Any, *, normalized: bool) -> None:
        self._layers = model.feature_extractor.conv_layers
        self.normalized = normalized
        self.shortest = receptive_field(self._layers)

    def prepare(
        self, waveforms: Sequence[np.ndarray], lane: DeviceTransfer
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch (n, samples) on the device, and lengths (n,) in samples on the CPU."""
        batch, lengths = pad(waveforms, lane)
        if batch.dtype == torch.int16:
            batch = batch.float() / 32768
        return normalize(batch, lengths) if self.normalized else batch, lengths

    def frames(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return how many frames rows of these lengths (n,), in samples, have."""
        return frame_counts(self._layers, lengths)

    def __call__(self, batch: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return (n, frames, channels)."""
        return convolve(self._layers, batch, lengths)


class LogMel:
    """Front end of w2v-BERT 2.0: log-mel frames. Batches are (n, frames, channels).

    The numbers are those of transformers' SeamlessM4TFeatureExtractor for a single segment, with
    its window and filters, but computed for all rows at once on the device. As there, everything is
    computed in float64 and rounded in two places: in a float32 transform, a loud band would drown a
    quiet one.
    """

    def __init__(self, extractor: Any) -> None:  # transformers' SeamlessM4TFeatureExtractor
        self._window = torch.from_numpy(np.asarray(extractor.window, dtype=np.float64))
        self._filters = torch.from_numpy(np.asarray(extractor.mel_filters, dtype=np.float64))
        self._stride = int(extractor.stride)
        self.shortest = WINDOW + max(self._stride - 1, 1) * HOP  # one frame has no variance

    def prepare(
        self, waveforms: Sequence[np.ndarray], lane: DeviceTransfer
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch (n, frames, channels) on the device, and frames (n,) on the CPU.

        Rows are not padded to a multiple of the stride, as the extractor does by default: its mask
        drops a frame that is half padding, so none is made.
        """
        batch, lengths = pad(waveforms, lane)
        counts = (lengths - WINDOW) // HOP + 1
        frames, whole = counts // self._stride, int(counts.max()) // self._stride
        scale = 1.0 if batch.dtype == torch.int16 else 32768.0
        with torch.autocast(batch.device.type, enabled=False):
            mels = normalize_bins(self._log_mels(batch.double() * scale), counts)
        mels = mels[:, : whole * self._stride].unflatten(1, (whole, self._stride)).flatten(2)
        return PaddingMask(frames, whole, mels.device).only(mels).float(), frames

    def _log_mels(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the log power (n, windows, bins) of the mel bands in each window."""
        self._window, self._filters = (
            table.to(batch.device) for table in (self._window, self._filters)
        )
        windows = batch.unfold(1, WINDOW, HOP)
        windows = windows - windows.mean(2, keepdim=True)
        before = torch.cat([windows[..., :1], windows[..., :-1]], dim=2)
        windows = torch.sub(windows, before, alpha=EMPHASIS).mul_(self._window)
        spectrum = torch.fft.rfft(windows, n=TRANSFORM).to(torch.complex64)  # as the extractor
        power = spectrum.real.double().square() + spectrum.imag.double().square()
        return (power @ self._filters).clamp(min=FLOOR).log().float().double()  # rounded here, too

    def frames(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return `lengths` (n,), which are frames already."""
        return lengths

    def __call__(self, batch: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the batch unchanged, as `prepare` has done all the work."""
        return batch


def normalize_bins(mels: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Give each bin of each row (n, windows, bins) zero mean and unit variance over its `counts`.

    The variance has the divisor count - 1, and the mean is rounded to float32, both as in the
    extractor: with only two frames, the difference shows.
    """
    real = PaddingMask(counts, mels.shape[1], mels.device)
    count = real.count.to(mels.dtype)[:, None, None]
    mean = real.only(mels).sum(1, keepdim=True) / count
    centred = mels - mean.float()
    variance = real.only(centred).square().sum(1, keepdim=True) / (count - 1)
    return centred * (variance + EPSILON).rsqrt()


def check_lengths(waveforms: Sequence[np.ndarray], shortest: int) -> None:
    """Raise `InputError` if a waveform has fewer than `shortest` samples."""
    short = [i for i, waveform in enumerate(waveforms) if len(waveform) < shortest]
    if short:
        raise InputError(
            f"waveform {short[0]}: samples are {len(waveforms[short[0]])}, expected at least "
            f"{shortest}; leave it out"
        )


def pad(rows: Sequence[np.ndarray], lane: DeviceTransfer) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows (length, ...) as a batch (n, length, ...) on the device, and lengths (n,).

    The batch is int16 if all rows are, else float32.
    """
    lengths = torch.tensor([len(row) for row in rows])
    whole = all(row.dtype == np.int16 for row in rows)
    shape = (len(rows), int(lengths.max()), *rows[0].shape[1:])
    batch = lane.empty(shape, torch.int16 if whole else torch.float32)
    for place, row in zip(batch, rows, strict=True):
        place[: len(row)] = torch.from_numpy(row if whole else int16_to_float32(row))
        place[len(row) :] = 0
    return lane.to_device(batch), lengths


def normalize(batch: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Give each row (n, samples) zero mean and unit variance over its own samples; padding is 0."""
    real = PaddingMask(lengths, batch.shape[1], batch.device)
    count = real.count[:, None]
    centred = real.only(batch - batch.sum(1, keepdim=True) / count)  # padding adds 0
    return centred * (centred.square().sum(1, keepdim=True) / count + EPSILON).rsqrt()


def frame_counts(layers: Iterable[Any], samples: torch.Tensor) -> torch.Tensor:
    """Return how many frames the convolutions make of rows of `samples` (n,) samples."""
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
    """Run a front end of wav2vec2's kind: batch (n, samples) to (n, frames, channels).

    No convolution pads, so a real frame depends on real samples only; group norm is the one
    exception. Channels come last throughout: the layers' norms then need no transposed copies, and
    a convolution is a matrix product.
    """
    states = batch[..., None]
    for layer in layers:
        lengths = _positions(layer.conv, lengths)
        states = convolution(layer.conv, states)
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, nn.GroupNorm):
            states = group_norm(norm, states, lengths)
        elif norm is not None:
            states = norm(states)
        states = layer.activation(states)
    return states


def convolution(conv: nn.Conv1d, states: torch.Tensor) -> torch.Tensor:
    """Convolve states (n, time, channels) without padding: (n, positions, out channels).

    In float32, a window of `stride` steps is a matrix row that needs no copy, and a longer window
    is the sum of two such products. Narrower formats would be rounded between the two, so there the
    windows are copied; so are windows over samples, where the products are thin. Under autocast,
    states are converted to its format before they are copied, whatever the norm before returned.
    """
    states = states.to(product_dtype(states))
    size, stride = conv.kernel_size[0], conv.stride[0]
    count = (states.shape[1] - size) // stride + 1
    whole = states.dtype != torch.float32 or states.shape[2] == 1
    step = size if whole else stride
    total: Any = conv.bias  # the bias, then the sum of the products so far
    for first in range(0, size, step):
        wide = min(step, size - first)
        rows = states[:, first:].as_strided(
            (len(states), count, wide * states.shape[2]),
            (states.stride(0), stride * states.stride(1), 1),
        )
        weight = conv.weight[:, :, first : first + wide].transpose(1, 2).flatten(1)
        total = _product(rows.contiguous() if whole else rows, weight, total)
    return total


def product_dtype(states: torch.Tensor) -> torch.dtype:
    """Return the format in which products of states are computed: theirs, or that of autocast."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


def _product(rows: torch.Tensor, weight: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
    """Return rows (n, count, d) times weight (out, d), plus a bias (out,) or an earlier product."""
    if added is None or added.dim() == 1:
        return functional.linear(rows, weight, added)
    return added.baddbmm_(rows, weight.t().expand(len(rows), -1, -1))


def group_norm(norm: nn.GroupNorm, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Normalise states (n, time, channels), one group per channel, over real positions only."""
    real = PaddingMask(lengths, states.shape[1], states.device)
    count = real.count[:, None, None]
    wide = states.float()
    centred = wide - real.only(wide).sum(1, keepdim=True) / count
    variance = real.only(centred).square().sum(1, keepdim=True) / count
    scale = (variance + norm.eps).rsqrt() * norm.weight.float()
    return torch.addcmul(norm.bias.float(), centred, scale).to(states.dtype)


def _positions(conv: nn.Conv1d, lengths: torch.Tensor) -> torch.Tensor:
    return (lengths - conv.kernel_size[0]) // conv.stride[0] + 1
