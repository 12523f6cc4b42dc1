"""Statistics over a segment's own frames."""

import numpy as np
import pytest
import torch

from spk.extract.encoder.pooling import merge_windows, pool, root_sum_square

EXACT = 1e-6  # float32, against float64
FRAMES = torch.tensor([9, 1, 4])


@pytest.fixture
def states():
    return torch.from_numpy(np.random.default_rng(1).normal(3.0, 2.0, (3, 9, 5)))


def by_numpy(row, pooling):
    parts = {"mean": row.mean(axis=0), "std": row.std(axis=0), "max": row.max(axis=0)}
    return np.concatenate([parts[name] for name in pooling.split("+")])


@pytest.mark.parametrize("pooling", ["mean+std", "mean", "std", "max"])
def test_pooling_gives_numpys_statistics_of_the_real_frames(states, pooling):
    found = pool(states, FRAMES, pooling)
    assert found.dtype == torch.float32
    for row, count, vector in zip(states.numpy(), FRAMES, found.numpy(), strict=True):
        np.testing.assert_allclose(vector, by_numpy(row[:count], pooling), rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("pooling", ["mean+std", "max"])
@pytest.mark.parametrize("filling", [1e30, -1e30, torch.nan, torch.inf])
def test_what_stands_in_the_padding_changes_nothing(states, pooling, filling):
    clean = pool(states, FRAMES, pooling)
    for row, count in zip(states, FRAMES, strict=True):
        row[count:] = filling
    assert torch.equal(pool(states, FRAMES, pooling), clean)


def test_one_frame_has_no_deviation(states):
    assert (pool(states, FRAMES, "std")[1] == 0).all()


def test_a_large_mean_does_not_swallow_a_small_deviation():
    wave = torch.tensor([-1.0, 1.0]).repeat(50)[None, :, None]
    assert pool(1000 + wave, torch.tensor([100]), "std").item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_both_ways_to_the_root_of_squares_are_numpys(fused):
    values = torch.randn(3, 40, 5) + 2
    expected = np.sqrt((values.double().numpy() ** 2).sum(1))
    found = root_sum_square(values.clone(), fused=fused)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pooling_leaves_the_states_as_they_are(dtype):
    for frames in (torch.tensor([9, 9]), torch.tensor([9, 4])):
        states = torch.randn(2, 9, 3).to(dtype)
        before = states.clone()
        pool(states, frames)
        assert torch.equal(states, before)


def test_bfloat16_states_are_pooled_in_float32(states):
    rounded = states.bfloat16()
    expected = by_numpy(rounded[0].double().numpy(), "mean+std")
    np.testing.assert_allclose(pool(rounded, FRAMES)[0].numpy(), expected, rtol=EXACT)


@pytest.mark.parametrize("pooling", ["mean+std", "mean", "max"])
def test_windows_add_up_to_the_whole(pooling):
    frames = np.random.default_rng(2).normal(5.0, 2.0, (1, 30, 4)).astype(np.float32)
    sizes = np.array([7, 22, 1])
    parts = np.split(frames, np.cumsum(sizes)[:-1], axis=1)
    rows = [pool(torch.from_numpy(p), torch.tensor([p.shape[1]]), pooling).numpy() for p in parts]
    merged = merge_windows(np.stack(rows), sizes, pooling)
    assert merged.dtype == np.float32
    np.testing.assert_allclose(merged[0], by_numpy(frames[0].astype(float), pooling), rtol=1e-6)
