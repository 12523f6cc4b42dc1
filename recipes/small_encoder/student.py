"""The encoder that is trained, the heads it is trained through, and what leaves training."""

import copy
import json
import math
import types

import torch
from torch import nn
from torch.nn import functional

from spk.extract.encoder.torchaudio_import import import_torchaudio

import_torchaudio()  # before transformers, which would fail on one whose compiled files do not fit

from transformers import (  # noqa: E402
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

RATE = 16000
PHASES = 3  # of each band's filter: the sum of their positive parts hardly depends on the phase


def make_encoder(width=192, inner=384, layers=4, heads=4, kernel=9, stride=4, dropout=0.0):
    """Return an untrained w2v-BERT: no position embeddings, so attention needs no mask of them."""
    return Wav2Vec2BertModel(
        Wav2Vec2BertConfig(
            vocab_size=None,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            feature_projection_input_dim=80 * stride,
            conv_depthwise_kernel_size=kernel,
            position_embeddings_type=None,
            hidden_dropout=dropout,
            activation_dropout=0.0,
            attention_dropout=0.0,
            feat_proj_dropout=0.0,
            conformer_conv_dropout=dropout,
            layerdrop=0.0,
            apply_spec_augment=False,
            add_adapter=False,
            attn_implementation="eager",  # of 50 frames: faster than fused kernels on a CPU
        )
    )


def make_wave_encoder(width=192, inner=384, layers=4, heads=4, kernel=9, stride=4, dropout=0.0):
    """Return a wav2vec2 whose first convolution begins as a bank of filters on the mel scale.

    A frame is `stride` (1, 2 or 4) times 10 ms. The first convolution has 25 ms windows, each of
    its bands in `PHASES` phases; two more gather three frames each.
    """
    strides = {1: (1, 1), 2: (2, 1), 4: (2, 2)}[stride]
    model = Wav2Vec2Model(
        Wav2Vec2Config(
            vocab_size=8,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_feat_extract_layers=3,
            conv_dim=(192, 192, 192),
            conv_kernel=(400, 3, 3),
            conv_stride=(160, *strides),
            conv_bias=True,
            num_conv_pos_embeddings=kernel,
            num_conv_pos_embedding_groups=width,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
            hidden_dropout=dropout,
            activation_dropout=0.0,
            attention_dropout=0.0,
            feat_proj_dropout=0.0,
            layerdrop=0.0,
            apply_spec_augment=False,
            attn_implementation="eager",  # of 50 frames: faster than fused kernels on a CPU
        )
    )
    _begin_with_filters(model.feature_extractor.conv_layers)
    return model


@torch.no_grad()
def _begin_with_filters(convolutions):
    """Set the first convolution to filters, the second to the bands' smoothed magnitudes."""
    first, second = convolutions[0], convolutions[1]
    count, _, size = first.conv.weight.shape
    bands = count // PHASES
    edges = torch.linspace(_mel(60.0), _mel(7600.0), bands + 2)
    hertz = 700 * torch.expm1(edges / 1127)
    spacing = (hertz[2:] - hertz[:-2]) / 2
    time = (torch.arange(size) - (size - 1) / 2)[None] / RATE
    length = (1.5 / spacing).clamp(0.0125, size / RATE)[:, None]
    window = torch.where(time.abs() < length / 2, torch.cos(math.pi * time / length) ** 2, 0.0)
    window = window / window.sum(1, keepdim=True)
    # Speech falls by about 6 dB an octave; the louder bands must not drown the others.
    gain = 8.0 * (hertz[1:-1] / 500).clamp(min=0.5)[:, None]
    phase = 2 * math.pi / PHASES * torch.arange(PHASES)[:, None, None]
    waves = gain * window * torch.cos(2 * math.pi * hertz[1:-1, None] * time + phase)
    first.conv.weight.copy_(waves.reshape(count, 1, size))
    first.conv.bias.zero_()
    first.layer_norm.weight.fill_(2.0)
    place = torch.arange(bands)
    second.conv.weight.mul_(0.3)
    for k in range(PHASES):
        second.conv.weight[place, k * bands + place] += torch.tensor([0.2, 0.4, 0.2])


def _mel(hertz):
    return 1127 * math.log1p(hertz / 700)


def states(encoder, inputs):
    """Return hidden states 0 to L of a batch without padding.

    `inputs` are log-mel features (rows, frames, channels), or waves (rows, samples).
    """
    waves = hasattr(encoder, "feature_extractor")
    hidden = _convolved(encoder, inputs) if waves else inputs
    hidden = encoder.feature_projection(hidden)
    hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    if waves:
        hidden = hidden + encoder.encoder.pos_conv_embed(hidden)
        hidden = encoder.encoder.dropout(hidden)
    every = [hidden]
    for layer in encoder.encoder.layers:
        hidden = layer(hidden)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        every.append(hidden)
    if waves:
        every[-1] = encoder.encoder.layer_norm(hidden)
    return every


def _convolved(encoder, waves):
    """Return what the front end makes of waves (rows, samples): (rows, frames, channels)."""
    waves = waves - waves.mean(1, keepdim=True)
    hidden = (waves * (waves.square().mean(1, keepdim=True) + 1e-7).rsqrt())[..., None]
    for layer in encoder.feature_extractor.conv_layers:
        conv = layer.conv
        rows = hidden.unfold(1, conv.kernel_size[0], conv.stride[0]).flatten(2)
        hidden = functional.linear(rows, conv.weight.flatten(1), conv.bias)
        hidden = layer.activation(layer.layer_norm(hidden))
    return hidden


def pooled(hidden):
    """Return mean and population std over frames, (rows, 2 x width) float32."""
    hidden = hidden.float()
    mean = hidden.mean(1)
    spread = (hidden - mean[:, None]).square().mean(1)
    return torch.cat([mean, (spread + 1e-6).sqrt()], 1)


class Head(nn.Module):
    """Losses right on a layer's pooled features, standardised as the classifiers do it.

    A row's cosine to its speaker's own vector, by an additive margin above the others'; and the
    distance of a linear map of it to the teacher's centred vector.
    """

    def __init__(self, dim, classes, teacher_dim=256, scale=30.0):
        super().__init__()
        self.norm = nn.BatchNorm1d(dim, affine=False, momentum=0.05)
        self.voices = nn.Parameter(torch.randn(classes, dim) * 0.05)
        self.teacher = nn.Linear(dim, teacher_dim)
        self.scale = scale

    def forward(self, features, label, said, margin):
        """Return the speaker loss, the distance to the teacher and the share of hits."""
        features = self.norm(features)
        cosine = functional.normalize(features) @ functional.normalize(self.voices).t()
        hit = torch.arange(cosine.shape[1], device=label.device)[None] == label[:, None]
        speaker = functional.cross_entropy(self.scale * (cosine - margin * hit), label)
        distance = 1 - functional.cosine_similarity(self.teacher(features), said.float()).mean()
        right = (cosine.argmax(1) == label).float().mean()
        return speaker, distance, right


class Student(nn.Module):
    """Encoder and one head for each layer that has a weight in `losses` ({layer: weight})."""

    def __init__(self, encoder, losses, classes):
        super().__init__()
        self.encoder, self.losses = encoder, losses
        width = encoder.config.hidden_size
        self.heads = nn.ModuleDict({str(k): Head(2 * width, classes) for k in losses})


def average_of(encoder):
    """Return a copy for the moving average of the weights."""
    return copy.deepcopy(encoder).eval().requires_grad_(False)


def follow(average, encoder, decay):
    """Move the average towards the weights."""
    with torch.no_grad():
        torch._foreach_lerp_(
            list(average.parameters()), [p.detach() for p in encoder.parameters()], 1 - decay
        )


def shifted(conv, states):
    """Compute a depthwise convolution as a sum of shifted products (rows, channels, time)."""
    size = conv.kernel_size[0]
    length = states.shape[2] - size + 1
    weight = conv.weight.to(states.dtype)[:, 0]
    total = states[:, :, :length] * weight[:, :1]
    for k in range(1, size):
        total = total + states[:, :, k : k + length] * weight[:, k : k + 1]
    return total


def set_convolution(encoder, name):
    """Choose how depthwise convolutions are computed in training: ``native`` or ``shifted``."""
    for layer in encoder.encoder.layers:
        if not hasattr(layer, "conv_module"):
            continue
        conv = layer.conv_module.depthwise_conv
        conv.__dict__.pop("forward", None)
        if name == "shifted":
            conv.forward = types.MethodType(shifted, conv)


def front_end_file(encoder, logmel):
    """Return what writes the encoder's preprocessor_config.json."""
    if hasattr(encoder, "feature_extractor"):
        return Wav2Vec2FeatureExtractor(
            sampling_rate=RATE, do_normalize=True, return_attention_mask=True
        )
    return logmel.extractor


def save_encoder(encoder, extractor, folder):
    """Write float16 weights, config and front-end file as transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    model = copy.deepcopy(encoder).cpu()
    set_convolution(model, "native")
    model.half().save_pretrained(folder)
    extractor.save_pretrained(folder)
    json.loads((folder / "config.json").read_text())
