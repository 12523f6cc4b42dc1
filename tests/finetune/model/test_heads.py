"""Pooling, head and losses against numpy, scikit-learn, torch and the hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from spk.extract.encoder.pooling import PaddingMask
from spk.finetune.config import POOLINGS, FinetuneConfig
from spk.finetune.model.heads import (
    EPSILON,
    WIDTHS,
    Pooling,
    SpeakerHead,
    SteadyBatchNorm,
    class_weights,
    loss,
    with_margin,
)

SAME = 1e-5  # float32: sums over padded rows are made in another order
FRAMES = torch.tensor([7, 1, 4])
WIDTH = 5


def make_pooling(method):
    torch.manual_seed(1)
    return Pooling(method, WIDTH)


def padded(filling=0.0, seed=2):
    states = torch.randn(3, 7, WIDTH, generator=torch.Generator().manual_seed(seed))
    for row, count in zip(states, FRAMES.tolist(), strict=True):
        row[count:] = filling
    return states


def by_numpy(pooling, row):
    """Return the statistics of a row (frames, width) alone."""
    row = row.double().numpy()
    weights = np.full((len(row), 1), 1 / len(row))
    if pooling.method == "attentive":
        first, _, second = pooling.attention
        hidden = np.tanh(row @ first.weight.detach().numpy().T + first.bias.detach().numpy())
        powers = np.exp(hidden @ second.weight.detach().numpy().T + second.bias.detach().numpy())
        weights = powers / powers.sum()
    mean = (weights * row).sum(0)
    std = np.sqrt((weights * (row - mean) ** 2).sum(0) + EPSILON)
    largest = row.max(0)
    parts = {
        "mean": [mean],
        "max": [largest],
        "mean+std": [mean, std],
        "mean+std+max": [mean, std, largest],
        "attentive": [mean, std],
    }
    return np.concatenate(parts[pooling.method])


def test_every_pooling_of_the_settings_has_a_width():
    assert tuple(WIDTHS) == POOLINGS


@pytest.mark.parametrize("method", POOLINGS)
def test_pooling_is_numpys_of_the_rows_own_frames(method):
    pooling, states = make_pooling(method), padded()
    found = pooling(states, FRAMES)
    assert found.shape == (3, pooling.size)
    assert found.dtype == torch.float32
    expected = [by_numpy(pooling, row[:n]) for row, n in zip(states, FRAMES, strict=True)]
    np.testing.assert_allclose(found.detach(), np.stack(expected), rtol=SAME, atol=SAME)


@pytest.mark.parametrize("method", POOLINGS)
def test_a_row_is_pooled_alike_alone_and_in_a_batch(method):
    pooling, states = make_pooling(method), padded()
    together = pooling(states, FRAMES)
    for i, count in enumerate(FRAMES.tolist()):
        alone = pooling(states[i : i + 1, :count], FRAMES[i : i + 1])
        torch.testing.assert_close(together[i], alone[0], rtol=SAME, atol=SAME)


@pytest.mark.parametrize("filling", [1e30, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("method", POOLINGS)
def test_nothing_of_the_padding_leaks_into_values_or_gradients(method, filling):
    found = []
    for value in (0.0, filling):
        pooling, states = make_pooling(method), padded(value).requires_grad_()
        pooled = pooling(states, FRAMES)
        pooled.square().sum().backward()
        found.append([pooled, states.grad, *(p.grad for p in pooling.parameters())])
    for plain, filled in zip(*found, strict=True):
        assert torch.equal(plain, filled)
    assert all(not row[n:].any() for row, n in zip(states.grad, FRAMES.tolist(), strict=True))


@pytest.mark.parametrize("method", ["mean+std", "mean+std+max", "attentive"])
def test_one_frame_and_constant_states_have_a_finite_gradient(method):
    states = torch.full((2, 6, WIDTH), 0.25, requires_grad=True)
    pooled = make_pooling(method)(states, torch.tensor([1, 6]))
    pooled.sum().backward()
    assert torch.isfinite(states.grad).all()
    std = pooled[:, WIDTH : 2 * WIDTH]
    torch.testing.assert_close(std, torch.full_like(std, math.sqrt(EPSILON)))


def test_attentive_weights_sum_to_1_over_the_rows_own_frames():
    pooling, states = make_pooling("attentive"), padded()
    mask = torch.arange(7)[None, :, None] < FRAMES[:, None, None]
    weights = pooling._weights(states, PaddingMask(FRAMES, 7, "cpu"))
    torch.testing.assert_close(weights.sum(1), torch.ones(3, 1))
    assert not weights[~mask].any()
    assert weights[0].std() > 0


def test_pooling_of_half_precision_is_float32s():
    states = padded().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = make_pooling("mean+std")(states, FRAMES)
    assert torch.equal(found, make_pooling("mean+std")(states.float(), FRAMES))


def test_a_batch_of_one_is_normalised_as_in_eval_mode_and_teaches_nothing():
    norm = SteadyBatchNorm(4)
    norm(torch.randn(16, 4) * 3 + 1)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    one = torch.randn(1, 4)
    found = norm.train()(one)
    for name, value in norm.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(found, norm.eval()(one))


def test_larger_batches_are_normalised_as_torch_does():
    steady, plain = SteadyBatchNorm(4), nn.BatchNorm1d(4)
    rows = torch.randn(8, 4) * 3 + 1
    assert torch.equal(steady(rows), plain(rows))
    for name, value in plain.state_dict().items():
        assert torch.equal(steady.state_dict()[name], value), name
    assert torch.equal(steady.eval()(rows), plain.eval()(rows))


def make_head(**settings):
    torch.manual_seed(4)
    return SpeakerHead(6, 3, FinetuneConfig(head_size=8, **settings))


def test_the_heads_are_made_of_what_their_names_say():
    mlp = [type(part) for part in make_head(head="mlp").body]
    assert mlp == [nn.Linear, SteadyBatchNorm, nn.ReLU, nn.Dropout]
    assert make_head(head="mlp", dropout=0.4).body[3].p == 0.4
    linear, rows = make_head(head="linear"), torch.randn(2, 6)
    assert torch.equal(linear(rows), nn.functional.linear(rows, linear.out.weight, linear.out.bias))


def test_scores_of_aam_are_scaled_cosines():
    head, rows = make_head(head="linear", loss="aam", scale=20.0), torch.randn(2, 6)
    weight = head.out.weight.detach().numpy()
    norms = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(weight, axis=1)
    expected = 20 * rows.numpy() @ weight.T / norms
    np.testing.assert_allclose(head(rows).detach(), expected, rtol=SAME, atol=SAME)
    assert head.out.bias is None


@pytest.mark.parametrize("kind", ["cross-entropy", "aam"])
def test_scores_are_float32_under_autocast_and_near_those_without(kind):
    head, rows = make_head(loss=kind).eval(), torch.randn(5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(rows)
        cosines = nn.functional.normalize(head.body(rows).float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, head(rows), rtol=0.05, atol=0.05 * (head.scale or 1))
    if kind == "aam":  # only what stands before the cosines may round
        exact = head.scale * cosines @ nn.functional.normalize(head.out.weight).T
        torch.testing.assert_close(found, exact, rtol=SAME, atol=SAME)


def test_aam_is_arcface_by_hand():
    """Deng et al. (2019), eq. 3, for s = 10, m = 0.2 and angles of 60, 90 and 120 degrees."""
    scores = 10 * torch.tensor([[0.5, 0.0, -0.5]])
    found = loss(scores, torch.tensor([0]), FinetuneConfig(loss="aam", margin=0.2, scale=10.0))
    true = math.exp(10 * math.cos(math.pi / 3 + 0.2))
    expected = -math.log(true / (true + math.exp(0) + math.exp(-5)))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_aam_with_margin_0_is_cross_entropy():
    scores, codes = 30 * (torch.rand(4, 3) * 1.8 - 0.9), torch.tensor([0, 2, 1, 0])
    found = loss(scores, codes, FinetuneConfig(loss="aam", margin=0.0, scale=30.0))
    torch.testing.assert_close(found, nn.functional.cross_entropy(scores, codes))


def test_the_margin_moves_the_true_label_alone_and_never_rises_again():
    cosines = torch.linspace(1, -1, 500)[:, None].repeat(1, 2)
    found = with_margin(cosines, torch.zeros(500, dtype=torch.long), 0.5)
    assert torch.equal(found[:, 1], cosines[:, 1])
    assert (found[:, 0].diff() <= 0).all()
    assert float(found[-1, 0]) == pytest.approx(-1)
    assert (found[:-1, 0] <= cosines[:-1, 0]).all()


def test_the_gradient_of_the_margin_is_finite_where_the_cosine_is_1():
    cosines = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    with_margin(cosines, torch.tensor([0, 0]), 0.2).sum().backward()
    assert torch.isfinite(cosines.grad).all()


def test_class_weights_are_scikit_learns_balanced():
    codes = np.array([0, 0, 0, 0, 1, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=codes)
    found = class_weights(torch.from_numpy(codes), 3)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert float(found[torch.from_numpy(codes)].mean()) == pytest.approx(1)


def test_a_label_without_a_segment_has_a_finite_weight():
    assert torch.isfinite(class_weights(torch.tensor([0, 0, 2]), 3)).all()


def test_smoothing_is_that_of_torch_and_weights_are_those_of_the_segments_by_hand():
    scores, codes, weights = torch.randn(6, 3), torch.arange(6) % 3, torch.tensor([0.5, 1.0, 2.0])
    config = FinetuneConfig(label_smoothing=0.1)
    expected = nn.CrossEntropyLoss(label_smoothing=0.1)(scores, codes)
    torch.testing.assert_close(loss(scores, codes, config), expected)
    # 0.9 of the truth's log-loss and 0.1 of the mean of all, times the weight of the truth.
    logs = -torch.log_softmax(scores, dim=1)
    losses = 0.9 * logs[range(6), codes] + 0.1 * logs.mean(1)
    torch.testing.assert_close(loss(scores, codes, config), losses.mean())
    by_hand = sum(float(weights[code] * one) for code, one in zip(codes, losses, strict=True)) / 6
    assert float(loss(scores, codes, config, weights)) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_class_weights_count_alike_in_batches_of_every_size(smoothing):
    config, codes = FinetuneConfig(label_smoothing=smoothing), torch.tensor([0, 0, 0, 1])
    weights, scores = class_weights(codes, 2), torch.randn(4, 2)
    whole = loss(scores, codes, config, weights)
    ones = [loss(scores[i : i + 1], codes[i : i + 1], config, weights) for i in range(4)]
    torch.testing.assert_close(torch.stack(ones).mean(), whole)
    plain = loss(scores[3:], codes[3:], config)
    torch.testing.assert_close(ones[3], 2 * plain)  # 4 segments / (2 labels x 1 of this label)
