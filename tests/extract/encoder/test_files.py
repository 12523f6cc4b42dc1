"""What only stands for a file of an encoder, or is not what transformers would take it for."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from spk.common.errors import InputError
from spk.extract.encoder.checkpoint import find_checkpoint
from spk.extract.encoder.encoder import load_encoder
from spk.extract.encoder.loading import load_encoder_parts

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 1262000000\n"


def change(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite(folder, change_tensors):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change_tensors(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, "it is a git-lfs pointer, .* run `git lfs pull` in .*copy"),
        ("# xet version 0\nfilesize = 12\n", "it is a git-lfs pointer, .* `git xet pull`"),
        ("\n<!DOCTYPE html><html>not found", "it is a web page, expected a file of the encoder"),
        ("", "it is empty, expected a file of the encoder; fetch it again"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_a_file_that_stands_for_another_is_named_as_what_it_is(copy, name, content, message):
    (copy / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}: {message}"):
        load_encoder(str(copy))


def test_a_pointer_instead_of_a_pickle_or_of_one_of_several_files_is_named(copy):
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    (copy / "model-00002-of-00002.safetensors").write_text(LFS)
    with pytest.raises(InputError, match=r"model-00002-of-00002\.safetensors: it is a git-lfs"):
        find_checkpoint(str(copy))
    for file in copy.glob("*.safetensors"):
        file.unlink()
    (copy / "pytorch_model.bin").write_text(LFS)
    with pytest.raises(InputError, match=r"pytorch_model\.bin: it is a git-lfs pointer"):
        find_checkpoint(str(copy))


@pytest.mark.parametrize(
    ("key", "method"),
    [
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("quantization_config", {"quant_method": "gptq", "bits": 4}),
        ("quantization_config", {}),
        ("compression_config", {"quant_method": "compressed-tensors"}),
    ],
)
def test_a_quantized_encoder_is_refused_and_the_repair_works(copy, key, method):
    name = method.get("quant_method")
    change(copy / "config.json", **{key: method})
    message = rf"{key} asks for quantized weights \({name!r}\).*; delete {key} from the file"
    with pytest.raises(InputError, match=message):
        load_encoder(str(copy))
    config = json.loads((copy / "config.json").read_text())
    del config[key]
    (copy / "config.json").write_text(json.dumps(config))
    load_encoder(str(copy))


def test_no_quantization_is_none(copy):
    plain = load_encoder(str(copy)).provenance()
    change(copy / "config.json", quantization_config=None)
    assert load_encoder(str(copy)).provenance()["weights_sha256"] == plain["weights_sha256"]


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_that_are_no_floating_point_numbers_are_refused(copy, kind):
    name = "encoder.layers.0.attention.q_proj.weight"
    rewrite(copy, lambda tensors: tensors.update({name: (tensors[name] * 50).abs().to(kind)}))
    with pytest.raises(InputError, match=f"1 weight is not in floating point, first '{name}"):
        load_encoder(str(copy))
    change(copy / "config.json", quantization_config={"quant_method": "fp8"})
    with pytest.raises(InputError, match="'fp8'.*name the encoder that it was made from"):
        load_encoder(str(copy))


def test_weights_are_not_rounded_to_the_dtype_that_the_configuration_names(copy):
    name = "encoder.layers.0.attention.q_proj.weight"
    plain = load_file(copy / "model.safetensors")[name]
    for key in ("dtype", "torch_dtype"):
        change(copy / "config.json", **{key: "float16"})
        found = load_encoder_parts(str(copy)).model.encoder.layers[0].attention.q_proj.weight
        assert torch.equal(found, plain)


def test_a_missing_package_is_reported_as_such(copy, monkeypatch):
    def absent(*_, **__):
        raise ImportError("needs accelerate:\nrun `pip install accelerate`\n")

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", absent)
    message = r"a package that it needs is missing \(needs accelerate:\), expected it; install it$"
    with pytest.raises(InputError, match=message):
        load_encoder(str(copy))


def test_a_pickle_that_holds_more_than_tensors_gets_one_line(copy):
    (copy / "model.safetensors").unlink()
    torch.save({"x": copy}, copy / "pytorch_model.bin")
    with pytest.raises(InputError, match="or holds more than tensors, which could run") as caught:
        load_encoder(str(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "wav2vec2."])
def test_unused_encoder_weights_are_reported_and_a_head_s_are_not(copy, prefix):
    def prefixed(tensors):
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)
        tensors["lm_head.weight"] = torch.ones(8, 32)
        tensors["quantizer.codevectors"] = torch.ones(3)

    rewrite(copy, prefixed)
    assert load_encoder(str(copy)).notes == ()
    change(copy / "config.json", num_hidden_layers=2)
    (note,) = load_encoder(str(copy)).notes
    assert "16 weights have no place in the encoder that config.json describes" in note
    assert "encoder.layers.2.attention.k_proj.bias" in note


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForXVector"])
def test_a_head_s_own_mix_of_layers_is_reported(tmp_path, layer_encoder, head):
    config = transformers.AutoConfig.from_pretrained(layer_encoder)
    config.use_weighted_layer_sum = True
    config.tdnn_dim, config.tdnn_kernel, config.tdnn_dilation = (8, 8), (3, 1), (1, 1)
    getattr(transformers, f"Wav2Vec2{head}")(config).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    (note,) = load_encoder(str(tmp_path)).notes
    assert "mix of layers (use_weighted_layer_sum) is left out with the head" in note


def test_adapters_of_languages_beside_the_weights_are_reported(tmp_path, layer_encoder):
    config = transformers.AutoConfig.from_pretrained(layer_encoder)
    config.adapter_attn_dim = 4
    transformers.Wav2Vec2ForCTC(config).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    assert load_encoder(str(tmp_path)).notes == ()
    for language in ("cmn", "deu"):
        save_file({"x": torch.ones(1)}, tmp_path / f"adapter.{language}.safetensors")
    (note,) = load_encoder(str(tmp_path)).notes
    assert "2 language adapters lie beside the weights, first adapter.cmn.safetensors" in note
