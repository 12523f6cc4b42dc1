"""A frozen speech encoder: waveforms to layer-wise features that do not depend on their batch.

State 0 is the input of the first transformer layer, state k the output of layer k. The last state
is the encoder's output, after its final layer norm if it has one (`LAYER_DEFINITION`), as in s3prl,
fairseq and transformers 4; transformers 5 returns the last state before the norm. w2v-BERT has no
norm after its layers, and whatever follows them (an adapter) is left out.

Promise: in float32, a segment's features differ by less than 1e-5 (relative) from one batch to
another, whether the front end has layer norm, group norm or log-mel features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from ...common.errors import InputError
from ..options import UNPOOLED
from ..profiling import device_stage, recording_device
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
from .mfcc import MFCC
from .pooling import EncodedBatch, EncodedPart, PaddingMask, check_pooling, pool
from .transformer import check_layers, first_output, layer_states, run_layers
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
        Local folder, hub id, or one of: ``small``, the encoder that ships with spk, trained on
        4.5 h of speech; ``untrained``, a tiny one made from a seed; ``mfcc``, cepstral
        coefficients, a baseline without weights and with state 0 only.
    revision
        Branch, tag or commit of a hub id.
    normalize
        ``yes`` or ``no``: whether waveforms are normalised, overriding the encoder's files.
    device
        ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1``.
    dtype
        ``auto`` is bfloat16 on a GPU that supports it, else float32: bfloat16 is faster on a CPU
        with AVX512-BF16 or AMX, too, but only float32 keeps the promise above.

    Raises
    ------
    InputError
        The encoder cannot be found or is of an unknown kind, or the device does not support this.
    """
    where = choose_device(device)
    # 8 bits of an untrained number make a worse baseline, and no faster one
    number = choose_dtype("float32" if name == MFCC and dtype == "auto" else dtype, where)
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
        What the user should know about its files, a line each.
    batch_seconds
        Seconds of audio per batch that suit the device and its free memory.
    """

    def __init__(
        self,
        parts: LoadedEncoder,
        *,
        device: torch.device,
        dtype: torch.dtype,
        masked: bool = False,
    ) -> None:
        """Put an encoder on its device; `masked` uses a mask even if the attention needs none."""
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
        self._lane = DeviceTransfer(device)

    def __repr__(self) -> str:
        """Return the encoder and its device, in one line."""
        return (
            f"<Encoder {self._provenance['encoder']}: layers 0 to {self.layer_count}, width "
            f"{self.hidden_size}, {self.rate} Hz, {self.device}>"
        )

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the encoder and the way it is computed."""
        return {
            **self._provenance,
            "compute_dtype": str(self._dtype).removeprefix("torch."),
            "layer_definition": LAYER_DEFINITION,
            "layer_count": self.layer_count,
            "hidden_size": self.hidden_size,
            "rate": self.rate,
        }

    @contextmanager
    def session(self) -> Iterator[None]:
        """Within this context, keep memory for the next batch, and time the device's stages."""
        with keep_freed_memory(self.device), recording_device(self.device):
            yield

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
            A longer waveform is encoded in equal windows whose statistics are merged; at least
            twice `shortest`.

        Returns
        -------
        tuple
            Features (n, layers, dim) float32, and the number of frames (n,) int64.
        """
        return self.encode_async(waveforms, layers, pooling, max_seconds).result()

    def states(
        self,
        waveforms: Sequence[np.ndarray],
        *,
        layers: Sequence[int],
        max_seconds: float = math.inf,
    ) -> list[np.ndarray]:
        """Return the states of each waveform, (frames, layers, hidden_size) float32."""
        batch = self.encode_async(waveforms, layers, UNPOOLED, max_seconds)
        return [states for states, _ in batch.rows()]

    def encode_async(
        self,
        waveforms: Sequence[np.ndarray],
        layers: Sequence[int],
        pooling: str,
        max_seconds: float,
    ) -> EncodedBatch:
        """Start what `encode` does or, with `UNPOOLED`, what `states` does.

        A GPU works while the next batch is prepared. On a CPU the work is done at once.
        """
        self._check(waveforms, layers, max_seconds)
        check_pooling(pooling, UNPOOLED)
        short, long = self._by_length(waveforms, max_seconds)
        parts = []
        if short:
            batch, lengths = self._prepared([waveforms[i] for i in short])
            parts.append(self._forward(short, batch, lengths, layers, pooling))
        windowed = "mean+std" if pooling == "std" else pooling  # deviations alone cannot be merged
        for i in long:
            for window in self._cut(waveforms[i], max_seconds):
                length = torch.tensor([window.shape[1]])
                parts.append(self._forward([i], window, length, layers, windowed))
        return EncodedBatch(parts, pooling)

    def _by_length(
        self, waveforms: Sequence[np.ndarray], max_seconds: float
    ) -> tuple[list[int], list[int]]:
        """Return the indices of the waveforms up to `max_seconds`, and of the longer ones."""
        long = [i for i, row in enumerate(waveforms) if len(row) > max_seconds * self.rate]
        return [i for i in range(len(waveforms)) if i not in set(long)], long

    def _check(
        self, waveforms: Sequence[np.ndarray], layers: Sequence[int], max_seconds: float
    ) -> None:
        check_layers(layers, self.layer_count)
        check_lengths(waveforms, self.shortest)
        least = 2 * self.shortest / self.rate  # equal windows may be half the allowed length
        if not max_seconds >= least:
            raise InputError(
                f"--max-seconds: value is {max_seconds} s, expected at least {least} s; pass more"
            )

    @torch.inference_mode()
    def _prepared(self, waveforms: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        with device_stage("transfer"):
            return self._front.prepare(waveforms, self._lane)

    def _cut(self, waveform: np.ndarray, max_seconds: float) -> list[torch.Tensor]:
        """Prepare a whole waveform, then cut it into equal windows (1, length, ...)."""
        batch, _ = self._prepared([waveform])
        count = math.ceil(len(waveform) / (max_seconds * self.rate))
        return list(torch.tensor_split(batch, count, dim=1))

    @torch.inference_mode()
    def _forward(
        self,
        places: Sequence[int],
        batch: torch.Tensor,
        lengths: torch.Tensor,
        layers: Sequence[int],
        pooling: str,
    ) -> EncodedPart:
        """Run the encoder over a prepared batch, and send the requested states to the CPU.

        Rows of equal length get no mask, so that the fast attention kernels apply.
        """
        frames = self._front.frames(lengths)
        padding = PaddingMask(frames, int(frames.max()), self.device)
        reduce = partial(pool, frames=padding, pooling=pooling)
        transformer, count = self._model.encoder, self.layer_count
        kernel = None if self._masked else varlen_kernel(transformer, self.device, self._dtype)
        with disable_tf32(self._dtype):
            with device_stage("CNN"):
                hidden = self._front(batch.to(self._dtype), lengths)
            with (
                device_stage("layers"),
                layer_states(transformer.layers, layers, reduce) as states,
            ):
                hidden = first_output(self._model.feature_projection(hidden))
                hidden = run_layers(transformer, hidden, padding.mask, pack(padding, kernel))
                with device_stage("pooling"):
                    states[count] = reduce(hidden)
        with device_stage("transfer"):
            stacked = torch.stack([states[layer] for layer in layers], dim=-2)
            return EncodedPart(places, self._lane.to_host(stacked), frames.numpy())
