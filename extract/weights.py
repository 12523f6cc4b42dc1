"""Weights into a model: a checkpoint's, or the demo encoder's, made from a seed; its front end."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..common.errors import InputError
from .checkpoint import (
    DEMO,
    DEMO_SEED,
    DEMO_SHAPE,
    EXTRACTOR,
    LOG_MEL,
    NORMALIZED,
    Checkpoint,
    find_checkpoint,
)
from .frontend import LogMel, Waveforms

FIRST_CONVOLUTION = "feature_extractor.conv_layers.0.conv.weight"


@dataclass(frozen=True)
class Parts:
    """What an encoder is made of: `provenance` identifies it, `rate` is in Hz."""

    model: Any  # one of transformers', all shaped alike; float32 on the CPU
    front: Waveforms | LogMel
    provenance: dict[str, Any]
    rate: int


def load_parts(name: str, *, revision: str | None = None) -> Parts:
    """Load an encoder by folder, hub id or ``demo``; raises `InputError` where it cannot be had."""
    if name == DEMO:
        model, provenance = demo_model()
        return Parts(model, Waveforms(model, normalized=True), provenance, rate=16000)
    checkpoint = find_checkpoint(name, revision=revision)
    model = load_model(checkpoint)
    front = load_front_end(checkpoint, model)
    return Parts(model, front, checkpoint.provenance(), rate=checkpoint.rate)


def load_model(checkpoint: Checkpoint) -> nn.Module:
    """Return a checkpoint's encoder in float32 on the CPU, weight norm folded.

    Raises
    ------
    InputError
        The weights cannot be read, or some are missing (they would be random).
    """
    transformers = _transformers()
    with _quiet():
        try:
            model, found = transformers.AutoModel.from_pretrained(
                checkpoint.folder,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as problem:  # each format's reader has its own kinds
            raise InputError(
                f"{checkpoint.folder}: weights cannot be read ({problem}); fetch them again"
            ) from problem
    # Used in training only, so checkpoints may lack it.
    missing = sorted(key for key in found["missing_keys"] if "masked_spec_embed" not in key)
    missing += sorted(str(key) for key in found.get("mismatched_keys", ()))
    if missing:
        raise InputError(
            f"{checkpoint.folder}: {len(missing)} weights are missing or of another shape, first "
            f"{missing[0]!r}, expected all of them; fetch the model again"
        )
    return fold_weight_norm(model.float())


def load_front_end(checkpoint: Checkpoint, model: nn.Module) -> Waveforms | LogMel:
    """Return what turns waveforms into the input of a checkpoint's feature projection."""
    if checkpoint.normalization == LOG_MEL:
        extractor = getattr(_transformers(), EXTRACTOR)
        return LogMel(extractor.from_pretrained(checkpoint.folder, local_files_only=True))
    return Waveforms(model, normalized=checkpoint.normalization == NORMALIZED)


def _transformers() -> Any:
    """Import transformers with its models: an add-on that does not fit torch breaks them late."""
    try:
        import transformers

        transformers.Wav2Vec2Model.__name__  # noqa: B018 (its modules are imported on first use)
    except (ImportError, OSError, RuntimeError) as problem:
        raise InputError(
            f"transformers: its models cannot be imported ({problem}), expected builds that fit "
            f"torch {torch.__version__}; run `pip uninstall torchaudio torchvision`, which spk "
            "does not use"
        ) from problem
    return transformers


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing bars and from listing heads that are rightly left out."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def fold_weight_norm(model: nn.Module) -> nn.Module:
    """Replace weight norm by the weights it gives, once, in the dtype the model has now."""
    for module in list(model.modules()):
        if nn.utils.parametrize.is_parametrized(module, "weight"):
            nn.utils.parametrize.remove_parametrizations(module, "weight")
        elif hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    return model


def demo_model() -> tuple[nn.Module, dict[str, Any]]:
    """Return the tiny untrained encoder and its provenance; the same weights on every machine."""
    transformers = _transformers()
    with torch.random.fork_rng(devices=[]):
        config = transformers.Wav2Vec2Config(**DEMO_SHAPE)
        model = fold_weight_norm(transformers.Wav2Vec2Model(config))
    rng = np.random.default_rng(DEMO_SEED)
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        draw = _filters if name == FIRST_CONVOLUTION else _drawn
        values = draw(name, tuple(weight.shape), rng)
        digest.update(values.tobytes())
        weight.data.copy_(torch.from_numpy(values))
    shape = hashlib.sha256(repr(sorted(DEMO_SHAPE.items())).encode())
    return model, {
        "encoder": DEMO,
        "revision": f"seed {DEMO_SEED}",
        "weights_sha256": digest.hexdigest(),
        "encoder_config_sha256": shape.hexdigest(),
        "untrained": True,
        "normalization": NORMALIZED,
    }


def _drawn(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw weights that keep a state's size from layer to layer (He et al. 2015, eq. 10)."""
    if "norm" in name:
        return np.full(shape, name.endswith("weight"), dtype=np.float32)
    if len(shape) < 2:
        return rng.uniform(-0.1, 0.1, shape).astype(np.float32)
    scale = np.sqrt(2.0 / np.prod(shape[1:]))
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def _filters(_name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw a bank of Hann-windowed cosines of random phase, 100 to 7000 Hz on the mel scale."""
    count, size = shape[0], shape[-1]
    mels = np.linspace(np.log1p(100 / 700), np.log1p(7000 / 700), count)
    hertz = 700 * np.expm1(mels)[:, None]
    phase = rng.uniform(0, 2 * np.pi, count)[:, None]
    waves = np.hanning(size) * np.cos(2 * np.pi * hertz * np.arange(size) / 16000 + phase)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    return waves[:, None].astype(np.float32)
