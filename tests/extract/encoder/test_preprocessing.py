"""What enters a model is what transformers' own feature extractor of the same folder makes."""

import json
import re

import numpy as np
import pytest
import torch
import transformers

from spk.common.errors import InputError
from spk.extract.encoder.checkpoint import find_checkpoint
from spk.extract.encoder.device import DeviceTransfer
from spk.extract.encoder.encoder import load_encoder
from spk.extract.encoder.loading import load_front_end

SAME = 1e-6  # absolute, of numbers around 1: two orders of summation in float32
# transformers sums log-mel features (around 10) frame after frame in float32, we in float64
ROUNDED = 2e-5
STEP = 4e-6  # a step of float32 at 10, which the logarithm is rounded to, over a deviation of 0.3
LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
FAMILIES = {
    "wav2vec2": ("Wav2Vec2", ({}, LAYER)),
    "hubert": ("Hubert", ({}, LAYER)),
    "wavlm": ("WavLM", ({}, LAYER)),
    "unispeech": ("UniSpeech", ({}, LAYER)),
    "unispeech-sat": ("UniSpeechSat", ({}, LAYER)),
    "data2vec-audio": ("Data2VecAudio", ({"conv_pos_kernel_size": 3},)),
    "wav2vec2-bert": ("Wav2Vec2Bert", ({},)),
}
SHAPE = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 8,
}
CONVOLUTIONS = {
    "conv_dim": (4,) * 7,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
PROCESSOR, PREPROCESSOR = "processor_config.json", "preprocessor_config.json"


@pytest.fixture(scope="module")
def waveform():
    rng = np.random.default_rng(5)
    return (0.02 * rng.standard_normal(16400) + 0.01).astype(np.float32)  # quiet, with an offset


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Return a tokenizer, without which a processor is not saved."""
    vocabulary = tmp_path_factory.mktemp("tokenizer") / "vocab.json"
    vocabulary.write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}))
    return transformers.Wav2Vec2CTCTokenizer(str(vocabulary))


@pytest.fixture
def group_folder(tmp_path, group_encoder):
    """Return a folder with an encoder of group norm that nothing describes the input of."""
    return describe(tmp_path / "bare", group_encoder)


def describe(folder, encoder, **files):
    """Copy an encoder's configuration and weights, and write JSON files beside them."""
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((encoder / name).read_bytes())
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def make_model(name, **changes):
    shape = {**SHAPE, **({} if name == "Wav2Vec2Bert" else CONVOLUTIONS), **changes}
    config = getattr(transformers, f"{name}Config")(**shape)
    return getattr(transformers, f"{name}Model")(config)


def extractors(name):
    """Return the feature extractors of both kinds of do_normalize, or w2v-BERT's."""
    if name == "Wav2Vec2Bert":
        return [transformers.SeamlessM4TFeatureExtractor(padding_value=1.0)]
    kind = transformers.Wav2Vec2FeatureExtractor
    return [kind(do_normalize=say, padding_value=float(say)) for say in (True, False)]


def forms(folder, name, extractor, tokenizer):
    """Yield after each way in which a folder may describe its input."""
    kind = "Wav2Vec2BertProcessor" if name == "Wav2Vec2Bert" else "Wav2Vec2Processor"
    processor = getattr(transformers, kind)(feature_extractor=extractor, tokenizer=tokenizer)
    extractor.save_pretrained(folder)  # preprocessor_config.json alone
    yield
    processor.save_pretrained(folder)  # both
    yield
    if (folder / PROCESSOR).exists():  # transformers 5: they may contradict each other
        other = json.loads((folder / PREPROCESSOR).read_text())
        (folder / PREPROCESSOR).write_text(
            json.dumps({**other, "do_normalize": not other.get("do_normalize")})
        )
        yield
        (folder / PREPROCESSOR).unlink()  # processor_config.json alone
        yield
    else:
        nested = {"feature_extractor": extractor.to_dict()}
        (folder / PROCESSOR).write_text(json.dumps(nested, default=list))
        yield
    for file in (PROCESSOR, PREPROCESSOR):
        (folder / file).unlink(missing_ok=True)


def check_entry(folder, model, waveform):
    """Compare what enters the model with what transformers makes of the same folder."""
    front = load_front_end(find_checkpoint(str(folder), weights=False), model)
    own = transformers.AutoFeatureExtractor.from_pretrained(folder)
    made = own(waveform, sampling_rate=own.sampling_rate, return_tensors="np")
    expected = made["input_features" if "input_features" in made else "input_values"][0]
    batch, lengths = front.prepare([waveform[:9000], waveform], DeviceTransfer(torch.device("cpu")))
    found = batch[1, : int(lengths[1])].numpy()
    if "input_features" in made:  # half a frame of padding is none
        expected = expected[made["attention_mask"][0] == 1]
        np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDED)
        np.testing.assert_allclose(found, exact_features(own, waveform), rtol=0, atol=STEP)
        return
    np.testing.assert_allclose(found, expected, rtol=0, atol=SAME)


