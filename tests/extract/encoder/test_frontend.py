"""The front end by itself: its convolutions, and samples on their way in."""

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional

from spk.common.audio.decoding import int16_to_float32
from spk.extract.encoder.device import DeviceTransfer
from spk.extract.encoder.frontend import LogMel, Waveforms, convolution, pad, product_dtype

SAME = 1e-6  # relative, float32: products are added up in another order
NARROW = 1e-2  # bfloat16 keeps 8 bits
ONCE = 0.98  # share of numbers that one rounding gives; sums in float32 may fall to the other side
EXTRACTOR = 1e-5  # relative: the extractor takes mean and variance in float32
FEW = 2e-5  # the same, of three to five frames, which are nearly alike
CPU = DeviceTransfer(torch.device("cpu"))


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


@pytest.mark.parametrize(
    ("size", "stride", "channels"), [(10, 5, 1), (3, 2, 64), (2, 2, 64), (5, 3, 16)]
)
def test_a_convolution_in_bfloat16_is_rounded_once(size, stride, channels):
    torch.manual_seed(size)
    conv = nn.Conv1d(channels, 64, size, stride).requires_grad_(False).bfloat16()
    states = torch.randn(3, 147, channels).bfloat16()
    wide = functional.conv1d(
        states.double().transpose(1, 2), conv.weight.double(), conv.bias.double(), stride
    )
    found = convolution(conv, states)
    once = wide.transpose(1, 2).bfloat16()
    assert (found == once).double().mean() > ONCE


def test_a_convolution_under_autocast_is_that_of_its_format():
    conv, states = nn.Conv1d(4, 8, 3, 2), torch.randn(2, 60, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = convolution(conv, states)  # as a norm leaves them on a GPU
        assert product_dtype(states) == torch.bfloat16
    assert product_dtype(states) == torch.float32
    with torch.no_grad():
        expected = convolution(conv.bfloat16(), states.bfloat16())
    assert torch.equal(found, expected)


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
    mixed, _ = pad([rows[0], int16_to_float32(rows[1])], CPU)
    assert mixed.dtype == torch.float32
    np.testing.assert_array_equal(mixed[0].numpy(), int16_to_float32(rows[0]))


@pytest.mark.parametrize("kind", ["layer_encoder", "group_encoder"])
def test_int16_samples_give_the_bits_of_the_same_float32_samples(kind, request):
    import transformers

    model = transformers.AutoModel.from_pretrained(request.getfixturevalue(kind))
    front = Waveforms(model, normalized=kind == "layer_encoder")
    rng = np.random.default_rng(1)
    rows = [rng.integers(-32768, 32767, count, dtype=np.int16) for count in (4000, 900)]
    whole, _ = front.prepare(rows, CPU)
    wide, _ = front.prepare([int16_to_float32(row) for row in rows], CPU)
    assert torch.equal(whole, wide)


def log_mels(waveform, **settings):
    """Return the frames of transformers' extractor for one waveform alone."""
    extractor = transformers.SeamlessM4TFeatureExtractor(**settings)
    options = {"pad_to_multiple_of": None, "return_tensors": "np"}
    rate = extractor.sampling_rate
    return extractor(int16_to_float32(waveform), sampling_rate=rate, **options)["input_features"][0]


def distance(found, expected):
    assert found.shape == expected.shape
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def voice(count, seed=0, level=3000.0):
    """Return int16 samples of a gliding tone in noise, whose loudness rises and falls."""
    rng = np.random.default_rng(seed)
    time = np.arange(count) / 16000
    tone = sum(
        np.sin(2 * np.pi * k * (120 + 30 * np.sin(3 * time)) * time) / k for k in range(1, 20)
    )
    loud = np.sin(7 * time + seed) ** 2 + 0.01
    return (
        (level * loud * (tone + 0.05 * rng.standard_normal(count))).clip(-32768, 32767).astype("i2")
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"padding_value": 1.0},
        {"stride": 1},
        {"stride": 3},
        {"num_mel_bins": 40, "feature_size": 40},
    ],
    ids=str,
)
def test_log_mel_frames_in_a_padded_batch_are_the_extractors_of_each_segment_alone(settings):
    front = LogMel(transformers.SeamlessM4TFeatureExtractor(**settings))
    rows = [voice(count, count) for count in (48000, 16123, 9999, 2480, 1520)]
    batch, frames = front.prepare(rows, CPU)
    for row, found, count in zip(rows, batch, frames.tolist(), strict=True):
        assert distance(found[:count].numpy(), log_mels(row, **settings)) < EXTRACTOR
        assert not found[count:].any()
    assert batch.dtype == torch.float32
    assert front.frames(frames) is frames
    assert front(batch, frames) is batch


@pytest.mark.parametrize(
    ("row", "bound"),
    [
        (voice(560), EXTRACTOR),
        (voice(720), FEW),
        (voice(1040), FEW),
        (voice(16000, level=1e6), EXTRACTOR),  # clipped
        (voice(16000, level=2.0), EXTRACTOR),  # a few bits
        (np.repeat(voice(9000), (np.arange(9000) % 3000 != 0) * 1), EXTRACTOR),
        (np.where(np.arange(16000) < 8000, 0, voice(16000)), EXTRACTOR),  # half of it silent
        ((voice(16000) / 32768).astype(np.float32), EXTRACTOR),
        (np.full(16000, 0.5, np.float32) + int16_to_float32(voice(16000, level=10)), EXTRACTOR),
    ],
    ids=["two", "three", "five", "clipped", "quiet", "cut", "half silent", "float32", "offset"],
)
def test_log_mel_frames_of_odd_segments_are_the_extractors(row, bound):
    front = LogMel(transformers.SeamlessM4TFeatureExtractor())
    row = row.astype(np.int16) if row.dtype.kind == "i" else row
    alone, frames = front.prepare([row], CPU)
    assert distance(alone[0].numpy(), log_mels(row)) < bound
    together, _ = front.prepare([row, voice(48000, 5)], CPU)
    assert distance(together[0, : int(frames)].numpy(), alone[0].numpy()) < SAME


def test_log_mel_frames_of_silence_are_0():
    front = LogMel(transformers.SeamlessM4TFeatureExtractor())
    silence = np.zeros(9000, np.int16)
    batch, _ = front.prepare([silence, voice(12000)], CPU)
    assert not batch[0].any()
    assert np.abs(log_mels(silence)).max() < 0.01  # the extractor's is what float32 rounds


def test_a_front_end_of_single_frames_asks_for_two_since_one_has_no_variance():
    assert LogMel(transformers.SeamlessM4TFeatureExtractor(stride=1)).shortest == 560
    assert LogMel(transformers.SeamlessM4TFeatureExtractor(stride=2)).shortest == 560


def test_log_mel_frames_of_real_voices_are_the_extractors(real_data):
    import soundfile

    front = LogMel(transformers.SeamlessM4TFeatureExtractor())
    path = sorted((real_data / "meetings" / "wav").iterdir())[0]
    samples, _ = soundfile.read(path, frames=16000 * 60, dtype="int16", always_2d=True)
    rows = [
        np.ascontiguousarray(samples[first : first + 20000 + first // 50, 0])
        for first in range(160000, 800000, 80000)
    ]
    batch, frames = front.prepare(rows, CPU)
    for row, found, count in zip(rows, batch, frames.tolist(), strict=True):
        assert distance(found[:count].numpy(), log_mels(row)) < EXTRACTOR
