"""An adapter beside the weights is merged as PEFT would, or refused; it is never passed over."""

import json
import math

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from spk.common.errors import InputError
from spk.extract.encoder.checkpoint import find_checkpoint
from spk.extract.encoder.encoder import load_encoder

RANK, ALPHA = 4, 10
SETTINGS = {
    "peft_type": "LORA",
    "base_model_name_or_path": "some/base",
    "r": RANK,
    "lora_alpha": ALPHA,
    "target_modules": ["q_proj", "output_dense"],
    "bias": "none",
    "fan_in_fan_out": False,
    "use_dora": False,
    "lora_dropout": 0.1,
    "megatron_core": "megatron.core",
    "loftq_config": {},
    "use_qalora": False,
    "qalora_group_size": 16,
    "init_lora_weights": True,
    "modules_to_save": None,
}
TARGETS = [
    f"encoder.layers.{layer}.{part}"
    for layer in range(3)
    for part in ("attention.q_proj", "feed_forward.output_dense")
]
SAME = 1e-6


@pytest.fixture
def adapted(tmp_path, layer_encoder):
    """Return a function that puts an adapter beside an encoder's files."""
    weights = load_file(layer_encoder / "model.safetensors")

    def make(name="adapted", prefix="base_model.model.", drop=(), more=None, **changes):
        folder = tmp_path / name
        folder.mkdir()
        for file in layer_encoder.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        torch.manual_seed(1)
        tensors = {}
        for target in TARGETS:
            out, into = weights[f"{target}.weight"].shape
            tensors[f"{prefix}{target}.lora_A.weight"] = torch.randn(RANK, into)
            tensors[f"{prefix}{target}.lora_B.weight"] = torch.randn(out, RANK) / 10
        tensors = {key: tensor for key, tensor in tensors.items() if key not in drop}
        save_file({**tensors, **(more or {})}, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({**SETTINGS, **changes}))
        return folder

    return make


def merged_by_hand(folder, scale):
    """Return transformers' model of the folder's own weights, plus scale B A in float64."""
    weights = load_file(folder / "model.safetensors")
    adapter = load_file(folder / "adapter_model.safetensors")
    for target in TARGETS:
        a, b = (
            next(t for key, t in adapter.items() if key.endswith(f"{target}.lora_{x}.weight"))
            for x in "AB"
        )
        whole = weights[f"{target}.weight"].double() + scale * b.double() @ a.double()
        weights[f"{target}.weight"] = whole.float()
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.Wav2Vec2Model(config).eval()
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, ALPHA / RANK),
        ({"use_rslora": True}, ALPHA / math.sqrt(RANK)),
        ({"lora_alpha": 3.5, "init_lora_weights": "gaussian"}, 3.5 / RANK),
        ({"target_modules": r".*(q_proj|output_dense)"}, ALPHA / RANK),
    ],
)
def test_states_are_those_of_weights_merged_by_hand(adapted, layer_encoder, changes, scale):
    folder = adapted(**changes)
    encoder = load_encoder(str(folder))
    waveform = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    found = encoder.states([waveform], layers=[1, 3])[0]
    values = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
    with torch.no_grad():
        states = merged_by_hand(folder, scale)(
            torch.from_numpy(values)[None], output_hidden_states=True
        )
    expected = torch.stack([states.hidden_states[1], states.last_hidden_state], 2)[0].numpy()
    assert np.abs(found - expected).max() / np.abs(expected).max() < 10 * SAME
    plain = load_encoder(str(layer_encoder))
    assert np.abs(plain.states([waveform], layers=[1, 3])[0] - expected).max() > 0.1
    (note,) = encoder.notes
    assert "adapter_config.json: the LoRA adapter (rank 4, 6 layers) is merged" in note
    assert encoder.provenance()["weights_sha256"] != plain.provenance()["weights_sha256"]


def test_an_adapter_trained_below_a_head_is_the_same(adapted):
    head = {"base_model.model.classifier.weight": torch.ones(2, 8)}
    folders = adapted(), adapted("headed", "base_model.model.wav2vec2.", more=head)
    waveform = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    found = [load_encoder(str(f)).states([waveform], layers=[3])[0] for f in folders]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', expected 'LORA'"),
        ({"peft_type": None}, "peft_type is None, expected 'LORA'"),
        ({"use_dora": True}, "use_dora is True, expected none"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', expected one of"),
        ({"alpha_pattern": {"q_proj": 3}}, r"alpha_pattern is \{'q_proj': 3\}, expected none"),
        ({"bias": "lora_only"}, "bias is 'lora_only', expected 'none'"),
        ({"a_new_way": "on"}, "a_new_way is 'on', expected none"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True, expected none"),
        ({"r": 0}, "r is 0, expected a number above 0"),
        ({"r": 2}, "rank of .* is 4, expected 2, the r of adapter_config.json"),
        ({"target_modules": ["q_proj", "output_dense", "v_proj"]}, "3 of 9 layers have no matr"),
    ],
)
def test_what_cannot_be_merged_exactly_is_refused_by_name(adapted, changes, message):
    with pytest.raises(InputError, match=message):
        load_encoder(str(adapted(**changes)))


FIRST = "base_model.model.encoder.layers.0.attention.q_proj"


@pytest.mark.parametrize(
    ("drop", "more", "message"),
    [
        ([f"{FIRST}.lora_B.weight"], {}, r"'encoder.layers.0.attention.q_proj' have shapes \[\(4"),
        ([], {f"{FIRST}.lora_magnitude_vector": torch.ones(32)}, "is not a matrix A or B of LoRA"),
        ([], {f"{FIRST}.bias": torch.ones(32)}, "q_proj.bias' is not a matrix A or B"),
        (
            [f"{FIRST}.lora_B.weight"],
            {f"{FIRST}.lora_B.weight": torch.ones(31, RANK)},
            r"expected \[\(4, 32\), \(32, 4\)\]",
        ),
        (
            [],
            {
                "base_model.model.encoder.pos_conv_embed.conv.lora_A.weight": torch.ones(4, 16, 1),
                "base_model.model.encoder.pos_conv_embed.conv.lora_B.weight": torch.ones(32, 4, 1),
            },
            "expected those of a linear layer",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(adapted, drop, more, message):
    with pytest.raises(InputError, match=message):
        load_encoder(str(adapted(drop=drop, more=more)))


def test_an_adapter_without_its_encoder_says_what_to_copy_and_that_works(adapted, layer_encoder):
    folder = adapted()
    for name in ("model.safetensors", "config.json"):
        (folder / name).unlink()
    message = "holds an adapter of 'some/base' .* copy adapter_config.json and adapter_model.safe"
    with pytest.raises(InputError, match=message):
        find_checkpoint(str(folder))
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes((layer_encoder / name).read_bytes())
    assert find_checkpoint(str(folder)).adapter


@pytest.mark.parametrize("gone", ["adapter_config.json", "adapter_model.safetensors"])
def test_half_an_adapter_is_refused(adapted, gone):
    folder = adapted()
    (folder / gone).unlink()
    with pytest.raises(InputError, match=f"adapter has .* but no {gone}, expected both"):
        find_checkpoint(str(folder))


def test_an_adapter_of_a_head_alone_is_refused(adapted):
    drop = [f"base_model.model.{t}.lora_{x}.weight" for t in TARGETS for x in "AB"]
    more = {"base_model.model.classifier.lora_A.weight": torch.ones(4, 8)}
    with pytest.raises(InputError, match="no tensor of the adapter is of the encoder"):
        load_encoder(str(adapted(drop=drop, more=more, target_modules=["classifier"])))
