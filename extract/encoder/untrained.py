"""The tiny untrained encoder: weights drawn from a seed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from .preprocessing import NORMALIZED

if TYPE_CHECKING:
    from torch import nn

UNTRAINED = "untrained"
UNTRAINED_NAMES = (UNTRAINED, "demo")  # the second is its name in version 0.2
UNTRAINED_SEED = 20240
UNTRAINED_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    # Two convolutions with wav2vec2's receptive field (400 samples) and step (320): cheap, and the
    # first is a filter bank, as random weights would preserve little of a voice.
    "num_feat_extract_layers": 2,
    "conv_dim": (64, 64),
    "conv_kernel": (400, 1),
    "conv_stride": (320, 1),
    "conv_bias": True,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "vocab_size": 8,
}


FIRST_CONVOLUTION = "feature_extractor.conv_layers.0.conv.weight"


def untrained_model() -> tuple[nn.Module, dict[str, Any]]:
    """Return the tiny untrained encoder and its provenance; the same weights on every machine."""
    import torch

    from .transformer import _transformers, fold_weight_norm

    transformers = _transformers()
    with torch.random.fork_rng(devices=[]):
        config = transformers.Wav2Vec2Config(**UNTRAINED_SHAPE)
        model = fold_weight_norm(transformers.Wav2Vec2Model(config))
    rng = np.random.default_rng(UNTRAINED_SEED)
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        draw = _filters if name == FIRST_CONVOLUTION else _drawn
        values = draw(name, tuple(weight.shape), rng)
        digest.update(values.tobytes())
        weight.data.copy_(torch.from_numpy(values))
    shape = hashlib.sha256(repr(sorted(UNTRAINED_SHAPE.items())).encode())
    return model, {
        "encoder": UNTRAINED,
        "revision": f"seed {UNTRAINED_SEED}",
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
