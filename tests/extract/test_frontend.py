"""The front end by itself: its convolutions, and samples on their way in."""

import numpy as np
import pytest
import torch
from torch import nn

from spk.extract.audio import as_float
from spk.extract.device import Lane
from spk.extract.frontend import Waveforms, convolution, pad

SAME = 1e-6  # relative, float32: products are added up in another order
NARROW = 1e-2  # bfloat16 keeps 8 bits
CPU = Lane(torch.device("cpu"))


@pytest.mark.parametrize(
    ("size", "stride", "channels", "bias"),
    [(10, 5, 1, True), (3, 2, 6, False), (3, 2, 6, True), (2, 2, 6, True), (5, 2, 4, True)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_convolution_is_torchs(size, stride, channels, bias, dtype):
    torch.manual_seed(size)
    conv = nn.Conv1d(channels, 8, size, stride, bias=bias).requires_grad_(False)
    states = torch.randn(3, 47, channels)
    expected = conv(states.transpose(1, 2)).transpose(1, 2)
    found = convolution(conv.to(dtype), states.to(dtype))
    assert found.dtype == dtype
    error = (found.float() - expected).norm() / expected.norm()
    assert error < (SAME if dtype == torch.float32 else NARROW)


def test_a_convolution_of_a_window_sees_that_window_only():
    conv = nn.Conv1d(4, 8, 3, 2).requires_grad_(False)
    states = torch.randn(2, 60, 4)
    window = torch.tensor_split(states, 3, dim=1)[1]  # a view inside the whole
    assert torch.allclose(convolution(conv, window), convolution(conv, window.clone()), atol=SAME)


def test_int16_samples_travel_as_they_are_and_mixed_ones_as_float32():
    rng = np.random.default_rng(0)
    rows = [rng.integers(-32768, 32767, count, dtype=np.int16) for count in (7, 4)]
    batch, lengths = pad(rows, CPU)
    assert (batch.dtype, lengths.tolist()) == (torch.int16, [7, 4])
    assert batch[1].tolist() == [*rows[1].tolist(), 0, 0, 0]
    mixed, _ = pad([rows[0], as_float(rows[1])], CPU)
    assert mixed.dtype == torch.float32
    np.testing.assert_array_equal(mixed[0].numpy(), as_float(rows[0]))


@pytest.mark.parametrize("kind", ["layer_encoder", "group_encoder"])
def test_int16_samples_give_the_bits_of_the_same_float32_samples(kind, request):
    import transformers

    model = transformers.AutoModel.from_pretrained(request.getfixturevalue(kind))
    front = Waveforms(model, normalized=kind == "layer_encoder")
    rng = np.random.default_rng(1)
    rows = [rng.integers(-32768, 32767, count, dtype=np.int16) for count in (4000, 900)]
    whole, _ = front.prepare(rows, CPU)
    wide, _ = front.prepare([as_float(row) for row in rows], CPU)
    assert torch.equal(whole, wide)
