"""Attention over packed frames against the mask, with a kernel of our own on a CPU in float64."""

import inspect
import math
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from spk.extract.encoder import encoder as encoder_file
from spk.extract.encoder import varlen
from spk.extract.encoder.encoder import Encoder
from spk.extract.encoder.frontend import check_lengths
from spk.extract.encoder.loading import load_encoder_parts
from spk.extract.encoder.pooling import PaddingMask
from spk.extract.encoder.transformer import run_layers
from spk.extract.encoder.varlen import KINDS, NAME, attend, pack, varlen_kernel

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SAME = 1e-5  # relative; in float64 what is seen is 1e-12
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 8,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
STABLE = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
MODELS = {
    "wav2vec2": ("Wav2Vec2", {}),
    "wav2vec2-stable": ("Wav2Vec2", STABLE),
    "wav2vec2-adapters": ("Wav2Vec2", {**STABLE, "adapter_attn_dim": 4}),
    "hubert": ("Hubert", {}),
    "hubert-stable": ("Hubert", STABLE),
    "hubert-batch-norm": ("Hubert", {"conv_pos_batch_norm": True}),
    "data2vec-audio": ("Data2VecAudio", {"conv_pos_kernel_size": 19, "num_conv_pos_embeddings": 5}),
    "unispeech": ("UniSpeech", {}),
    "unispeech-stable": ("UniSpeech", STABLE),
    "unispeech-sat": ("UniSpeechSat", {}),
    "unispeech-sat-stable": ("UniSpeechSat", STABLE),
}
BATCHES = {  # frames of each row
    "falling": range(12, 0, -1),
    "rising": range(1, 13),
    "two alike": (30, 30, 7),
    "one frame": (1, 41, 1),
    "one padded": (50, 49),
}