def exact_features(extractor, waveform):
    """Return the extractor's features (frames, channels), normalised in float64."""
    made = extractor(
        waveform, sampling_rate=16000, return_tensors="np", do_normalize_per_mel_bins=False
    )
    count = 1 + (len(waveform) - 400) // 160
    mels = made["input_features"][0].reshape(-1, extractor.num_mel_bins)[:count].astype(float)
    scaled = (mels - mels.mean(0)) / np.sqrt(mels.var(0, ddof=1) + 1e-7)
    return scaled[: count - count % 2].reshape(count // 2, -1)


def test_what_enters_is_what_transformers_makes_of_every_family_and_form(
    tmp_path, waveform, tokenizer
):
    compared = 0
    for family, (name, norms) in FAMILIES.items():
        for number, norm in enumerate(norms):
            folder = tmp_path / f"{family}-{number}"
            model = make_model(name, **norm)
            model.config.save_pretrained(folder)
            for extractor in extractors(name):
                for _ in forms(folder, name, extractor, tokenizer):
                    check_entry(folder, model, waveform)
                    compared += 1
    print(f"{len(FAMILIES)} families, {compared} combinations of norm, do_normalize and files")
    assert compared >= 12 * 2 * 3


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"preprocessor_config": {}}, True),  # the default of the class
        ({"preprocessor_config": {"do_normalize": None}}, False),
        ({"processor_config": {"feature_extractor": {"do_normalize": False}}}, False),
        ({"processor_config": {"audio_processor": {"do_normalize": True}}}, True),
        (
            {
                "processor_config": {"processor_class": "Wav2Vec2Processor"},
                "preprocessor_config": {"do_normalize": True},
            },
            True,
        ),
        (
            {
                "processor_config": {"feature_extractor": None},
                "preprocessor_config": {"do_normalize": False, "sampling_rate": 16000.0},
            },
            False,
        ),
    ],
)
def test_files_are_read_in_transformers_order(tmp_path, group_encoder, waveform, files, expected):
    folder = describe(tmp_path / "encoder", group_encoder, **files)
    encoder = load_encoder(str(folder))
    assert (encoder.provenance()["normalization"] != "none") is expected
    assert "assumed" not in encoder.provenance()
    assert encoder.notes == ()
    own = transformers.AutoFeatureExtractor.from_pretrained(folder)
    assert bool(own.do_normalize) is expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"feature_size": 2}, "feature_size is 2, expected 1"),
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, "'WhisperFeatureExtractor', exp"),
        (
            {"feature_extractor_type": "SeamlessM4TFeatureExtractor"},
            "feature_extractor_type is 'SeamlessM4TFeatureExtractor', expected 'Wav2Vec2Feature",
        ),
        ({"do_normalize": "yes"}, "do_normalize is 'yes', expected true or false"),
        ({"sampling_rate": "16k"}, "sampling_rate is '16k', expected a whole number of Hz"),
        ({"sampling_rate": None}, "sampling_rate is None, expected a whole number"),
    ],
)
@pytest.mark.parametrize("nested", [True, False])
def test_what_cannot_be_met_is_refused_by_file_and_name(
    tmp_path, group_encoder, content, message, nested
):
    name = "processor_config" if nested else "preprocessor_config"
    content = {"feature_extractor": content} if nested else content
    folder = describe(tmp_path / "encoder", group_encoder, **{name: content})
    with pytest.raises(InputError, match=rf"{name}\.json: .*{message}"):
        find_checkpoint(str(folder))


def test_a_nested_entry_that_is_not_an_object_is_refused(tmp_path, group_encoder):
    folder = describe(tmp_path / "e", group_encoder, processor_config={"feature_extractor": "x"})
    with pytest.raises(InputError, match="feature_extractor is 'x', expected a JSON object"):
        find_checkpoint(str(folder))


def test_unspecified_settings_are_assumed_and_reported(group_folder, layer_encoder, tmp_path):
    for folder, guess, value in (
        (group_folder, "waveforms that are not normalised .* group norm", "none"),
        (describe(tmp_path / "layer", layer_encoder), "normalised waveforms .* layer norm", "zero"),
    ):
        encoder = load_encoder(str(folder))
        assert encoder.provenance()["assumed"] == ["normalization", "rate"]
        assert encoder.provenance()["normalization"].startswith(value)
        (note,) = encoder.notes
        assert re.search(guess, note)
        assert "--normalize yes or --normalize no" in note


def test_the_option_decides_where_nobody_says_it(group_folder):
    for word, value in (("yes", "zero mean, unit variance per segment"), ("no", "none")):
        encoder = load_encoder(str(group_folder), normalize=word)
        assert encoder.provenance()["normalization"] == value
        assert encoder.provenance()["assumed"] == ["rate"]
        assert "16000 Hz is assumed" in encoder.notes[0]


def test_the_option_is_obeyed_against_the_file_and_that_is_reported(tmp_path, group_encoder):
    says = {"preprocessor_config": {"do_normalize": True}}
    folder = describe(tmp_path / "encoder", group_encoder, **says)
    encoder = load_encoder(str(folder), normalize="no")
    assert encoder.provenance()["normalization"] == "none"
    assert "--normalize: 'no' is used, though" in encoder.notes[0]
    assert load_encoder(str(folder), normalize="yes").notes == ()


def test_the_demo_encoder_obeys_the_option_too(waveform):
    plain, asked = load_encoder("demo"), load_encoder("demo", normalize="no")
    assert asked.provenance()["normalization"] == "none"
    features = [encoder.encode([waveform], layers=[2])[0] for encoder in (plain, asked)]
    assert np.abs(features[0] - features[1]).max() > 1e-3


def test_w2v_bert_has_no_waveform_to_normalise(tmp_path):
    make_model("Wav2Vec2Bert").config.save_pretrained(tmp_path)
    transformers.SeamlessM4TFeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="--normalize: value is 'no' for .* leave it out"):
        find_checkpoint(str(tmp_path), normalize="no", weights=False)


def test_the_padding_value_does_not_reach_a_segment(tmp_path, group_encoder, waveform):
    features = []
    for value in (0.0, 1.0):
        folder = describe(
            tmp_path / str(value), group_encoder, preprocessor_config={"padding_value": value}
        )
        encoder = load_encoder(str(folder))
        features.append(encoder.encode([waveform[:8000], waveform], layers=[0, 3])[0])
    np.testing.assert_array_equal(*features)
