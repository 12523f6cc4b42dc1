"""The encoder that is trained, the heads it is trained through, and what leaves training."""

import copy
import json
import types

import torch
from torch import nn
from torch.nn import functional
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel


def make_encoder(width=192, inner=384, layers=4, heads=4, kernel=9, stride=4, dropout=0.05):
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
        )
    )


def states(encoder, features):
    """Return hidden states 0 to L of a batch without padding."""
    hidden = encoder.feature_projection(features)
    hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    states_so_far = [hidden]
    for layer in encoder.encoder.layers:
        hidden = layer(hidden)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        states_so_far.append(hidden)
    return states_so_far


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
        conv = layer.conv_module.depthwise_conv
        conv.__dict__.pop("forward", None)
        if name == "shifted":
            conv.forward = types.MethodType(shifted, conv)


def save_encoder(encoder, extractor, folder):
    """Write float16 weights, config and front-end file as transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    model = copy.deepcopy(encoder).cpu()
    set_convolution(model, "native")
    model.half().save_pretrained(folder)
    extractor.save_pretrained(folder)
    json.loads((folder / "config.json").read_text())
