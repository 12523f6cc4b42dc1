"""What is kept of the frozen layers is read back to the bit, and only where it holds."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spk.common.errors import InputError
from spk.extract.audio import Segment
from spk.finetune.config import FinetuneConfig
from spk.finetune.data.dataset import BatchIndex
from spk.finetune.model.encoder import FrozenOutput
from spk.finetune.model.frozen_cache import FrozenLayerCache, check_cacheable
from spk.finetune.training.train_session import TrainingContext, _sign

CPU = torch.device("cpu")
ASK = BatchIndex(0, 3, (0, 1))


def same(found, expected):
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found, expected)
    return type(found) is type(expected) and found == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_kept_is_read_back_to_the_bit(tmp_path, dtype):
    keywords = {
        "attention_mask": torch.arange(10).reshape(2, 5) % 2 == 0,
        "position_bias": torch.randn(2, 5, 5).to(dtype).transpose(1, 2),  # not contiguous
        "conv_attention_mask": None,
        "output_attentions": False,
        "index": 2,
    }
    entered = FrozenOutput({}, torch.randn(2, 5, 4).to(dtype), keywords, torch.tensor([5, 3]))
    FrozenLayerCache(tmp_path / "kept", "a").put(ASK, entered)
    found = FrozenLayerCache(tmp_path / "kept", "a").get(ASK, CPU)
    assert same(found.hidden, entered.hidden)
    assert same(found.frames, entered.frames)
    assert found.keywords.keys() == keywords.keys()
    for name, value in keywords.items():
        assert same(found.keywords[name], value), name


def test_a_batch_is_known_by_its_number_in_any_epoch(tmp_path):
    kept = FrozenLayerCache(tmp_path / "kept", "a")
    assert kept.get(ASK, CPU) is None
    kept.put(ASK, FrozenOutput({}, torch.ones(1, 2, 3), {}, torch.tensor([2])))
    assert kept.get(BatchIndex(7, 3, (0, 1)), CPU) is not None
    assert kept.get(BatchIndex(0, 4, (0, 1)), CPU) is None
    kept.remove()
    assert kept.get(ASK, CPU) is None
    assert not (tmp_path / "kept").exists()


def test_another_fingerprint_empties_the_folder(tmp_path):
    first = FrozenLayerCache(tmp_path / "kept", "a")
    first.put(ASK, FrozenOutput({}, torch.ones(1, 2, 3), {}, torch.tensor([2])))
    assert FrozenLayerCache(tmp_path / "kept", "a").get(ASK, CPU) is not None
    assert FrozenLayerCache(tmp_path / "kept", "b").get(ASK, CPU) is None
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["fingerprint"]


@pytest.mark.parametrize("change", ["flip", "cut", "sign"])
def test_damaged_batches_are_computed_again(tmp_path, change):
    folder, rng = tmp_path / "kept", np.random.default_rng(3)
    entered = FrozenOutput({}, torch.randn(2, 5, 4), {"index": 2}, torch.tensor([5, 3]))
    FrozenLayerCache(folder, "a").put(ASK, entered)
    path = folder / ("fingerprint" if change == "sign" else "000003.kept")
    whole = path.read_bytes()
    for _ in range(60):
        torn = bytearray(whole)
        place = int(rng.integers(len(whole)))
        torn[place] ^= int(rng.integers(1, 256))
        path.write_bytes(whole[:place] if change == "cut" else torn)
        assert FrozenLayerCache(folder, "a").get(ASK, CPU) is None
        FrozenLayerCache(folder, "a").put(ASK, entered)
        assert same(FrozenLayerCache(folder, "a").get(ASK, CPU).hidden, entered.hidden)
        assert path.read_bytes() == whole


def test_a_changed_recording_gives_another_fingerprint(tmp_path):
    path = tmp_path / "r.wav"
    path.write_bytes(b"1")
    segments = [Segment("a", str(path), 0.0, 1.0)]
    of = SimpleNamespace(encoder={}), SimpleNamespace(segments=segments)
    run = TrainingContext(
        None, FinetuneConfig(), "random", device="cpu", ranks=1, stop=lambda: False
    )
    before = _sign(*of, run)
    assert _sign(*of, run) == before
    path.write_bytes(b"2")
    os.utime(path, ns=(1, 1))
    changed = _sign(*of, run)
    path.write_bytes(b"22")
    os.utime(path, ns=(1, 1))
    assert len({before, changed, _sign(*of, run)}) == 3


@pytest.mark.parametrize("places", [(0, 1, 2), (0,)])
@pytest.mark.parametrize("kind", ["layer", "group", "wavlm", "w2v-bert"])
def test_scores_and_gradients_are_the_same_bits_with_it_and_without(
    make_module, make_batch, tmp_path, kind, places
):
    kept = FrozenLayerCache(tmp_path / "kept", "a")
    found = []
    for cache in (None, kept, kept):
        module = make_module(kind, freeze_encoder_layers=2, cache=cache).train()
        torch.manual_seed(4)
        scores = module(make_batch(*places))
        scores.square().sum().backward()
        gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        found.append({"scores": scores, **gradients})
    assert (tmp_path / "kept" / "000000.kept").is_file()
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.equal(other[name], value) for name, value in found[0].items())


def test_the_state_at_the_cut_itself_may_be_kept(make_module, make_batch, tmp_path):
    kept = FrozenLayerCache(tmp_path / "kept", "a")
    scores = []
    for cache in (None, kept, kept):
        module = make_module("layer", freeze_encoder_layers=2, states="2", cache=cache).train()
        torch.manual_seed(4)
        scores.append(module(make_batch()))
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])


def test_it_is_read_instead_of_running_what_lies_below(make_module, make_batch, tmp_path):
    kept = FrozenLayerCache(tmp_path / "kept", "a")
    module = make_module("layer", freeze_encoder_layers=2, cache=kept).train()
    seen = []
    module.trunk.model.encoder.layers[0].register_forward_hook(lambda *_: seen.append(1))
    module(make_batch())
    module(make_batch(epoch=1))
    assert seen == [1]
    module.eval()(make_batch())  # what is scored has other batches of the same numbers
    assert seen == [1, 1]


@pytest.mark.parametrize(
    ("settings", "wanted", "least", "message"),
    [
        ({"crop_seconds": 3.0}, (3,), 2, "crop_seconds is 3.0, which changes what is below"),
        ({"mask_seconds": 0.2}, (3,), 2, "mask_seconds is 0.2"),
        ({"mask_dims": 0.1}, (3,), 2, "mask_dims is 0.1"),
        ({"speed_prob": 0.5}, (3,), 2, "speed_prob is 0.5"),
        ({"noise_prob": 0.5}, (3,), 2, "noise_prob is 0.5"),
        ({"reverb_prob": 0.5}, (3,), 2, "reverb_prob is 0.5"),
        ({"gain_prob": 0.5}, (3,), 2, "gain_prob is 0.5"),
        ({"channel_prob": 0.5}, (3,), 2, "channel_prob is 0.5"),
        ({}, (3,), 0, "freeze_encoder_layers is 0 .in the end"),
        ({"states": "mix"}, (0, 1, 2, 3), 2, "states are 'mix', and state 0 .* the cut at 2"),
    ],
)
def test_where_the_output_would_differ_it_is_refused(settings, wanted, least, message):
    with pytest.raises(InputError, match=f"^--cache-prefix: {message}.*; leave out one of the two"):
        check_cacheable(FinetuneConfig(**settings), wanted, least, least)


def test_frozen_layers_that_never_change_are_kept():
    assert check_cacheable(FinetuneConfig(), (3,), 2, 2) is None  # and raises nothing
    assert check_cacheable(FinetuneConfig(states="2"), (2,), 2, 2) is None
