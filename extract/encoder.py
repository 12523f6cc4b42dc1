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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..manifests.table import InputError
from .checkpoint import DEMO, find_checkpoint
from .device import Lane, choose_device, choose_dtype, exact, fitting_seconds
from .frontend import LogMel, Waveforms
from .layers import Take, first, visit_layers
from .pooling import POOLINGS, Real, merge, pool
from .stages import Stages
from .weights import demo_model, load_front_end, load_model

LAYER_DEFINITION = (
    "0 enters the first transformer layer, k leaves layer k, the last is after the final layer norm"
)
Pooled = tuple[np.ndarray, np.ndarray]  # features (n, layers, dim) and frames (n,)


def load_encoder(
    name: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto"
) -> Encoder:
    """Load a frozen encoder.

    Parameters
    ----------
    name
        Local folder, hub id, or ``demo``: a tiny untrained encoder made from a seed.
    revision
        Branch, tag or commit of a hub id.
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
    if name == DEMO:
        model, provenance = demo_model()
        front: Waveforms | LogMel = Waveforms(model, normalized=True)
        return Encoder(model, front, provenance, rate=16000, device=where, dtype=number)
    checkpoint = find_checkpoint(name, revision=revision)
    model = load_model(checkpoint)
    front = load_front_end(checkpoint, model)
    provenance = checkpoint.provenance()
    return Encoder(model, front, provenance, rate=checkpoint.rate, device=where, dtype=number)


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
    batch_seconds
        Audio in a batch that suits the device and its free memory, in s.
    stages
        Where the time goes; measures only while it is told to.
    """

    def __init__(
        self,
        model: Any,  # one of transformers', all shaped alike
        front: Waveforms | LogMel,
        provenance: Mapping[str, Any],
        *,
        rate: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._model = model.eval().requires_grad_(False).to(device, dtype)
        self._provenance = dict(provenance)
        self._front = front
        self._device, self._dtype = device, dtype
        self.layer_count = len(self._model.encoder.layers)
        self.hidden_size = int(self._model.config.hidden_size)
        self.rate = rate
        self.shortest = front.shortest
        self.batch_seconds = fitting_seconds(device, dtype)
        self.stages = Stages(device)
        self._lane = Lane(device)

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
        return self.submit(waveforms, layers=layers, pooling=pooling, max_seconds=max_seconds)()

    def submit(
        self,
        waveforms: Sequence[np.ndarray],
        *,
        layers: Sequence[int],
        pooling: str = "mean+std",
        max_seconds: float = math.inf,
    ) -> Callable[[], Pooled]:
        """Tell the device to do what `encode` does; return what waits for it and gives it.

        A GPU then works while the next batch is made ready. On a CPU it is done at once.
        """
        self._check(waveforms, layers, max_seconds)
        if pooling not in POOLINGS:
            raise InputError(
                f"--pooling: value is {pooling!r}, expected one of {list(POOLINGS)}; correct it"
            )
        short, long = self._by_length(waveforms, max_seconds)
        parts: list[tuple[list[int], Callable[[], Pooled]]] = []
        if short:
            batch, lengths = self._prepared([waveforms[i] for i in short])
            parts.append((short, self._pooled(batch, lengths, layers, pooling)))
        for i in long:
            parts.append(([i], self._windows(waveforms[i], layers, pooling, max_seconds)))
        return parts[0][1] if not long else lambda: _in_order(parts)

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
            batch, lengths = self._prepared([waveforms[i] for i in short])
            found.update(zip(short, self._whole(batch, lengths, layers), strict=True))
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
        wrong = [layer for layer in layers if not 0 <= layer <= self.layer_count]
        if wrong or not len(layers):
            raise InputError(
                f"--layers: value is {wrong or 'empty'}, expected 0 to {self.layer_count}; "
                "ask for layers the encoder has"
            )
        short = [i for i, waveform in enumerate(waveforms) if len(waveform) < self.shortest]
        if short:
            raise InputError(
                f"waveform {short[0]}: samples are {len(waveforms[short[0]])}, expected at least "
                f"{self.shortest}; leave it out"
            )
        least = 2 * self.shortest / self.rate  # equal windows may be half as long as allowed
        if not max_seconds >= least:
            raise InputError(
                f"--max-seconds: value is {max_seconds} s, expected at least {least} s; pass more"
            )

    @torch.inference_mode()
    def _prepared(self, waveforms: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        with self.stages("transfer"):
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
            merged = merge(np.concatenate([rows for rows, _ in found]), frames, inner)[None]
            kept = merged[..., -self.hidden_size :] if pooling == "std" else merged
            return kept, frames.sum(keepdims=True)

        return whole

    def _pooled(
        self, batch: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int], pooling: str
    ) -> Callable[[], Pooled]:
        frames = self._front.frames(lengths)
        known = Real(frames, int(frames.max()), self._device)
        kept: dict[int, torch.Tensor] = {}

        def take(layer: int, states: torch.Tensor) -> None:
            with self.stages("pooling"):
                kept[layer] = pool(states, known, pooling)

        self._visit(batch, lengths, known, layers, take)
        with self.stages("transfer"):
            arriving = self._lane.back(torch.stack([kept[layer] for layer in layers], dim=1))
        return lambda: (arriving(), frames.numpy())

    def _whole(
        self, batch: torch.Tensor, lengths: torch.Tensor, layers: Sequence[int]
    ) -> list[np.ndarray]:
        kept: dict[int, np.ndarray] = {}

        def take(layer: int, states: torch.Tensor) -> None:
            kept[layer] = states.float().cpu().numpy()

        frames = self._front.frames(lengths)
        known = Real(frames, int(frames.max()), self._device)
        self._visit(batch, lengths, known, layers, take)
        states = np.stack([kept[layer] for layer in layers], axis=2)
        return [row[:count] for row, count in zip(states, frames.tolist(), strict=True)]

    @torch.inference_mode()
    def _visit(
        self,
        batch: torch.Tensor,
        lengths: torch.Tensor,
        known: Real,
        layers: Sequence[int],
        take: Take,
    ) -> None:
        """Run the encoder over a prepared batch; states pass through `take`.

        Frames of equal number need no mask, and keep the fast attention kernels.
        """
        with exact(self._device, self._dtype):
            with self.stages("CNN"):
                hidden = self._front(batch.to(self._dtype), lengths)
            with self.stages("layers"):
                hidden = first(self._model.feature_projection(hidden))
                visit_layers(self._model.encoder, hidden, known.mask, layers, take)


def _in_order(parts: Sequence[tuple[list[int], Callable[[], Pooled]]]) -> Pooled:
    """Return the rows of parts, each with the places of its rows, in the order of the places."""
    found = [(places, *wait()) for places, wait in parts]
    order = np.argsort([place for places, _, _ in found for place in places])
    features = np.concatenate([rows for _, rows, _ in found])
    return features[order], np.concatenate([frames for _, _, frames in found])[order]
