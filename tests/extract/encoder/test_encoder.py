"""The encoder against plain transformers, and against itself in other batches."""

import json
import math

import numpy as np
import pytest
import torch
import transformers

from spk.common.errors import InputError
from spk.extract.encoder.encoder import load_encoder

SAME = 1e-5  # relative, float32: kernels add up in another order when shapes differ
LENGTHS = (16000, 400, 5000, 31000, 719, 17777, 23456, 8000, 560)
LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
KINDS = {
    "wav2vec2-layer": ("Wav2Vec2", LAYER),
    "wav2vec2-group": ("Wav2Vec2", {}),
    "hubert": ("Hubert", {}),
    "hubert-batch-norm": ("Hubert", {"conv_pos_batch_norm": True}),
    "wavlm": ("WavLM", {}),
    "wavlm-layer": ("WavLM", LAYER),
    "data2vec-audio": ("Data2VecAudio", {"conv_pos_kernel_size": 19, "num_conv_pos_embeddings": 5}),
    "unispeech-sat": ("UniSpeechSat", LAYER),
    "unispeech": ("UniSpeech", {}),
    "w2v-bert": ("Wav2Vec2Bert", {}),
    "w2v-bert-adapter": (
        "Wav2Vec2Bert",
        {
            "add_adapter": True,
            "use_intermediate_ffn_before_adapter": True,
            "output_hidden_size": 16,
        },
    ),
}
TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 8,
}
CONVOLUTIONS = {
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
# Positions are clipped within the test's lengths, and weights large enough that they matter.
CONFORMER = {"right_max_position_embeddings": 3, "initializer_range": 0.3}


def save_encoder(path, name, **changes):
    bert = name == "Wav2Vec2Bert"
    shape = {**TRANSFORMER, **(CONFORMER if bert else CONVOLUTIONS), **changes}
    torch.manual_seed(3)
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**shape))
    for module in model.modules():  # not those of an untouched norm or table
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
        if isinstance(module, torch.nn.Embedding) and bert:
            module.weight.data.normal_()
    model.eval().save_pretrained(path)
    if bert:
        processor = transformers.SeamlessM4TFeatureExtractor(padding_value=1.0)  # as the real one
    else:
        processor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    name, changes = KINDS[request.param]
    return save_encoder(tmp_path_factory.mktemp(request.param), name, **changes)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("bert"), "Wav2Vec2Bert")


@pytest.fixture(scope="module")
def waveforms():
    rng = np.random.default_rng(0)
    return [
        (np.linspace(0.02, 0.2, n) * rng.standard_normal(n) + 0.01).astype(np.float32)
        for n in LENGTHS
    ]


@pytest.fixture
def long_enough(folder, waveforms):
    """Return the waveforms that make a frame: two windows of 400 samples, 160 apart, or one."""
    least = 560 if "bert" in folder.name else 400
    return [waveform for waveform in waveforms if len(waveform) >= least]


def plain_inputs(folder, waveform):
    """Return what transformers' own processor makes of a waveform.

    The one of w2v-BERT adds up in float32, which errs by 1e-6; the weights here make ten times that
    of it. So its mean and variance are taken in float64, and rounded where it has float32.
    """
    processor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    if "M4T" not in type(processor).__name__:
        return processor(waveform, sampling_rate=16000, return_tensors="pt")
    raw = processor._extract_fbank_features

    def normalized(samples):
        mels = raw(samples).astype(np.float64)
        centred = mels - mels.mean(0).astype(np.float32)
        return (centred / np.sqrt(mels.var(0, ddof=1) + 1e-7)).astype(np.float32)

    processor._extract_fbank_features = normalized
    options = {"do_normalize_per_mel_bins": False, "return_tensors": "pt"}
    return processor(waveform, sampling_rate=16000, **options)


