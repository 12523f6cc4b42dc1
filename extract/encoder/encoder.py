"""A frozen speech encoder: waveforms to layer-wise features that do not depend on their batch.

State 0 enters the first transformer layer, state k leaves layer k, and the last state is the
encoder's output, after its final layer norm where it has one (`LAYER_DEFINITION`): as s3prl,
fairseq and transformers 4 number them. transformers 5 gives the last one before the norm.
w2v-BERT has no norm after its layers, and what may follow them (an adapter) is left out.

Promise: in float32 a segment's features differ by less than 1e-5 (relative) between one batch
and another, whether the front end has layer norm, group norm or log-mel features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ...common.errors import InputError
from ..profiling import Profile, StageTimer
from .device import (
    DeviceTransfer,
    choose_device,
    choose_dtype,
    default_batch_seconds,
    keep_freed_memory,
)
from .frontend import check_lengths
from .kernels import disable_tf32
from .loading import LoadedEncoder, load_encoder_parts
from .pooling import PaddingMask, Pooled, check_pooling, merge_windows, pool, restore_order
from .transformer import Take, check_layers, first_output, for_each_layer
from .varlen import pack, varlen_kernel

LAYER_DEFINITION = (
    "0 enters the first transformer layer, k leaves layer k, the last is after the final layer norm"
)


def load_encoder(
    name: str,
    *,
    revision: str | None = None,
    normalize: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Encoder:
    """Load a frozen encoder.

    Parameters
    ----------
    name
        Local folder, hub id, or ``demo``: a tiny untrained encoder made from a seed.
    revision
        Branch, tag or commit of a hub id.
    normalize
        ``yes`` or ``no``: whether waveforms are normalised, whatever the encoder's files say.
    device
        ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
    dtype
        ``auto`` is bfloat16 on a GPU that computes in it, else float32: on a CPU bfloat16 is
        faster where there is AVX512-BF16 or AMX, but only float32 keeps the promise above.

    Raises
    ------
    InputError
        The encoder is not at hand or not of a known kind, or the device can't do what is asked.
    """
    where = choose_device(device)
    number = choose_dtype(dtype, where)
    parts = load_encoder_parts(name, revision=revision, normalize=normalize)
    return Encoder(parts, device=where, dtype=number)


class Encoder:
    """A frozen encoder on its device.

    Attributes
    ----------
    layer_count
        Number of transformer layers; states are 0 to `layer_count`.
    hidden_size
        Width of a state.
    rate
        Sample rate in Hz.
    shortest
        Fewest samples that make one frame.
    notes
        What the user should read of its files, a line each.
    batch_seconds
        Audio in a batch that suits the device and its free memory, in s.
    """

    def __init__(
        self,
        parts: LoadedEncoder,
        *,
        device: torch.device,
        dtype: torch.dtype,
        masked: bool = False,
    ) -> None:
        """Put an encoder on its device; `masked` keeps the mask where attention needs none."""
        self._masked = masked
        self._model = parts.model.eval().requires_grad_(False).to(device, dtype)
        self._provenance = parts.provenance
        self._front, self.notes = parts.front, parts.notes
        self.device, self._dtype = device, dtype
        self.layer_count = len(self._model.encoder.layers)
        self.hidden_size = int(self._model.config.hidden_size)
        self.rate = parts.rate
        self.shortest = parts.front.shortest
        self.batch_seconds = default_batch_seconds(device, dtype)
        self._stages = StageTimer(device)
        self._lane = DeviceTransfer(device)

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the encoder and the way it computes."""
        return {
            **self._provenance,
            "compute_dtype": str(self._dtype).removeprefix("torch."),
            "layer_definition": LAYER_DEFINITION,
            "layer_count": self.layer_count,
            "hidden_size": self.hidden_size,
            "rate": self.rate,
        }

    @contextmanager
    def session(self, spans: Profile | None = None) -> Iterator[None]:
        """Keep memory for the next batch while open; measure the stages into `spans`."""
        with keep_freed_memory(self.device), self._stages.recording(spans):
            yield

    def frames_of(self, seconds: float) -> int:
        """Return how many frames so much audio gives."""
        return int(self._front.frames(torch.tensor([round(seconds * self.rate)])))

    def encode(
        self,
        waveforms: Sequence[np.ndarray],
        *,
        layers: Sequence[int],
        pooling: str = "mean+std",
        max_seconds: float = math.inf,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return pooled states of each waveform.

        Parameters
        ----------
        waveforms
            Mono float32 at `rate`, each with at least `shortest` samples.
        layers
            Numbers of states, 0 to `layer_count`.
        pooling
            One of `POOLINGS`.
        max_seconds
            A longer waveform is encoded in equal windows whose statistics add up; at least twice
            `shortest`.

        Returns
        -------
        tuple
            Features (n, layers, dim) float32, and the number of frames (n,) int64.
        """
        return self.encode_async(waveforms, layers, pooling, max_seconds)()

    def encode_async(
        self,
        waveforms: Sequence[np.ndarray],
        layers: Sequence[int],
        pooling: str,
        max_seconds: float,
    ) -> Callable[[], Pooled]:
        """Tell the device to do what `encode` does; return what waits for it and gives it.

        A GPU then works while the next batch is made ready. On a CPU it is done at once.
        """
        self._check(waveforms, layers, max_seconds)
        check_pooling(pooling)
        short, long = self._by_length(waveforms, max_seconds)
        parts = []
        if short:
            batch, lengths = self._prepared([waveforms[i] for i in short])
            parts = [(short, self._pooled(batch, lengths, layers, pooling))]
        parts += [([i], self._windows(waveforms[i], layers, pooling, max_seconds)) for i in long]
        return parts[0][1] if short and not long else lambda: restore_order(parts)

    def states(
        self,
        waveforms: Sequence[np.ndarray],
        *,
        layers: Sequence[int],
        max_seconds: float = math.inf,
    ) -> list[np.ndarray]:
        """Return each waveform's own states, (frames, layers, hidden_size) float32."""
        self._check(waveforms, layers, max_seconds)
        found: dict[int, np.ndarray] = {}
        short, long = self._by_length(waveforms, max_seconds)
        if short:
            states = self._whole(*self._prepared([waveforms[i] for i in short]), layers)
            found.update(zip(short, states, strict=True))
        for i in long:
            parts = [
                self._whole(window, torch.tensor([window.shape[1]]), layers)[0]
                for window in self._cut(waveforms[i], max_seconds)
            ]
            found[i] = np.concatenate(parts)
        return [found[i] for i in range(len(waveforms))]

    def _by_length(
        self, waveforms: Sequence[np.ndarray], max_seconds: float
    ) -> tuple[list[int], list[int]]:
        """Return the places of the waveforms up to, and of those beyond, `max_seconds`."""
        long = [i for i, row in enumerate(waveforms) if len(row) > max_seconds * self.rate]
        return [i for i in range(len(waveforms)) if i not in set(long)], long

    def _check(
        self, waveforms: Sequence[np.ndarray], layers: Sequence[int], max_seconds: float
    ) -> None:
        check_layers(layers, self.layer_count)
        check_lengths(waveforms, self.shortest)
        least = 2 * self.shortest / self.rate  # equal windows may be half as long as allowed
        if not max_seconds >= least:
            raise InputError(
                f"--max-seconds: value is {max_seconds} s, expected at least {least} s; pass more"
            )

    @torch.inference_mode()
    def _prepared(self, waveforms: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        with self._stages("transfer"):
            return self._front.prepare(waveforms, self._lane)

    def _cut(self, waveform: np.ndarray, max_seconds: float) -> list[torch.Tensor]:
        """Prepare a waveform as a whole; cut it into equal windows (1, length, ...)."""
        batch, _ = self._prepared([waveform])
        count = math.ceil(len(waveform) / (max_seconds * self.rate))
        return list(torch.tensor_split(batch, count, dim=1))

    def _windows(
        self, waveform: np.ndarray, layers: Sequence[int], pooling: str, max_seconds: float
    ) -> Callable[[], Pooled]:
        inner = "mean+std" if pooling == "std" else pooling
        parts = [
            self._pooled(window, torch.tensor([window.shape[1]]), layers, inner)
            for window in self._cut(waveform, max_seconds)
        ]

        def whole() -> Pooled:
            found = [part() for part in parts]
            frames = np.concatenate([counts for _, counts in found])
            merged = merge_windows(np.concatenate([rows for rows, _ in found]), frames, inner)[None]
            kept = merged[..., -self.hidden_size :] if pooling == "std" else merged
            return kept, frames.sum(keepdims=True)

        return whole

    def _pooled(
        self, batch: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int], pooling: str
    ) -> Callable[[], Pooled]:
        frames = self._front.frames(lengths)
        known = PaddingMask(frames, int(frames.max()), self.device)
        kept: dict[int, torch.Tensor] = {}

        def take(layer: int, states: torch.Tensor) -> None:
            with self._stages("pooling"):
                kept[layer] = pool(states, known, pooling)

        self._visit(batch, lengths, known, layers, take)
        with self._stages("transfer"):
            arriving = self._lane.to_host(torch.stack([kept[layer] for layer in layers], dim=1))
        return lambda: (arriving(), frames.numpy())

    def _whole(
        self, batch: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]
    ) -> list[np.ndarray]:
        kept: dict[int, torch.Tensor] = {}

        def take(layer: int, states: torch.Tensor) -> None:
            kept[layer] = states

        frames = self._front.frames(lengths)
        real = PaddingMask(frames, int(frames.max()), self.device)
        self._visit(batch, lengths, real, layers, take)
        states = torch.stack([kept[layer] for layer in layers], dim=2).cpu().float().numpy()
        return [row[:count] for row, count in zip(states, frames.tolist(), strict=True)]

    @torch.inference_mode()
    def _visit(
        self,
        batch: torch.Tensor,
        lengths: torch.Tensor,
        real: PaddingMask,
        layers: Sequence[int],
        take: Take,
    ) -> None:
        """Run the encoder over a prepared batch; states pass through `take`.

        There is no mask for rows of equal length, which keeps the fast attention kernels.
        """
        transformer = self._model.encoder
        kernel = None if self._masked else varlen_kernel(transformer, self.device, self._dtype)
        with disable_tf32(self._dtype):
            with self._stages("CNN"):
                hidden = self._front(batch.to(self._dtype), lengths)
            with self._stages("layers"):
                hidden = first_output(self._model.feature_projection(hidden))
                for_each_layer(transformer, hidden, real.mask, layers, take, pack(real, kernel))
