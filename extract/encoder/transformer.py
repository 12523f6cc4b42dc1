"""Run a transformer's layers, handing on each state as it passes, so that none is kept.

This uses hooks on the model's own layers, so relative position biases, adapters inside a layer and
the attention kernel that transformers chose all stay as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ...common.errors import InputError
from ..profiling import device_stage
from .kernels import no_attention_plans
from .torchaudio_import import FAILURES, import_torchaudio
from .varlen import Packing, attention_of


def _transformers() -> Any:
    """Import transformers with its models now: an add-on that does not fit torch breaks them."""
    try:
        return _with_models()
    except FAILURES:
        if find_spec("torchaudio"):
            import_torchaudio()
    try:
        return _with_models()
    except FAILURES as problem:
        raise InputError(
            f"transformers: its models cannot be imported ({problem}), expected builds that fit "
            f"torch {torch.__version__}; run `pip uninstall torchvision`, which spk does not use, "
            'or install `"spk-toolkit[extract]"` into an environment of its own'
        ) from problem


def _with_models() -> Any:
    import transformers

    transformers.Wav2Vec2Model.__name__  # noqa: B018 (its modules are imported on first use)
    return transformers


def fold_weight_norm(model: nn.Module) -> nn.Module:
    """Replace weight norm by the resulting weights, once, in the model's current dtype."""
    for module in list(model.modules()):
        if nn.utils.parametrize.is_parametrized(module, "weight"):
            nn.utils.parametrize.remove_parametrizations(module, "weight")
        elif hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    return model


class _LastAskedFor(Exception):  # noqa: N818 (no failure: the layers above need not run)
    """Raised out of the layer loop once the last requested state has passed."""


def run_layers(
    encoder: Any,
    hidden: torch.Tensor,
    mask: torch.Tensor | None,
    packing: Packing | None = None,
) -> torch.Tensor:
    """Return a transformer's output (n, time, d); padding does not affect real frames.

    Frames are padding where `mask` (n, time) is false; with a `packing`, attention needs no mask.
    No frame attends to padding, and the positional convolution sees zeros there. w2v-BERT has no
    such convolution: its positions are part of the attention, and its layers' own convolutions only
    look back. Without layers (``mfcc``), the output is `hidden`.
    """
    if not len(encoder.layers):
        return hidden
    positions = getattr(encoder, "pos_conv_embed", nn.Identity())
    with (
        _zero_padding(positions, mask),
        mixed_masks(),
        no_attention_plans(),
        attention_of(encoder, packing) as packed,
    ):
        return encoder(hidden, attention_mask=mask, **packed)[0]


@contextmanager
def mixed_masks() -> Iterator[None]:
    """Within this context, silence torch's warning on WavLM's bool mask beside a float bias."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*mismatched key_padding_mask.*")
        yield


@contextmanager
def layer_states(
    blocks: nn.ModuleList,
    layers: Collection[int],
    reduce: Callable[[torch.Tensor], torch.Tensor],
) -> Iterator[dict[int, torch.Tensor]]:
    """Within this context, collect `reduce` of the states whose numbers are in `layers`.

    The pass ends after the last of `layers`. The last block has no hook: its state is taken after
    the final layer norm, if there is one.
    """
    states: dict[int, torch.Tensor] = {}
    final = max(layers)

    def keep(layer: int, _module: nn.Module, inputs: tuple[Any, ...], output: Any = None) -> None:
        if layer in layers:
            with device_stage("pooling"):
                states[layer] = reduce(inputs[0] if output is None else first_output(output))
        if layer == final:
            raise _LastAskedFor

    handles = [block.register_forward_pre_hook(partial(keep, 0)) for block in blocks[:1]]
    for layer, block in enumerate(blocks[:-1], start=1):
        handles.append(block.register_forward_hook(partial(keep, layer)))
    try:
        yield states
    except _LastAskedFor:
        pass
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _zero_padding(module: nn.Module, mask: torch.Tensor | None) -> Iterator[None]:
    """Within this context, convolutions inside `module` see zeros where `mask` (n, time) is false.

    Otherwise a stack of positional convolutions (data2vec-audio), or a norm before one (HuBERT with
    batch norm), would carry padding into the last real frames.
    """

    def zero(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].masked_fill(~mask[:, None], 0.0), *inputs[1:])  # type: ignore[index]

    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv1d)]
    handles = [part.register_forward_pre_hook(zero) for part in convolutions if mask is not None]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_layers(layers: Collection[int], count: int) -> None:
    """Raise `InputError` if `layers` is empty or has a number outside 0 to `count`."""
    wrong = [layer for layer in layers if not 0 <= layer <= count]
    if wrong or not len(layers):
        raise InputError(
            f"--layers: value is {wrong or 'empty'}, expected 0 to {count}; "
            "ask for layers the encoder has"
        )


def first_output(output: Any) -> torch.Tensor:
    """Return a module's output, or the first one of several."""
    return output[0] if isinstance(output, tuple) else output