def plain_states(folder, waveform):
    """Return (frames, layers, hidden) by transformers alone, the last one after the final norm."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = plain_inputs(folder, waveform)
    bert = "input_features" in inputs  # has no final norm, but the processor's frames of padding
    if not bert:
        inputs.pop("attention_mask", None)
    with torch.no_grad():
        found = model(**inputs, output_hidden_states=True)
    last = found.hidden_states[-1] if bert else found.last_hidden_state
    states = torch.stack([*found.hidden_states[:-1], last], dim=2)[0].numpy()
    return states[inputs["attention_mask"][0].numpy() == 1] if bert else states


def difference(found, expected):
    assert found.shape == expected.shape
    return (np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)).max()


@pytest.mark.slow
def test_states_in_a_batch_are_those_of_plain_transformers_alone(folder, long_enough):
    found = load_encoder(str(folder)).states(long_enough, layers=[0, 1, 2, 3])
    for states, waveform in zip(found, long_enough, strict=True):
        assert difference(states, plain_states(folder, waveform)) < SAME


@pytest.mark.slow
def test_features_are_mean_and_deviation_of_those_states(folder, long_enough):
    features, frames = load_encoder(str(folder)).encode(long_enough, layers=[0, 1, 2, 3])
    assert features.dtype == np.float32
    for row, count, waveform in zip(features, frames, long_enough, strict=True):
        states = plain_states(folder, waveform)
        assert count == len(states)
        expected = np.concatenate([states.mean(axis=0), states.std(axis=0)], axis=-1)
        assert difference(row, expected) < SAME


def test_features_do_not_depend_on_the_batch(folder, long_enough):
    encoder = load_encoder(str(folder))
    together, frames = encoder.encode(long_enough, layers=[0, 1, 2, 3])
    for i, waveform in enumerate(long_enough):
        alone, count = encoder.encode([waveform], layers=[0, 1, 2, 3])
        assert count[0] == frames[i]
        assert difference(together[i], alone[0]) < SAME


def test_features_do_not_depend_on_the_order(group_encoder, waveforms):
    encoder = load_encoder(str(group_encoder))
    there, _ = encoder.encode(waveforms, layers=[3])
    back, _ = encoder.encode(waveforms[::-1], layers=[3])
    assert difference(back[::-1], there) < SAME


def test_layers_come_as_asked_and_do_not_depend_on_each_other(layer_encoder, waveforms):
    encoder = load_encoder(str(layer_encoder))
    every, _ = encoder.encode(waveforms, layers=[0, 1, 2, 3])
    some, _ = encoder.encode(waveforms, layers=[2, 0])
    np.testing.assert_array_equal(some, every[:, [2, 0]])


def test_layers_above_the_last_asked_for_do_not_run(layer_encoder, waveforms):
    encoder = load_encoder(str(layer_encoder))
    seen = []
    blocks = encoder._model.encoder.layers
    for i, block in enumerate(blocks, start=1):
        block.register_forward_pre_hook(lambda module, inputs, i=i: seen.append(i))
    encoder.encode(waveforms, layers=[1])
    assert seen == [1]


def test_every_pooling_is_a_part_of_the_same_statistics(layer_encoder, waveforms):
    encoder = load_encoder(str(layer_encoder))
    both, _ = encoder.encode(waveforms, layers=[1, 3])
    mean, _ = encoder.encode(waveforms, layers=[1, 3], pooling="mean")
    std, _ = encoder.encode(waveforms, layers=[1, 3], pooling="std")
    np.testing.assert_array_equal(np.concatenate([mean, std], axis=2), both)
    largest, _ = encoder.encode(waveforms, layers=[1, 3], pooling="max")
    states = encoder.states(waveforms, layers=[1, 3])
    expected = np.stack([rows.max(axis=0) for rows in states])
    np.testing.assert_allclose(largest, expected, rtol=SAME)


@pytest.mark.parametrize("pooling", ["mean+std", "std", "max"])
def test_windows_of_a_long_waveform_add_up(layer_encoder, waveforms, pooling):
    encoder = load_encoder(str(layer_encoder))
    waveform = waveforms[3]  # 31000 samples: three windows of at most 0.7 s
    found, frames = encoder.encode([waveform], layers=[2], pooling=pooling, max_seconds=0.7)
    scaled = (waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-7)
    encoder._front.normalized = False  # the whole is normalised, not its windows
    states = [encoder.states([part], layers=[2])[0] for part in np.array_split(scaled, 3)]
    rows = np.concatenate(states)[:, 0]
    assert frames[0] == len(rows)
    parts = {"mean": rows.mean(axis=0), "std": rows.std(axis=0), "max": rows.max(axis=0)}
    expected = np.concatenate([parts[name] for name in pooling.split("+")])
    assert difference(found[0, 0], expected) < SAME


def test_long_and_short_waveforms_come_in_the_order_given(layer_encoder, waveforms):
    encoder = load_encoder(str(layer_encoder))
    rows = [waveforms[i] for i in (0, 3, 2)]  # the second alone is longer than a window
    together, frames = encoder.encode(rows, layers=[0, 2], max_seconds=1.5)
    for row, found, count in zip(rows, together, frames, strict=True):
        alone, counts = encoder.encode([row], layers=[0, 2], max_seconds=1.5)
        np.testing.assert_allclose(found, alone[0], rtol=1e-3, atol=1e-4)
        assert count == counts[0]


def test_windows_of_states_follow_each_other(layer_encoder, waveforms):
    encoder = load_encoder(str(layer_encoder))
    long, short = encoder.states([waveforms[3], waveforms[0]], layers=[2], max_seconds=1.0)
    assert len(long) == 2 * math.floor((15500 - 400) / 320 + 1)
    np.testing.assert_array_equal(short, encoder.states([waveforms[0]], layers=[2])[0])


@pytest.mark.parametrize("pooling", ["mean+std", "std", "max"])
def test_windows_of_log_mel_frames_add_up_and_none_is_lost(bert, waveforms, pooling):
    encoder = load_encoder(str(bert))
    found, frames = encoder.encode([waveforms[3]], layers=[2], pooling=pooling, max_seconds=0.7)
    inputs = plain_inputs(bert, waveforms[3]).input_features
    assert frames[0] == inputs.shape[1] == 96  # of 192 log-mel frames; in three windows
    model = transformers.AutoModel.from_pretrained(bert).eval()
    with torch.no_grad():
        states = [
            model(part, output_hidden_states=True).hidden_states[2][0]
            for part in torch.tensor_split(inputs, 3, dim=1)
        ]
    rows = torch.cat(states).numpy()
    parts = {"mean": rows.mean(axis=0), "std": rows.std(axis=0), "max": rows.max(axis=0)}
    expected = np.concatenate([parts[name] for name in pooling.split("+")])
    assert difference(found[0, 0], expected) < SAME
    whole = encoder.states([waveforms[3]], layers=[2], max_seconds=0.7)[0]
    assert difference(whole[:, 0], rows) < SAME


@pytest.mark.parametrize("samples", [1121, 1440, 3361, 5600])
def test_the_shortest_windows_allowed_have_a_frame_each(bert, layer_encoder, samples):
    waveform = np.random.default_rng(1).standard_normal(samples).astype(np.float32)
    for folder, shortest in ((bert, 560), (layer_encoder, 400)):
        encoder = load_encoder(str(folder))
        least = 2 * shortest / 16000
        features, _ = encoder.encode([waveform], layers=[3], max_seconds=least)
        assert np.isfinite(features).all()
        with pytest.raises(InputError, match=f"--max-seconds: value is .* at least {least} s"):
            encoder.encode([waveform], layers=[3], max_seconds=least - 1e-4)


def test_w2v_bert_says_its_front_end_and_its_shortest_segment(bert, waveforms):
    encoder = load_encoder(str(bert))
    expected = (
        "log-mel of SeamlessM4TFeatureExtractor, zero mean and unit variance per bin and segment"
    )
    assert encoder.provenance()["normalization"] == expected
    assert (encoder.rate, encoder.layer_count, encoder.hidden_size) == (16000, 3, 32)
    assert encoder.encode([waveforms[8]], layers=[0])[1].tolist() == [1]  # 560 samples
    with pytest.raises(InputError, match="waveform 0: samples are 559, expected at least 560"):
        encoder.encode([waveforms[8][:559]], layers=[0])


def test_half_a_frame_of_padding_is_no_frame(bert, waveforms):
    odd = waveforms[2]  # 5000 samples: 29 log-mel frames, of which the processor makes 15 pairs
    _, frames = load_encoder(str(bert)).encode([waveforms[0], odd], layers=[0])
    assert frames.tolist() == [49, 14]


def test_w2v_bert_in_bfloat16_stays_near_float32(bert, waveforms):
    exact, _ = load_encoder(str(bert)).encode(waveforms[2:5], layers=[3])
    near, _ = load_encoder(str(bert), dtype="bfloat16").encode(waveforms[2:5], layers=[3])
    assert 1e-5 < difference(near, exact) < 5e-2


def test_without_a_preprocessor_the_norm_decides_on_normalisation(tmp_path, layer_encoder):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((layer_encoder / name).read_bytes())
    assert load_encoder(str(tmp_path)).provenance()["normalization"].startswith("zero mean")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["feat_extract_norm"] == "layer"


def test_a_preprocessor_that_does_not_normalise_is_obeyed(group_encoder, waveforms):
    encoder = load_encoder(str(group_encoder))  # its do_normalize is false
    assert encoder.provenance()["normalization"] == "none"
    found = encoder.states([waveforms[0]], layers=[0, 1, 2, 3])[0]
    assert difference(found, plain_states(group_encoder, waveforms[0])) < SAME


def test_the_convolution_of_positions_has_its_weight_norm_folded(layer_encoder):
    encoder = load_encoder(str(layer_encoder), dtype="bfloat16")
    plain = transformers.AutoModel.from_pretrained(layer_encoder)
    conv = encoder._model.encoder.pos_conv_embed.conv
    assert not hasattr(conv, "parametrizations")
    torch.testing.assert_close(
        conv.weight, plain.encoder.pos_conv_embed.conv.weight.bfloat16(), rtol=0, atol=0
    )


def test_bfloat16_stays_near_float32(layer_encoder, waveforms):
    exact, _ = load_encoder(str(layer_encoder)).encode(waveforms, layers=[3])
    encoder = load_encoder(str(layer_encoder), dtype="bfloat16")
    assert encoder.provenance()["compute_dtype"] == "bfloat16"
    assert 1e-5 < difference(encoder.encode(waveforms, layers=[3])[0], exact) < 5e-2


def test_auto_on_a_cpu_is_float32(layer_encoder):
    encoder = load_encoder(str(layer_encoder), device="cpu")
    assert encoder.provenance()["compute_dtype"] == "float32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpu", "dtype": "float16"}, "'float16' on a CPU, expected float32 or bfloat16"),
        ({"dtype": "int8"}, "--dtype: value is 'int8', expected one of"),
        ({"device": "gpu"}, "--device: value is 'gpu', expected auto, cpu, cuda"),
        ({"device": "cuda:99"}, "--device: 'cuda:99' is not there"),
    ],
)
def test_a_device_or_format_that_is_not_there_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        load_encoder("demo", **options)


def test_layers_poolings_and_waveforms_are_checked(layer_encoder, waveforms):
    encoder = load_encoder(str(layer_encoder))
    with pytest.raises(InputError, match=r"--layers: value is \[4\], expected 0 to 3"):
        encoder.encode(waveforms, layers=[0, 4])
    with pytest.raises(InputError, match="--pooling: value is 'median', expected one of"):
        encoder.encode(waveforms, layers=[0], pooling="median")
    with pytest.raises(InputError, match="waveform 1: samples are 399, expected at least 400"):
        encoder.encode([waveforms[0], waveforms[0][:399]], layers=[0])


def test_the_untrained_encoder_is_the_same_each_time_and_says_so(waveforms):
    first, second = load_encoder("untrained"), load_encoder("untrained")
    assert first.provenance() == second.provenance()
    assert first.provenance()["untrained"] is True
    features, _ = first.encode(waveforms, layers=range(first.layer_count + 1))
    again, _ = second.encode(waveforms, layers=range(first.layer_count + 1))
    np.testing.assert_array_equal(features, again)


def test_demo_is_another_name_of_the_untrained_encoder():
    demo = load_encoder("demo").provenance()
    assert demo == load_encoder("untrained").provenance()
    assert demo["encoder"] == "untrained"


def test_the_untrained_encoder_leaves_the_users_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_encoder("demo")
    assert torch.equal(torch.rand(1), expected)


def test_the_untrained_encoder_does_not_depend_on_the_batch(waveforms):
    encoder = load_encoder("demo")
    together, _ = encoder.encode(waveforms, layers=[0, 5])
    alone = np.concatenate([encoder.encode([w], layers=[0, 5])[0] for w in waveforms])
    assert difference(together, alone) < SAME


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_is_told_what_to_do_without_being_waited_for(layer_encoder):
    encoder = load_encoder(str(layer_encoder), device="cuda", dtype="float32")
    rng = np.random.default_rng(0)
    rows = [rng.uniform(-1, 1, 8000).astype(np.float32) for _ in range(3)]
    expected = encoder.encode(rows, layers=[0, 3])[0]  # and what is set up on first use is there
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = encoder.encode_async(rows, [0, 3], "mean+std", math.inf)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    np.testing.assert_allclose(batch.result()[0], expected, rtol=SAME, atol=SAME)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpus_float32_features_are_a_cpus(layer_encoder, group_encoder):
    rng = np.random.default_rng(0)
    rows = [rng.uniform(-1, 1, count).astype(np.float32) for count in LENGTHS]
    for folder in (layer_encoder, group_encoder):
        found, expected = (
            load_encoder(str(folder), device=device, dtype="float32").encode(rows, layers=[0, 3])[0]
            for device in ("cuda", "cpu")
        )
        error = np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
        assert error.max() < 10 * SAME  # other kernels
