"""Pool a segment's states into one vector per layer: statistics over its own frames, in float32.

``mean``, ``std`` (population form, two passes; 0 for a single frame), ``max``, and ``mean+std``,
the mean followed by the deviation. Statistics of a segment's windows can be merged into those of
the segment (Chan, Golub and LeVeque 1979, eq. 2.1).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...common.errors import InputError
from ..options import POOLINGS, UNPOOLED
from .device import carried

Pooled = tuple[np.ndarray, np.ndarray]  # features (n, layers, dim) and frames (n,)


def check_pooling(pooling: str, *others: str) -> None:
    """Raise `InputError` if `pooling` is neither one of `POOLINGS` nor one of `others`."""
    if pooling not in (*POOLINGS, *others):
        raise InputError(
            f"--pooling: value is {pooling!r}, expected one of {list(POOLINGS)}; correct it"
        )


class PaddingMask:
    """Which positions of a padded batch are real; computed once and used at every layer.

    Attributes
    ----------
    mask
        (n, size) bool on the device, true where real; None if no row is padded.
    lengths
        (n,) on the CPU: each row's length.
    count
        The same, float32 on the device.
    """

    def __init__(self, lengths: torch.Tensor, size: int, device: torch.device | str) -> None:
        """Take `lengths` (n,) on the CPU, to avoid waiting for the device."""
        self.lengths = lengths
        there = carried(lengths, device)
        places = torch.arange(size, device=device)
        self.mask = None if int(lengths.min()) == size else places < there[:, None]
        self.count = there.float()

    def only(self, values: torch.Tensor, filling: float = 0.0) -> torch.Tensor:
        """Return values (n, size) or (n, size, d) with padding replaced by `filling`."""
        if self.mask is None:
            return values
        mask = self.mask if values.dim() == 2 else self.mask[..., None]
        return torch.where(mask, values, filling)

    def deviations(self, values: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Return values (n, size, d) minus each row's mean (n, d) float32; both are 0 at padding.

        In a single pass: at padding the mean is multiplied by 0 before it is subtracted.
        """
        if self.mask is None:
            return values - mean[:, None]
        weights = self.mask[..., None].to(mean.dtype)
        return torch.addcmul(values, mean[:, None], weights, value=-1)


def pool(
    states: torch.Tensor, frames: torch.Tensor | PaddingMask, pooling: str = "mean+std"
) -> torch.Tensor:
    """Pool states (n, time, d) over each row's first `frames` (n,) frames.

    Returns
    -------
    torch.Tensor
        (n, d) float32, or (n, 2 d) for ``mean+std``; ``none`` returns `states` unchanged.
    """
    if pooling == UNPOOLED:
        return states
    mask = (
        frames
        if isinstance(frames, PaddingMask)
        else PaddingMask(frames, states.shape[1], states.device)
    )
    states = states.float() if states.dtype == torch.float64 else states
    if pooling == "max":
        return mask.only(states, -torch.inf).amax(1).float()
    count = mask.count[:, None]
    states = mask.only(states)
    mean = states.sum(1, dtype=torch.float32) / count
    if pooling == "mean":
        return mean
    std = root_sum_square(mask.deviations(states, mean)) / count.sqrt()
    return std if pooling == "std" else torch.cat([mean, std], dim=1)


def root_sum_square(values: torch.Tensor, *, fused: bool | None = None) -> torch.Tensor:
    """Return the root of the sum of squares of values (n, time, d) over time; overwrites them.

    `fused` is a single pass, the default on a GPU; torch's version for CPUs is slow.
    """
    if values.is_cuda if fused is None else fused:
        return torch.linalg.vector_norm(values, dim=1)
    return values.square_().sum(1).sqrt()


def merge_windows(features: np.ndarray, frames: np.ndarray, pooling: str) -> np.ndarray:
    """Merge pooled windows (w, layers, dim) of `frames` (w,) frames each.

    Returns
    -------
    np.ndarray
        (layers, dim) float32. ``std`` alone cannot be merged: pool ``mean+std`` and take one half.
    """
    if pooling == "max":
        return features.max(axis=0)
    share = (frames / frames.sum())[:, None, None]
    wide = features.astype(np.float64)
    if pooling == "mean":
        return (share * wide).sum(axis=0).astype(np.float32)
    mean, std = np.split(wide, 2, axis=2)
    whole = (share * mean).sum(axis=0)
    spread = (share * (std**2 + (mean - whole) ** 2)).sum(axis=0)
    return np.concatenate([whole, np.sqrt(spread)], axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class EncodedPart:
    """Some of a batch's waveforms, or one window of one, whose features the device is sending.

    Attributes
    ----------
    places
        Indices of these waveforms in the batch.
    arrived
        Waits for and returns the pooled states (n, layers, dim), or states (n, time, layers, dim).
    frames
        (n,) int64.
    """

    places: Sequence[int]
    arrived: Callable[[], torch.Tensor]
    frames: np.ndarray


class EncodedBatch:
    """A batch that the device may still be computing; reading its rows waits for them."""

    def __init__(self, parts: Sequence[EncodedPart], pooling: str) -> None:
        self._parts, self._pooling = parts, pooling

    def rows(self) -> list[tuple[np.ndarray, int]]:
        """Return each waveform's features (layers, dim) float32, and how many frames it has.

        Unpooled, features are (frames, layers, dim).
        """
        rows: dict[int, list[tuple[np.ndarray, int]]] = defaultdict(list)
        for part in self._parts:
            features = part.arrived().float().numpy()
            for place, row, count in zip(part.places, features, part.frames.tolist(), strict=True):
                rows[place].append((row if self._pooling != UNPOOLED else row[:count], count))
        return [self._joined(rows[place]) for place in range(len(rows))]

    def result(self) -> Pooled:
        """Return the pooled features of all waveforms, in their order, and their frames."""
        features, frames = zip(*self.rows(), strict=True)
        return np.stack(features), np.array(frames)

    def _joined(self, windows: Sequence[tuple[np.ndarray, int]]) -> tuple[np.ndarray, int]:
        """Return a waveform's features, merged from its consecutive windows."""
        if len(windows) == 1:
            return windows[0]
        features, frames = zip(*windows, strict=True)
        if self._pooling == UNPOOLED:
            return np.concatenate(features), sum(frames)
        whole = "mean+std" if self._pooling == "std" else self._pooling
        merged = merge_windows(np.stack(features), np.array(frames), whole)
        if self._pooling == "std":
            merged = merged[:, merged.shape[1] // 2 :]
        return merged, sum(frames)
