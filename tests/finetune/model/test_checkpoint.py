"""Checkpoints on disk: what is read is what was saved, nothing in it runs, others are refused."""

import json
import pickle
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from spk.common.errors import InputError
from spk.extract.audio import ReadOptions
from spk.finetune.config import FinetuneConfig
from spk.finetune.data.dataset import Batch, BatchIndex, SegmentDataset
from spk.finetune.model.checkpoint import (
    autocast,
    load_finetuned,
    load_weights,
    model_name,
    predictions_table,
    read_checkpoint,
    score_segments,
)
from spk.finetune.model.module import ModelIdentity
from spk.manifests.splits.tasks import WITHIN_CORPUS


def save(module, path, weights_only=False):
    """Write a model by Lightning's own hand."""
    import lightning.pytorch as lightning

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        trainer = lightning.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.strategy.connect(module)
        trainer.save_checkpoint(path, weights_only=weights_only)
    return path


def changed(module, batch):
    """Take a step in training mode, so that everything open differs from the encoder's."""
    module.train()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    module(batch).square().mean().backward()
    optimiser.step()
    module.temperature = 1.75
    return module


@pytest.fixture(scope="module")
def saved(make_module, make_batch, tmp_path_factory):
    """Return a trained model and its checkpoint; what trains is the last layer and the head."""
    module = changed(make_module("layer", freeze_encoder_layers=2), make_batch())
    return module, save(module, tmp_path_factory.mktemp("saved") / "M1-best.ckpt")


def test_lightnings_checkpoint_holds_what_trained_alone(saved):
    module, path = saved
    found = read_checkpoint(path)["state_dict"]
    assert {*found} == module.trained_names()
    assert all(torch.equal(found[name], module.state_dict()[name]) for name in found)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("layer", {"freeze_encoder_layers": 2}),
        ("layer", {"freeze_encoder_layers": 2, "keep_encoder": True}),
        ("group", {"freeze_encoder_layers": "all", "states": "mix", "head": "linear"}),
        ("hubert", {"freeze_encoder_layers": 0, "freeze_feature_extractor": False}),
        ("wavlm", {"freeze_encoder_layers": 0, "pooling_method": "attentive", "loss": "aam"}),
    ],
)
def test_what_is_loaded_scores_as_what_was_saved(make_module, make_batch, tmp_path, kind, settings):
    module = make_module(kind, **settings)
    with torch.no_grad():
        before = module.eval()(make_batch())
    changed(module, make_batch())
    path = save(module, tmp_path / "a.ckpt", weights_only=True)
    loaded = load_finetuned(path)
    assert not loaded.training
    with torch.no_grad():
        expected = module.eval()(make_batch())
        assert torch.equal(loaded(make_batch()), expected)
        assert not torch.equal(before, expected)
    assert loaded.temperature == 1.75
    assert loaded.subject == module.subject
    assert loaded.settings == module.settings


def test_the_encoder_may_lie_elsewhere_but_not_be_another(saved, encoder_of, tmp_path):
    module, path = saved
    elsewhere = shutil.copytree(encoder_of("layer"), tmp_path / "moved")
    loaded = load_finetuned(path, encoder=str(elsewhere))
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    with pytest.raises(InputError, match="checkpoint of M1: weights_sha256 is '[0-9a-f]{64}', exp"):
        load_finetuned(path, encoder=str(encoder_of("group")))


def test_another_encoder_is_reported_even_if_the_settings_do_not_fit_it(
    make_module, encoder_of, tmp_path
):
    path = save(make_module("demo", freeze_encoder_layers=4), tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="checkpoint of M1: weights_sha256 is"):
        load_finetuned(path, encoder=str(encoder_of("layer")))  # of three layers


