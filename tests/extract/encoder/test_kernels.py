"""Which kernels compute, whatever the program has set; and its settings afterwards."""

from itertools import product

import numpy as np
import pytest
import torch

from spk.extract.encoder.encoder import load_encoder
from spk.extract.encoder.kernels import EXACT, disable_tf32, no_attention_plans

backends = torch.backends
PLACES = {
    "cuda.matmul": backends.cuda.matmul,
    "cudnn.conv": backends.cudnn.conv,
    "cudnn.rnn": backends.cudnn.rnn,
    "mkldnn.matmul": backends.mkldnn.matmul,
    "mkldnn.conv": backends.mkldnn.conv,
}
WIDER = {"all": backends, "cudnn": backends.cudnn, "mkldnn": backends.mkldnn}


def setting(place, value, name="fp32_precision"):
    return lambda: setattr(place, name, value)


SETTINGS = {
    "nothing": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "matmul.allow_tf32": setting(backends.cuda.matmul, True, "allow_tf32"),
    "cudnn.allow_tf32": setting(backends.cudnn, True, "allow_tf32"),
    "no cudnn.allow_tf32": setting(backends.cudnn, False, "allow_tf32"),
    "all tf32": setting(backends, "tf32"),
    "all ieee": setting(backends, "ieee"),
    "cudnn tf32": setting(backends.cudnn, "tf32"),
    "mkldnn bf16": setting(backends.mkldnn, "bf16"),
    "cuda.matmul tf32": setting(backends.cuda.matmul, "tf32"),
    "cuda.matmul ieee": setting(backends.cuda.matmul, "ieee"),
    "cudnn.conv tf32": setting(backends.cudnn.conv, "tf32"),
    "cudnn.conv ieee": setting(backends.cudnn.conv, "ieee"),
    "mkldnn.matmul bf16": setting(backends.mkldnn.matmul, "bf16"),
    "mkldnn.conv bf16": setting(backends.mkldnn.conv, "bf16"),
}


def readable(read):
    try:
        return read()
    except RuntimeError:  # the two kinds of settings contradict
        return "contradiction"


def state():
    """Return all settings, the newer and the older ones."""
    newer = {name: place.fp32_precision for name, place in {**PLACES, **WIDER}.items()}
    return {
        **newer,
        "products": readable(torch.get_float32_matmul_precision),
        "convolutions": readable(lambda: backends.cudnn.allow_tf32),
        "attention": backends.cuda.cudnn_sdp_enabled(),
    }


@pytest.fixture(autouse=True)
def _as_it_was():
    yield
    for place in WIDER.values():
        place.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = True
    for name in ("cuda.matmul", "mkldnn.matmul", "mkldnn.conv"):
        PLACES[name].fp32_precision = "none"
    for name in ("cudnn.conv", "cudnn.rnn"):
        PLACES[name].fp32_precision = "tf32"


@pytest.mark.parametrize("names", [*product(SETTINGS, repeat=2)], ids="+".join)
def test_float32_is_exact_whatever_was_set_and_all_is_as_before_afterwards(names):
    for name in names:
        SETTINGS[name]()
    before = state()
    with disable_tf32(torch.float32):
        inside = state()
        assert {inside[name] for name in PLACES} <= {*EXACT}
        assert inside["products"] == "highest"  # torch's kernels may ask by the older setting
    assert state() == before
    with pytest.raises(KeyError), disable_tf32(torch.float32):
        raise KeyError
    assert state() == before


def test_what_was_inherited_is_inherited_again():
    backends.fp32_precision = "tf32"
    with disable_tf32(torch.float32):
        pass
    backends.fp32_precision = "ieee"
    assert backends.mkldnn.matmul.fp32_precision == "ieee"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrower_formats_are_left_alone(dtype):
    torch.set_float32_matmul_precision("high")
    before = state()
    with disable_tf32(dtype):
        assert state() == before


@pytest.mark.parametrize("allowed", [True, False])
def test_attention_has_no_plans_and_the_setting_is_as_before_afterwards(allowed):
    backends.cuda.enable_cudnn_sdp(allowed)
    inside = []

    def work():
        with no_attention_plans():
            inside.append(backends.cuda.cudnn_sdp_enabled())
            raise KeyError

    try:
        with pytest.raises(KeyError):
            work()
        assert inside == [False]
        assert backends.cuda.cudnn_sdp_enabled() == allowed
    finally:
        backends.cuda.enable_cudnn_sdp(True)


def test_attention_by_cudnn_alone_is_obeyed():
    cudnn = torch.nn.attention.SDPBackend.CUDNN_ATTENTION
    with torch.nn.attention.sdpa_kernel(cudnn), no_attention_plans():
        assert backends.cuda.cudnn_sdp_enabled()
    assert backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize("kind", ["layer_encoder", "group_encoder"])
def test_every_product_of_an_encoder_sees_these_settings(kind, request, monkeypatch):
    encoder = load_encoder(str(request.getfixturevalue(kind)), device="cpu", dtype="float32")
    torch.set_float32_matmul_precision("medium")
    before, seen = state(), []
    for name in ("linear", "conv1d", "scaled_dot_product_attention"):
        plain = getattr(torch.nn.functional, name)

        def spied(*args, plain=plain, **named):
            seen.append(state())
            return plain(*args, **named)

        monkeypatch.setattr(torch.nn.functional, name, spied)
    encoder.encode([np.ones(1600, np.float32), np.ones(900, np.float32)], layers=[0, 3])
    assert len(seen) > 20
    assert all(found["mkldnn.matmul"] in EXACT and not found["attention"] for found in seen[8:])
    assert all(found["cuda.matmul"] in EXACT and found["cudnn.conv"] in EXACT for found in seen)
    assert state() == before
