"""Every setting of an encoder that changes its states is compared with transformers' own states."""

import json

import numpy as np
import pytest
import torch
import transformers

from spk.common.errors import InputError
from spk.extract.encoder.encoder import load_encoder
from spk.extract.encoder.switches import OF_OTHERS, OF_STATES, check_switches, settings_of_kind

SAME = 5e-5  # relative, float32, of large random weights: kernels add up in another order
NAMES = [
    "Wav2Vec2",
    "Hubert",
    "WavLM",
    "Data2VecAudio",
    "UniSpeech",
    "UniSpeechSat",
    "Wav2Vec2Bert",
]
SHAPE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 8,
    "initializer_range": 0.3,
    "hidden_dropout": 0.0,
}
CONVOLUTIONS = {
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 5,
    "num_conv_pos_embedding_groups": 2,
}
COMMON = [
    {"hidden_act": "relu"},
    {"layer_norm_eps": 0.1},
    {"num_attention_heads": 4, "hidden_size": 24, "intermediate_size": 40},
    {"num_hidden_layers": 3},
]
OF_WAVEFORMS = [
    {"feat_extract_activation": "relu"},
    {"conv_dim": (6, 8), "conv_kernel": (400, 2), "conv_stride": (320, 1), "conv_bias": True},
    {"num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 4},
    {"use_weighted_layer_sum": True, "layerdrop": 0.9, "mask_time_prob": 0.9},
]
NORMS = [
    {"feat_extract_norm": "layer", "conv_bias": True},
    {"do_stable_layer_norm": True},
    {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
]
ADAPTED = [{"add_adapter": True}, {"add_adapter": True, "output_hidden_size": 12}]
OWN = {
    "Wav2Vec2": [*NORMS, *ADAPTED, {"adapter_attn_dim": 4}, {"adapter_attn_dim": 4, **NORMS[1]}],
    "Hubert": [
        *NORMS,
        {"feat_proj_layer_norm": False},
        {"conv_pos_batch_norm": True},
        {"adapter_attn_dim": 4, **NORMS[1]},
    ],
    "WavLM": [*NORMS, *ADAPTED, {"num_buckets": 8}, {"max_bucket_distance": 20, "num_buckets": 16}],
    "Data2VecAudio": [*ADAPTED, {"conv_pos_kernel_size": 4}],
    "UniSpeech": NORMS,
    "UniSpeechSat": NORMS,
    "Wav2Vec2Bert": [
        {"feature_projection_input_dim": 80},
        {"conv_depthwise_kernel_size": 7},
        {"left_max_position_embeddings": 3},
        {"right_max_position_embeddings": 2},
        {"add_adapter": True, "use_intermediate_ffn_before_adapter": True, "adapter_act": "gelu"},
    ],
}
GENERAL = [{"output_hidden_states": True}, {"return_dict": False}, {"dtype": "float16"}]
CASES = [
    (name, changes)
    for name in NAMES
    for changes in (*COMMON, *(OF_WAVEFORMS if name != "Wav2Vec2Bert" else ()), *OWN[name])
] + [("Wav2Vec2", changes) for changes in GENERAL]


@pytest.fixture(scope="module")
def waveform():
    return np.random.default_rng(2).standard_normal(12000).astype(np.float32)


def save_encoder(folder, name, **changes):
    bert = name == "Wav2Vec2Bert"
    base = {**SHAPE, **({"right_max_position_embeddings": 3} if bert else CONVOLUTIONS)}
    stored = {key: value for key, value in changes.items() if key not in ("dtype", "return_dict")}
    torch.manual_seed(4)
    model = getattr(transformers, f"{name}Model")(
        getattr(transformers, f"{name}Config")(**{**base, **stored})
    )
    for part in model.parameters():  # biases and norms matter too
        part.data += 0.1 * torch.randn_like(part)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
    model.eval().save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    if bert:
        bins = model.config.feature_projection_input_dim // 2
        extractor = transformers.SeamlessM4TFeatureExtractor(num_mel_bins=bins, feature_size=bins)
    else:
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    extractor.save_pretrained(folder)


def own_states(folder, waveform):
    """Return (frames, layers, hidden) by transformers alone; the last after the final norm."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt")
    bert = "input_features" in inputs
    if not bert:
        inputs.pop("attention_mask", None)
    with torch.no_grad():
        states = list(model(**inputs, output_hidden_states=True, return_dict=True).hidden_states)
    if getattr(model.config, "do_stable_layer_norm", False):  # transformers 5 gives it before
        norm = model.encoder.layer_norm
        states[-1] = norm(states[-1]) if int(transformers.__version__[0]) >= 5 else states[-1]
    found = torch.stack(states, dim=2)[0].detach().numpy()
    return found[inputs["attention_mask"][0].numpy() == 1] if bert else found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes"), CASES, ids=[f"{n}-{'-'.join(c)}" for n, c in CASES])
def test_states_are_transformers_own(tmp_path, waveform, name, changes):
    save_encoder(tmp_path, name, **changes)
    expected = own_states(tmp_path, waveform)
    encoder = load_encoder(str(tmp_path))
    found = encoder.states([waveform], layers=range(encoder.layer_count + 1))[0]
    assert found.shape == expected.shape
    apart = np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert apart.max() < SAME


def test_every_setting_that_changes_states_is_compared():
    compared = {key for _, changes in CASES for key in changes} & OF_STATES
    shapes = {"num_feat_extract_layers", "position_embeddings_type"}  # a length; one kind only
    assert OF_STATES - compared == shapes


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_the_installed_transformers_is_known(name):
    settings = settings_of_kind(getattr(transformers, f"{name}Config"))
    assert {"hidden_size", "num_hidden_layers", "layerdrop"} <= settings
    assert settings - OF_STATES - OF_OTHERS == set()


class LaterConfig(transformers.Wav2Vec2Config):
    """A configuration of a transformers to come."""

    def __init__(self, turned_around=False, scaled=1.0, **rest):
        super().__init__(**rest)
        self.turned_around, self.scaled = turned_around, scaled


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"turned_around": True}, "turned_around is True"), ({"scaled": 0.5}, "scaled is 0.5")],
)
def test_a_setting_that_is_not_known_here_is_refused_unless_at_its_default(
    tmp_path, settings, message
):
    path = tmp_path / "config.json"
    check_switches(path, LaterConfig, {"turned_around": False, "scaled": 1.0, "hidden_size": 5})
    check_switches(path, LaterConfig, {"pooling_mode": "mean"})  # of no class: nobody looks at it
    with pytest.raises(InputError, match=f"{message}, which this version of spk does not know"):
        check_switches(path, LaterConfig, settings)