class Trap:
    """Pickled as a call that makes a file."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return (open, (str(self._path), "w"))


def test_nothing_in_a_checkpoint_is_run(saved, tmp_path):
    content = torch.load(saved[1], weights_only=True)
    touched = tmp_path / "touched"
    torch.save({**content, "trap": Trap(touched)}, tmp_path / "trap.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Trap(touched)))
    for name in ("trap.ckpt", "plain.ckpt"):
        with pytest.raises(InputError, match=f"{name}: cannot be read .* train it again"):
            read_checkpoint(tmp_path / name)
        assert not touched.exists()
    torch.load(tmp_path / "trap.ckpt", weights_only=False)["trap"].close()
    assert touched.exists()  # the trap is one


def test_damaged_missing_and_foreign_files_are_refused(saved, tmp_path):
    whole = saved[1].read_bytes()
    path = tmp_path / "a.ckpt"
    for content in (whole[: len(whole) // 2], whole[:-30], b"", b"text", whole[100:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="a.ckpt: cannot be read .*expected a checkpoint of"):
            read_checkpoint(path)
    with pytest.raises(InputError, match="no.ckpt: no such file, expected a checkpoint"):
        read_checkpoint(tmp_path / "no.ckpt")
    known = read_checkpoint(saved[1])["spk"]
    del known["labels"]
    foreign = [{"state_dict": {}}, {"state_dict": {}, "spk": known}, {"spk": {}}, torch.ones(2), []]
    for content in foreign:
        torch.save(content, path)
        with pytest.raises(InputError, match="a.ckpt: does not say what it was trained on"):
            read_checkpoint(path)


def test_no_flipped_byte_of_a_checkpoint_is_read(saved, tmp_path):
    whole, known = saved[1].read_bytes(), read_checkpoint(saved[1])
    path, rng, refused = tmp_path / "a.ckpt", np.random.default_rng(2), 0
    for _ in range(60):
        torn = bytearray(whole)
        torn[rng.integers(len(whole))] ^= int(rng.integers(1, 256))
        path.write_bytes(torn)
        try:
            found = read_checkpoint(path)
        except InputError:
            refused += 1
            continue
        assert found["spk"] == known["spk"]
        assert found["state_dict"].keys() == known["state_dict"].keys()
        for name, tensor in known["state_dict"].items():
            assert torch.equal(found["state_dict"][name], tensor)
    assert refused > 30


def test_tensors_that_are_missing_or_do_not_fit_are_refused(saved, make_module):
    module = make_module("layer", freeze_encoder_layers=2)
    checkpoint = read_checkpoint(saved[1])
    state = checkpoint["state_dict"]
    load_weights(module, checkpoint)
    lacking = {name: value for name, value in state.items() if name != "head.out.bias"}
    with pytest.raises(InputError, match="M1: 1 tensor is missing and 0 do not .*'head.out.bias'"):
        load_weights(module, {**checkpoint, "state_dict": lacking})
    with pytest.raises(InputError, match="0 tensors are missing and 1 does not fit, first 'more'"):
        load_weights(module, {**checkpoint, "state_dict": {**state, "more": torch.ones(1)}})
    with pytest.raises(
        InputError, match="0 tensors .* 1 does not fit, first 'size mismatch.*out.bi"
    ):
        load_weights(
            module, {**checkpoint, "state_dict": {**state, "head.out.bias": torch.ones(9)}}
        )


def test_settings_of_another_version_are_refused(saved, tmp_path):
    content = torch.load(saved[1], weights_only=True)
    content["spk"]["settings"]["of_tomorrow"] = 1
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="a.ckpt: settings do not fit this version .*of_tomorrow"):
        load_finetuned(tmp_path / "a.ckpt")


def test_scores_come_in_the_order_of_the_segments(saved, segments):
    module, config = saved[0], FinetuneConfig(batch_seconds=2.0)
    found = SegmentDataset(segments, np.zeros(9, np.int64), ReadOptions(), {}, config)
    scores = score_segments(module.train(), found, config)
    assert scores.shape == (9, 3)
    assert scores.dtype == np.float32
    for place in range(9):
        batch = found[BatchIndex(0, 0, (place,))]
        with torch.no_grad():
            alone = module(Batch(batch.ask, batch.waveforms, batch.codes))[0]
        np.testing.assert_allclose(scores[place], alone, rtol=1e-4, atol=1e-5)


def test_the_precision_of_the_settings_is_that_of_the_model():
    cpu, ones = torch.device("cpu"), torch.ones(2, 2)
    for precision, expected in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(FinetuneConfig(dtype=precision), cpu):
            assert (ones @ ones).dtype == expected


def test_predictions_are_calibrated_chances_by_hand():
    rows = pd.DataFrame(
        {"segment_id": ["s0", "s1"], "session": "M1", "speaker": ["b", "z"], "split": "test"}
    )
    scores = np.array([[0.0, 2 * np.log(3), 0.0], [1e4, 0.0, 0.0]], np.float32)
    table = predictions_table(rows, scores, ("a", "b", "ü"), 2.0, "m")
    assert table["predicted"].tolist() == ["b", "a"]
    assert table["score"].tolist() == pytest.approx([0.6, 1.0])
    assert json.loads(table["scores"][0]) == {"a": 0.2, "b": 0.6, "ü": 0.2}
    assert table[["segment_id", "split", "model"]].to_numpy().tolist() == [
        ["s0", "test", "m"],
        ["s1", "test", "m"],
    ]


def test_the_models_name_says_what_makes_scores_doubtful():
    def named(untrained=False, split="random", **settings):
        subject = ModelIdentity("M", ("a", "b"), {"encoder": "e", "untrained": untrained}, split)
        return model_name(subject, FinetuneConfig(**settings))

    assert named() == "finetune e"
    assert named(untrained=True) == "finetune e, untrained encoder"
    assert named(split="leaky") == "finetune e, split leaky"
    assert named(within="corpus") == f"finetune e{WITHIN_CORPUS}"


def test_a_checkpoint_s_normalisation_is_the_one_it_was_trained_with(tmp_path, group_encoder):
    """Neither a file that came later, nor one that went, changes what enters a tuned model."""
    from spk.extract.encoder.loading import load_encoder_parts
    from spk.finetune.model.module import ModelIdentity, SpeakerModule

    folder = tmp_path / "encoder"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((group_encoder / name).read_bytes())
    config = FinetuneConfig(
        encoder=str(folder), normalize="yes", head_size=8, freeze_encoder_layers=2
    )
    parts = load_encoder_parts(str(folder), normalize=config.normalize)
    module = SpeakerModule(
        parts, ModelIdentity("M1", ("a", "b"), parts.provenance, "random"), config
    )
    checkpoint: dict = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["spk"]["encoder"]["normalization"].startswith("zero mean")
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false}')
    torch.save(checkpoint, tmp_path / "a.ckpt")
    assert load_finetuned(tmp_path / "a.ckpt").trunk.front.normalized
    del checkpoint["spk"]["encoder"]["normalization"]  # one from before it was written
    checkpoint["spk"]["settings"].pop("normalize")
    torch.save(checkpoint, tmp_path / "b.ckpt")
    assert not load_finetuned(tmp_path / "b.ckpt").trunk.front.normalized


def test_going_on_with_another_normalisation_is_refused():
    from spk.finetune.model.module import ModelIdentity, check_same_model

    encoder = {"weights_sha256": "a", "encoder_config_sha256": "b", "normalization": "none"}
    found = {"encoder": encoder, "task": "M1", "labels": ("a",)}
    check_same_model(found, ModelIdentity("M1", ("a",), encoder, "random"))
    other = {**encoder, "normalization": "zero mean"}
    with pytest.raises(InputError, match="normalization is 'zero mean', expected 'none'"):
        check_same_model(found, ModelIdentity("M1", ("a",), other, "random"))


def test_names_of_before_are_read_as_tables_are(saved, tmp_path):
    _, path = saved
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["spk"] |= {"task": "Bu\u0308ro", "labels": ["a ", "Jo\u0308rg", "c"]}
    torch.save(checkpoint, tmp_path / "old.ckpt")
    subject = load_finetuned(tmp_path / "old.ckpt").subject
    assert (subject.task, subject.labels) == ("B\u00fcro", ("a", "J\u00f6rg", "c"))


@pytest.mark.parametrize("change", [{"task": 7}, {"labels": 7}, {"labels": [1, "a", "b"]}])
def test_a_checkpoint_without_proper_names_is_refused(saved, tmp_path, change):
    _, path = saved
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["spk"] |= change
    torch.save(checkpoint, tmp_path / "forged.ckpt")
    with pytest.raises(InputError, match="does not say what it was trained on"):
        read_checkpoint(tmp_path / "forged.ckpt")
