"""Where an encoder's files are looked for, and what is refused before weights are loaded."""

import hashlib
import json

import pytest
import torch

from spk.common.errors import InputError
from spk.extract.encoder.checkpoint import find_checkpoint
from spk.extract.encoder.encoder import load_encoder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return an empty hub cache that is used instead of the user's."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def change(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_is_identified_by_its_weights(layer_encoder):
    known = load_encoder(str(layer_encoder)).provenance()
    weights = (layer_encoder / "model.safetensors").read_bytes()
    assert known["encoder"] == layer_encoder.name
    assert known["revision"] == "local"
    assert known["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    config = (layer_encoder / "config.json").read_bytes()
    assert known["encoder_config_sha256"] == hashlib.sha256(config).hexdigest()
    assert known["untrained"] is False


def test_offline_and_not_cached_names_the_folder_and_the_download(hub):
    message = r"some/encoder: encoder is not available .*run `hf download some/encoder`.*--encoder"
    with pytest.raises(InputError, match=message):
        load_encoder("some/encoder")


@pytest.mark.parametrize(("typed", "meant"), [("smal", "small"), ("mfc", "mfcc")])
def test_a_misspelt_built_in_encoder_is_named(hub, typed, meant):
    with pytest.raises(InputError, match=f"^{typed}: encoder .*; pass --encoder {meant} if that"):
        load_encoder(typed)


def test_an_encoder_of_the_hub_is_not_taken_for_a_misspelt_one(hub):
    with pytest.raises(InputError, match="run `hf download my/small`"):
        load_encoder("my/small")


def test_a_cached_encoder_has_its_commit_as_revision(hub, layer_encoder):
    repository = hub / "models--some--encoder"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for file in layer_encoder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    known = load_encoder("some/encoder", revision="main").provenance()
    assert (known["encoder"], known["revision"]) == ("some/encoder", COMMIT)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(InputError, match="its weights are not in the hub's cache"):
        load_encoder("some/encoder")
    assert find_checkpoint("some/encoder", weights=False).layer_count == 3


@pytest.mark.parametrize("name", ["/no/such/folder", "./absent", "a/b/c", "../x"])
def test_what_is_neither_folder_nor_id_is_refused(name):
    with pytest.raises(InputError, match="is not a folder, expected a folder or a hub id"):
        find_checkpoint(name)


def test_a_folder_has_no_revision(layer_encoder):
    with pytest.raises(InputError, match="--revision: value is 'main' for the folder"):
        find_checkpoint(str(layer_encoder), revision="main")


@pytest.mark.parametrize("kind", ["sew", "whisper", "wav2vec2-conformer", None])
def test_another_architecture_is_refused(copy, kind):
    change(copy, model_type=kind)
    with pytest.raises(InputError, match=f"model_type is {kind!r}, expected one of"):
        load_encoder(str(copy))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("preprocessor_config.json", None, "file is missing, expected the settings of Seamless"),
        (
            "preprocessor_config.json",
            {"feature_extractor_type": "Wav2Vec2FeatureExtractor"},
            "feature_extractor_type is 'Wav2Vec2FeatureExtractor', expected 'Seamless",
        ),
        ("preprocessor_config.json", {"stride": 4}, "stride is 4, expected 2; choose"),
        ("preprocessor_config.json", {"num_mel_bins": 40}, "num_mel_bins is 40, expected 80"),
        (
            "config.json",
            {"position_embeddings_type": "rotary"},
            "position_embeddings_type is 'rotary', expected 'relative_key'",
        ),
    ],
)
def test_w2v_bert_needs_the_feature_extractor_that_it_was_trained_with(
    tmp_path, file, changes, message
):
    settings = {"config.json": {"model_type": "wav2vec2-bert"}}
    settings["preprocessor_config.json"] = {"feature_extractor_type": "SeamlessM4TFeatureExtractor"}
    for name, content in settings.items():
        (tmp_path / name).write_text(json.dumps(content))
    known = find_checkpoint(str(tmp_path), weights=False)
    assert (known.layer_count, known.hidden_size, known.input.rate) == (24, 1024, 16000)
    (tmp_path / file).unlink()
    if changes is not None:
        (tmp_path / file).write_text(json.dumps({**settings[file], **changes}))
    with pytest.raises(InputError, match=rf"{file}: {message}"):
        find_checkpoint(str(tmp_path), weights=False)


def test_a_folder_without_weights_or_configuration_is_refused(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(InputError, match="are missing, expected one; save the model there"):
        load_encoder(str(copy))
    (copy / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: cannot be read"):
        load_encoder(str(copy))


def test_damaged_weights_are_refused(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="weights cannot be read"):
        load_encoder(str(copy))


def test_weights_that_are_not_there_are_not_made_up(copy):
    change(copy, num_hidden_layers=4)
    with pytest.raises(InputError, match=r"\d+ weights are missing or of another shape, first"):
        load_encoder(str(copy))


def test_a_pickle_that_would_run_code_is_not_run(copy, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "ran"), "w")

    (copy / "model.safetensors").unlink()
    torch.save({"x": Evil()}, copy / "pytorch_model.bin")
    with pytest.raises(InputError, match="weights cannot be read"):
        load_encoder(str(copy))
    assert not (tmp_path / "ran").exists()


def test_code_beside_the_weights_is_not_run(copy, tmp_path):
    change(copy, auto_map={"AutoModel": "evil.Evil"})
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    load_encoder(str(copy))
    assert not (tmp_path / "ran").exists()
