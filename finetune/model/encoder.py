"""A partly frozen encoder: a frozen lower part and a trainable upper part, run in two steps.

A boundary divides the transformer. `run_frozen` runs everything below it, which never trains and
builds no graph; `run_trainable` runs the layers above. The output of `run_frozen` may be cached, so
cached and uncached runs share every operation above the boundary. Layers count from 0; state k is
the output of layer k - 1 (see `spk.extract.encoder.encoder`). Frozen parts are in eval mode: no
dropout, no updates of running statistics. Layer drop is off.

From bottom to top: the front end's convolutions; the entry (feature projection, positions and a
norm before the layers); the layers; the exit (a norm after the layers).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...common.errors import InputError
from ...extract.encoder.device import DeviceTransfer, carried
from ...extract.encoder.kernels import no_attention_plans
from ...extract.encoder.loading import LoadedEncoder
from ...extract.encoder.pooling import PaddingMask
from ...extract.encoder.transformer import first_output, mixed_masks, run_layers
from ..config import FinetuneConfig, frozen_layers

FRAME = 0.02  # s from one frame to the next: 320 samples at 16 kHz


@dataclass(frozen=True, eq=False)
class FrozenOutput:
    """Output of the frozen part.

    Attributes
    ----------
    states : {number: (n, time, d)}
        The wanted states below the boundary.
    hidden : (n, time, d)
        Input of the first layer above it.
    keywords : dict
        That layer's other arguments: the attention mask, a position bias.
    frames : (n,)
        Number of real frames of each row, on the CPU.
    """

    states: dict[int, torch.Tensor]
    hidden: torch.Tensor
    keywords: dict[str, Any]
    frames: torch.Tensor


class _AtTheCut(Exception):  # noqa: N818 (no failure: the layers above run in `run_trainable`)
    """Raised to leave the layer loop at the boundary."""


class PartlyFrozenEncoder(nn.Module):
    """An encoder whose upper layers can be trained.

    Attributes
    ----------
    wanted : tuple of int
        Numbers of the states that `run_trainable` returns.
    front, rate
        As in `LoadedEncoder`.
    cut : int
        Number of layers run by `run_frozen`, which never train.
    least : int
        Number of layers that stay frozen to the end of training.
    """

    def __init__(self, parts: LoadedEncoder, config: FinetuneConfig) -> None:
        super().__init__()
        self.model = parts.model.float().requires_grad_(False)
        self.model.config.layerdrop = 0.0
        self.front, self.rate, self._config = parts.front, parts.rate, config
        self.layer_count = len(self.model.encoder.layers)
        if not self.layer_count:
            raise InputError(
                f"{config.encoder}: has no layers, expected an encoder that can be trained; name "
                "another with --encoder"
            )
        self.wanted = parse_layer_choice(config.states, self.layer_count)
        self.top = max(self.wanted)
        frozen_layers(config, 0, self.layer_count)  # checks that there are that many
        self.least = frozen_layers(config, config.max_epochs - 1, self.layer_count)
        self.cut = min(self.least, self.top, self.layer_count - 1)
        self._lanes: dict[torch.device, DeviceTransfer] = {}
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Unfreeze what the configuration unfreezes at this epoch (from 0), freeze the rest."""
        self._frozen = frozen_layers(self._config, epoch, self.layer_count)
        self.model.requires_grad_(False)
        for part in self._open_parts():
            part.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> PartlyFrozenEncoder:
        """Set the mode of the trainable parts; frozen parts stay in eval mode."""
        super().train(False)
        self.training = mode
        for part in self._open_parts():
            part.train(mode)
        return self

    def _open_parts(self) -> Iterator[nn.Module]:
        if self._frozen == 0:
            yield from self._convolutions()
            yield from self._entry()
        yield from self.model.encoder.layers[self._frozen : self.top]
        if self._frozen < self.layer_count:
            yield from self._exit()

    def _convolutions(self) -> Iterator[nn.Module]:
        # w2v-BERT has log-mel features instead
        if hasattr(self.model, "feature_extractor") and not self._config.freeze_feature_extractor:
            yield self.model.feature_extractor

    def _entry(self) -> Iterator[nn.Module]:
        yield self.model.feature_projection
        for name, part in self.model.encoder.named_children():
            if name != "layers" and not (name == "layer_norm" and self._norm_at_the_end):
                yield part

    def _exit(self) -> Iterator[nn.Module]:
        if self.top == self.layer_count and self._norm_at_the_end:
            yield self.model.encoder.layer_norm

    @property
    def _norm_at_the_end(self) -> bool:
        return bool(getattr(self.model.config, "do_stable_layer_norm", False))

    def groups(self) -> list[tuple[float, list[nn.Parameter]]]:
        """Return (learning rate factor, parameters) of everything that is ever trained.

        The factor is `layer_decay` to the power of the distance from the topmost layer.
        """
        decay = self._config.layer_decay
        groups = [
            (decay**distance, [p for part in modules for p in part.parameters()])
            for distance, modules in self._ever_open()
        ]
        return [(factor, parameters) for factor, parameters in groups if parameters]

    def trained_names(self) -> set[str]:
        """Return the names of the tensors that are ever trained, including running statistics."""
        modules = [part for _, group in self._ever_open() for part in group]
        tensors = [t for part in modules for t in part.state_dict(keep_vars=True).values()]
        ids = {id(tensor) for tensor in tensors}
        state = self.state_dict(keep_vars=True)
        return {name for name, tensor in state.items() if id(tensor) in ids}

    def _ever_open(self) -> list[tuple[int, list[nn.Module]]]:
        """Return (distance from the topmost layer, modules) of everything that is ever trained."""
        below = range(self.least, self.top)
        layers = self.model.encoder.layers
        parts = [(self.top - 1 - number, [layers[number]]) for number in below]
        if self.least < self.layer_count:
            parts.append((0, list(self._exit())))
        if self.least == 0:
            parts.append((self.top, list(self._entry())))
            parts.append((self.top + 1, list(self._convolutions())))
        return parts

    def prepare(
        self, waveforms: list[np.ndarray], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the front end's batch on the device, and lengths (n,) on the CPU."""
        return self.front.prepare(waveforms, self.lane(device))

    def lane(self, device: torch.device) -> DeviceTransfer:
        """Return this device's transfer lane, one for all steps, with its streams."""
        if device not in self._lanes:
            self._lanes[device] = DeviceTransfer(device)
        return self._lanes[device]

    def run_frozen(self, batch: torch.Tensor, lengths: torch.Tensor) -> FrozenOutput:
        """Run a prepared batch through the frozen part."""
        hidden = first_output(self.model.feature_projection(self.front(batch, lengths)))
        frames = self.front.frames(lengths)
        if self.training:
            hidden = self._masked(hidden, frames)
        return self._below(hidden, PaddingMask(frames, hidden.shape[1], hidden.device).mask, frames)

    def _masked(self, hidden: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Zero a stretch of time and one of dimensions in each row, as configured.

        The time mask lies within a row's own frames and covers at most half of them.
        Source: Park et al. (2019), SpecAugment, one mask of each kind.
        """
        rows, longest, width = hidden.shape
        time = int(self._config.mask_seconds / FRAME + 1e-9)  # 0.3 / 0.02 is just below 15
        dims = int(self._config.mask_dims * width + 1e-9)
        if time:
            mask = _stretches((frames // 2).clamp(max=time), frames, longest)
            hidden = hidden.masked_fill(carried(mask, hidden.device)[:, :, None], 0.0)
        if dims:
            mask = _stretches(torch.full((rows,), dims), torch.full((rows,), width), width)
            hidden = hidden.masked_fill(carried(mask, hidden.device)[:, None], 0.0)
        return hidden

    def _below(
        self, hidden: torch.Tensor, mask: torch.Tensor | None, frames: torch.Tensor
    ) -> FrozenOutput:
        layers, states = self.model.encoder.layers, {}
        outputs: list[FrozenOutput] = []

        def passing(number: int) -> Any:
            def keep(_: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
                if number in self.wanted:
                    states[number] = inputs[0]
                if number == self.cut:
                    outputs.append(FrozenOutput(states, inputs[0], keywords, frames))
                    raise _AtTheCut

            return keep

        handles = [
            layers[number].register_forward_pre_hook(passing(number), with_kwargs=True)
            for number in range(self.cut + 1)
        ]
        try:
            run_layers(self.model.encoder, hidden, mask)
        except _AtTheCut:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return outputs[0]

    def run_trainable(self, entered: FrozenOutput) -> list[torch.Tensor]:
        """Run the trainable part; return the `wanted` states, (n, time, d) each, in that order."""
        states, hidden, keywords = dict(entered.states), entered.hidden, dict(entered.keywords)
        states.setdefault(self.cut, hidden)
        layers = self.model.encoder.layers
        for number in range(self.cut, self.top):
            output = self._through(layers[number], hidden, keywords)
            hidden = first_output(output)
            if "position_bias" in keywords:  # WavLM's first layer computes it for all layers
                keywords = {**keywords, "position_bias": output[1]}  # recomputation needs the old
            states[number + 1] = hidden
        if self.top == self.layer_count and self._norm_at_the_end:
            states[self.top] = self.model.encoder.layer_norm(hidden)
        return [states[number] for number in self.wanted]

    def _through(self, layer: nn.Module, hidden: torch.Tensor, keywords: dict[str, Any]) -> Any:
        """Run a layer, with gradient checkpointing if it trains and the settings ask for it."""
        if self._config.gradient_checkpointing and layer.training:
            return checkpoint(_run, layer, hidden, keywords, use_reentrant=False)
        return _run(layer, hidden, keywords)


def _stretches(most: torch.Tensor, sizes: torch.Tensor, longest: int) -> torch.Tensor:
    """Draw a mask (n, longest): in each row, one stretch of 0 to `most` positions within `sizes`.

    Drawn on the CPU, in float32, from torch's generator, so that all devices agree.
    """
    draws = torch.rand(2, len(sizes))
    lengths = (draws[0] * (most + 1)).long().minimum(most)  # a product may round up to most + 1
    starts = (draws[1] * (sizes - lengths + 1)).long().minimum(sizes - lengths)[:, None]
    places = torch.arange(longest)
    return (places >= starts) & (places < starts + lengths[:, None])


def _run(layer: nn.Module, hidden: torch.Tensor, keywords: dict[str, Any]) -> Any:
    with mixed_masks(), no_attention_plans():  # also when checkpointing recomputes the layer
        return layer(hidden, **keywords)


def parse_layer_choice(states: str, layer_count: int) -> tuple[int, ...]:
    """Return the state numbers selected by ``last``, ``mix`` or a number.

    Raises
    ------
    InputError
        The encoder has no such state.
    """
    if states == "mix":
        return tuple(range(layer_count + 1))
    number = layer_count if states == "last" else int(states)
    if number > layer_count:
        raise InputError(
            f"--states: value is {states!r}, expected last, mix or a state from 0 to "
            f"{layer_count}; correct it"
        )
    return (number,)
