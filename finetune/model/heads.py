"""Pooling with finite gradients, the speaker head, and the losses.

Pooling uses a segment's own frames only, in float32. Its standard deviations have an epsilon inside
the root: with a single frame, or equal ones, the plain root has an infinite gradient.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ...extract.encoder.pooling import PaddingMask
from ..config import FinetuneConfig

EPSILON = 1e-6  # added to a variance of states, which are of the order of 1
ATTENTION = 128  # hidden units of attentive pooling
WIDTHS = {"mean": 1, "max": 1, "mean+std": 2, "mean+std+max": 3, "attentive": 2}


class Pooling(nn.Module):
    """Statistics of states over time; `method` is one of `WIDTHS`, `width` the size of a state.

    ``attentive`` weights the frames by a small network before computing mean and deviation.
    Source: Okabe, Koshinaka and Shinoda (2018), Attentive statistics pooling, eqs. 3 to 6.
    """

    def __init__(self, method: str, width: int) -> None:
        super().__init__()
        self.method = method
        self.size = width * WIDTHS[method]
        if method == "attentive":
            hidden = nn.Linear(width, ATTENTION)
            self.attention = nn.Sequential(hidden, nn.Tanh(), nn.Linear(ATTENTION, 1))

    def forward(self, states: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Pool states (n, time, width) over each row's first `frames` (n,): (n, size) float32."""
        real = PaddingMask(frames, states.shape[1], states.device)
        states = real.only(states.float())  # padding may hold anything, even inf
        if self.method == "max":
            return real.only(states, -torch.inf).amax(1)
        mean, std = moments(states, self._weights(states, real))
        if self.method == "mean":
            return mean
        parts = [mean, std]
        if self.method == "mean+std+max":
            parts.append(real.only(states, -torch.inf).amax(1))
        return torch.cat(parts, dim=1)

    def _weights(self, states: torch.Tensor, real: PaddingMask) -> torch.Tensor:
        """Return weights (n, time, 1) that sum to 1 over a row's own frames and are 0 elsewhere."""
        if self.method == "attentive":
            return real.only(self.attention(states).float(), -torch.inf).softmax(1)
        return real.only(torch.ones_like(states[..., :1])) / real.count[:, None, None]


def moments(states: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weighted mean and deviation (n, width) of states (n, time, width)."""
    mean = (weights * states).sum(1)
    variance = (weights * (states - mean[:, None]).square()).sum(1)
    return mean, (variance + EPSILON).sqrt()


class SteadyBatchNorm(nn.BatchNorm1d):
    """Batch norm that uses running statistics for a batch of one, whose own variance is 0."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 (the parent's name)
        """Normalise (n, width)."""
        if self.training and len(input) == 1:
            statistics = (self.running_mean, self.running_var)
            return functional.batch_norm(input, *statistics, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class SpeakerHead(nn.Module):
    """Maps pooled states (n, width) to one score per label, (n, labels) float32.

    ``mlp``: Linear, BatchNorm, ReLU, Dropout, Linear. ``linear``: only the last. With the loss
    ``aam``, the last layer outputs `scale` times the cosine between its input and each label's
    weights.
    """

    def __init__(self, width: int, labels: int, config: FinetuneConfig) -> None:
        super().__init__()
        self.body: nn.Module = nn.Identity()
        if config.head == "mlp":
            self.body = nn.Sequential(
                nn.Linear(width, config.head_size),
                SteadyBatchNorm(config.head_size),
                nn.ReLU(),
                nn.Dropout(config.dropout),
            )
            width = config.head_size
        self.scale = config.scale if config.loss == "aam" else None
        self.out = nn.Linear(width, labels, bias=self.scale is None)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Score pooled states."""
        hidden = self.body(pooled)
        if self.scale is None:
            return self.out(hidden).float()
        with torch.autocast(hidden.device.type, enabled=False):  # a margin is small beside 1
            weight = functional.normalize(self.out.weight.float())
            return self.scale * functional.linear(functional.normalize(hidden.float()), weight)


def loss(
    scores: torch.Tensor,
    codes: torch.Tensor,
    config: FinetuneConfig,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the training loss of scores (n, labels) against codes (n,): a mean over segments.

    `weights` (labels,) are class weights: each segment's loss is multiplied by its label's weight.
    The sum is not divided by the batch's total weight, which would undo them in small batches.
    ``aam`` applies the margin before cross-entropy.
    """
    if config.loss == "aam":
        scores = with_margin(scores / config.scale, codes, config.margin) * config.scale
    losses = functional.cross_entropy(
        scores, codes, label_smoothing=config.label_smoothing, reduction="none"
    )
    return (losses if weights is None else losses * weights[codes]).mean()


def with_margin(cosines: torch.Tensor, codes: torch.Tensor, margin: float) -> torch.Tensor:
    """Replace the true label's cosine by the cosine of its angle plus `margin` (radians).

    The angle is capped at pi, so that the cosine does not rise again.
    Source: Deng et al. (2019), ArcFace, eq. 3.
    """
    rows = torch.arange(len(codes), device=codes.device)
    angle = cosines[rows, codes].clamp(-1 + 1e-6, 1 - 1e-6).acos()  # finite gradient at the ends
    wider = (angle + margin).clamp(max=torch.pi).cos()
    return cosines.index_put((rows, codes), wider)


def class_weights(codes: torch.Tensor, labels: int) -> torch.Tensor:
    """Return weights (labels,) inversely proportional to frequency; their mean over rows is 1."""
    counts = torch.bincount(codes, minlength=labels).clamp(min=1)
    return len(codes) / (labels * counts.float())