class Imitation:
    """What torch's kernel computes, row by row; it notes its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale):
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert query.shape == key.shape == value.shape
        assert all(states.is_contiguous() for states in (query, key, value))
        begins = cu_seq_q.tolist()
        lengths = np.diff(begins).tolist()
        assert (begins[0], begins[-1]) == (0, len(query))
        assert max_q == max_k == max(lengths)
        self.calls.append(lengths)
        rows = [
            torch.nn.functional.scaled_dot_product_attention(
                *(x[first:last].transpose(0, 1) for x in (query, key, value)), scale=scale
            ).transpose(0, 1)
            for first, last in pairwise(begins)
        ]
        return torch.cat(rows)


def save(folder, name, **changes):
    torch.manual_seed(3)
    config = getattr(transformers, f"{name}Config")(**{**TINY, **changes})
    model = getattr(transformers, f"{name}Model")(config).eval()
    with torch.no_grad():
        for names, weight in model.named_parameters():  # so that attention is far from even
            if "q_proj" in names or "k_proj" in names:
                weight.mul_(20)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=MODELS)
def parts(request, tmp_path_factory):
    name, changes = MODELS[request.param]
    return load_encoder_parts(str(save(tmp_path_factory.mktemp(request.param), name, **changes)))


@pytest.fixture
def kernel(monkeypatch):
    imitation = Imitation()
    monkeypatch.setattr(encoder_file, "varlen_kernel", lambda *_: imitation)
    return imitation


def waveforms(frames):
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, 400 + 320 * (count - 1)).astype(np.float32) for count in frames]


def difference(features, expected):
    error = np.linalg.norm(features - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    return error.max()


def transformer_states(encoder, hidden, real, packing):
    with torch.inference_mode():
        return run_layers(encoder, hidden.clone(), real.mask, packing)


@pytest.mark.parametrize("frames", BATCHES.values(), ids=BATCHES)
def test_states_in_float64_are_those_by_a_mask(parts, frames, kernel):
    model = parts.model.double()
    lengths = torch.tensor(list(frames))
    real = PaddingMask(lengths, int(lengths.max()), CPU)
    hidden = torch.randn(len(lengths), int(lengths.max()), 32, dtype=torch.float64)
    expected = transformer_states(model.encoder, hidden, real, None)
    assert kernel.calls == []
    states = transformer_states(model.encoder, hidden, real, pack(real, kernel))
    assert kernel.calls == [list(frames)] * 3  # each of the layers
    for row, wanted, count in zip(states, expected, frames, strict=True):
        assert difference(row[:count].numpy(), wanted[:count].numpy()) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("frames", BATCHES.values(), ids=BATCHES)
def test_features_and_states_of_an_encoder_are_those_by_a_mask(parts, frames, kernel):
    packed, masked = (
        Encoder(parts, device=CPU, dtype=torch.float64, masked=masked) for masked in (False, True)
    )
    rows, layers = waveforms(frames), [0, 1, 2, 3]
    expected, states = masked.encode(rows, layers=layers), masked.states(rows, layers=layers)
    assert kernel.calls == []
    features, counts = packed.encode(rows, layers=layers)
    assert counts.tolist() == expected[1].tolist() == list(frames)
    assert difference(features, expected[0]) < SAME
    for row, wanted in zip(packed.states(rows, layers=layers), states, strict=True):
        assert difference(row, wanted) < SAME
    assert kernel.calls == [list(frames)] * 6
    assert parts.model.config._attn_implementation == "sdpa"


def test_what_stands_in_the_padding_does_not_matter(kernel):
    n, heads, time, size = 3, 2, 7, 4
    torch.manual_seed(0)
    query, key, value = torch.randn(3, n, heads, time, size, dtype=torch.float64)
    real = PaddingMask(torch.tensor([7, 2, 4]), time, CPU)
    packing = pack(real, kernel)
    expected, weights = attend(None, query, key, value, None, packing=packing, scaling=0.3)
    assert weights is None
    assert expected.shape == (n, time, heads, size)
    for states in (query, key, value):
        states.transpose(1, 2)[~real.mask] = torch.nan
    states, _ = attend(None, query, key, value, None, packing=packing, scaling=0.3)
    assert torch.equal(states, expected)
    assert not states[~real.mask].any()


@pytest.mark.parametrize("frames", [(5, 5, 5), (9,)])
def test_rows_of_equal_length_have_no_packing(layer_encoder, frames, kernel):
    encoder = Encoder(load_encoder_parts(str(layer_encoder)), device=CPU, dtype=torch.float32)
    encoder.encode(waveforms(frames), layers=[3])
    assert kernel.calls == []


def test_windows_of_a_long_row_have_none_and_short_rows_beside_it_do(layer_encoder, kernel):
    encoder = Encoder(load_encoder_parts(str(layer_encoder)), device=CPU, dtype=torch.float64)
    rows = waveforms((90, 20, 30))
    features, counts = encoder.encode(rows, layers=[1, 3], max_seconds=0.7)
    assert kernel.calls == [[20, 30]] * 3
    masked = Encoder(
        load_encoder_parts(str(layer_encoder)), device=CPU, dtype=torch.float64, masked=True
    ).encode(rows, layers=[1, 3], max_seconds=0.7)
    assert counts.tolist() == masked[1].tolist()
    assert difference(features, masked[0]) < SAME


def test_the_encoder_is_as_before_after_a_pass_that_fails(layer_encoder):
    def failing(*_, **__):
        raise KeyError

    model = load_encoder_parts(str(layer_encoder)).model.eval()
    real = PaddingMask(torch.tensor([3, 2]), 3, CPU)
    with pytest.raises(KeyError):
        transformer_states(model.encoder, torch.randn(2, 3, 32), real, pack(real, failing))
    assert model.config._attn_implementation == "sdpa"


def test_attention_without_a_packing_is_refused(layer_encoder):
    """Whoever leaves the name set has no mask either: that must not pass in silence."""
    model = load_encoder_parts(str(layer_encoder)).model.eval()
    real = PaddingMask(torch.tensor([3, 2]), 3, CPU)
    with varlen.attention_of(model.encoder, pack(real, Imitation())):
        assert model.config._attn_implementation == NAME
        with pytest.raises(TypeError, match="packing"):
            transformer_states(model.encoder, torch.randn(2, 3, 32), real, None)


# The choice of the kernel


@pytest.fixture
def card(monkeypatch):
    """Return a function that puts a GPU of some capability there, with Flash or without."""

    def there(capability=(9, 0), flash=True):
        backend = torch.backends.cuda
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(backend, "is_flash_attention_available", lambda: flash)

    return there


def transformer(kind="wav2vec2", heads=2, size=32, hands_on=True):
    config = SimpleNamespace(model_type=kind, hidden_size=size, num_attention_heads=heads)

    def forward(hidden, attention_mask=None, **more): ...

    def older(hidden, attention_mask=None): ...

    return SimpleNamespace(config=config, forward=forward if hands_on else older)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_with_the_kernel_uses_it(card, kind, dtype):
    card()
    kernel = varlen_kernel(transformer(kind), torch.device("cuda", 1), dtype)
    assert kernel is torch.nn.attention.varlen.varlen_attn


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_formats_keep_the_mask(card, dtype):
    card()
    assert varlen_kernel(transformer(), CUDA, dtype) is None


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_other_devices_keep_the_mask(card, device):
    card()
    assert varlen_kernel(transformer(), torch.device(device), torch.bfloat16) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"capability": (7, 5)}, "Flash needs Ampere"),
        ({"flash": False}, "this torch was built without"),
    ],
)
def test_a_card_without_the_kernel_keeps_the_mask(card, changes, reason):
    card(**changes)
    assert varlen_kernel(transformer(), CUDA, torch.bfloat16) is None, reason


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "wavlm"},
        {"kind": "wav2vec2-bert"},
        {"hands_on": False},
        {"heads": 8},  # heads of 4 numbers; Flash needs multiples of 8
        {"heads": 1, "size": 264},
    ],
)
def test_an_encoder_that_the_kernel_does_not_suit_keeps_the_mask(card, changes):
    card()
    assert varlen_kernel(transformer(**changes), CUDA, torch.bfloat16) is None


def test_a_program_that_allows_another_attention_alone_is_obeyed(card):
    card()
    backends = torch.nn.attention.SDPBackend
    with torch.nn.attention.sdpa_kernel([backends.CUDNN_ATTENTION, backends.MATH]):
        assert varlen_kernel(transformer(), CUDA, torch.bfloat16) is None


def test_releases_of_torch_without_the_kernel_keep_the_mask(card, monkeypatch):
    card()
    import torch.nn.attention.varlen as module

    monkeypatch.setattr(module, "varlen_attn", lambda query, key, value: query)  # takes no scale
    assert varlen_kernel(transformer(), CUDA, torch.bfloat16) is None
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    assert varlen_kernel(transformer(), CUDA, torch.bfloat16) is None


def test_each_kind_here_hands_on_to_the_registry_in_this_transformers(parts, card):
    card()
    assert varlen_kernel(parts.model.encoder, CUDA, torch.bfloat16) is not None


@pytest.mark.parametrize("name", ["WavLM", "Wav2Vec2Bert"])
def test_encoders_with_terms_of_positions_keep_the_mask(name, card):
    card()
    changes = TINY if name == "WavLM" else {k: v for k, v in TINY.items() if "conv" not in k}
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**changes))
    assert varlen_kernel(model.encoder, CUDA, torch.bfloat16) is None


# What stands in for a GPU: tensors with shapes alone, and torch's own kernel


@pytest.mark.parametrize("kind", ["layer_encoder", "group_encoder"])
def test_torchs_kernel_takes_what_it_is_given_and_nothing_waits(kind, request, waits, monkeypatch):
    from torch.nn.attention.varlen import varlen_attn

    shapes = []

    def noted(query, *others, **named):
        inspect.signature(varlen_attn).bind(query, *others, **named)
        shapes.append((query.dtype, tuple(query.shape)))
        return varlen_attn(query, *others, **named)

    monkeypatch.setattr(encoder_file, "varlen_kernel", lambda *_: noted)
    parts = load_encoder_parts(str(request.getfixturevalue(kind)))
    encoder = Encoder(parts, device=torch.device("meta"), dtype=torch.bfloat16)
    rows = [np.ones(count, np.int16) for count in (3000, 2200, 900)]
    check_lengths(rows, encoder.shortest)
    total = int(parts.front.frames(torch.tensor([3000, 2200, 900])).sum())
    waits.clear()
    encoder.encode_async(rows, [0, 1, 3], "mean+std", math.inf)
    assert shapes == [(torch.bfloat16, (total, 2, 16))] * 3
    assert waits == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_gpu_packed_features_are_near_those_by_a_mask(parts, dtype):
    packed, masked = (
        Encoder(parts, device=CUDA, dtype=dtype, masked=masked) for masked in (False, True)
    )
    rows = waveforms((50, 49, 7, 1))
    features, expected = (each.encode(rows, layers=[0, 1, 2, 3])[0] for each in (packed, masked))
    assert difference(features, expected) < 5e-2
