"""Training and naming in bfloat16, with the casts that a GPU's autocast makes."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from spk.finetune.config import FinetuneConfig
from spk.finetune.model.heads import loss
from spk.finetune.prediction import predict
from spk.finetune.run import train_table
from spk.manifests.demo.corpus import demo
from spk.manifests.formats.build import make_table
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.splits.split import split_table
from spk.manifests.table import read_predictions

NARROW = 0.05  # relative, of scores: bfloat16 keeps 8 bits, through a dozen products
OPEN = {"freeze_encoder_layers": 0, "freeze_feature_extractor": False}
OPTIONS = (
    OPEN,
    {"gradient_checkpointing": True},
    {"mask_seconds": 0.1, "mask_dims": 0.2},
    {"states": "mix"},
)
EVERY = {name: value for options in OPTIONS for name, value in options.items()}
CHOICES = [
    {name: value for options in chosen for name, value in options.items()}
    for count in range(len(OPTIONS) + 1)
    for chosen in combinations(OPTIONS, count)
]


def bfloat16():
    return torch.autocast("cpu", torch.bfloat16)


def stepped(module, batch):
    """Take one training step; return the loss and the names of what has a gradient."""
    module.train()
    with bfloat16():
        cost = loss(module(batch), batch.codes, module.settings)
    cost.backward()
    grown = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    assert all(torch.isfinite(grad).all() for grad in grown.values() if grad is not None)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    return float(cost.detach()), {name for name, grad in grown.items() if grad is not None}


def test_the_imitation_casts_as_cuda_does(cuda_autocast):
    states = torch.randn(2, 3, 8)
    layer = torch.nn.Linear(8, 8)
    with bfloat16():
        narrow = layer(states)
        assert narrow.dtype == torch.bfloat16
        assert torch.nn.functional.layer_norm(narrow, (8,)).dtype == torch.float32
        assert narrow.softmax(-1).dtype == torch.float32
        with pytest.raises(RuntimeError, match="same dtype|dtype"):  # what autocast leaves alone
            torch.zeros(2, 3, 3).baddbmm_(narrow, narrow.transpose(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("settings", CHOICES, ids=lambda found: "+".join(found) or "none")
@pytest.mark.parametrize("kind", ["layer", "group"])
def test_a_step_in_bfloat16_reaches_what_one_in_float32_does(
    cuda_autocast, make_module, make_batch, kind, settings
):
    batch = make_batch()
    cost, reached = stepped(make_module(kind, **{"freeze_encoder_layers": 1, **settings}), batch)
    assert np.isfinite(cost)
    plain = make_module(kind, **{"freeze_encoder_layers": 1, **settings}).train()
    loss(plain(batch), batch.codes, plain.settings).backward()
    assert reached == {name for name, p in plain.named_parameters() if p.grad is not None}
    assert any(name.startswith("trunk.model.feature_extractor") for name in reached) == (
        "freeze_encoder_layers" in settings
    )


@pytest.mark.parametrize("kind", ["hubert", "wavlm", "data2vec", "w2v-bert"])
@pytest.mark.parametrize("settings", [{"freeze_encoder_layers": 1}, EVERY], ids=["frozen", "every"])
def test_encoders_of_other_kinds_step_too(cuda_autocast, make_module, make_batch, kind, settings):
    cost, reached = stepped(make_module(kind, **settings), make_batch())
    assert np.isfinite(cost)
    assert any(name.startswith("trunk.model.encoder.layers.2") for name in reached)


@pytest.mark.parametrize("kind", ["layer", "group", "wavlm", "w2v-bert"])
def test_scores_in_bfloat16_are_near_those_of_float32(cuda_autocast, make_module, make_batch, kind):
    module = make_module(kind, freeze_encoder_layers=1).eval()
    with torch.inference_mode():
        expected = module(make_batch())
        with bfloat16():
            found = module(make_batch())
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    assert (found - expected).norm() < NARROW * expected.norm()


@pytest.fixture(scope="module")
def meeting(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    demo(folder, sessions=1, minutes=1.5, speakers=2, channels=1)
    table = make_table(read_rttm(folder / "TextGrid"), audio_root=folder / "wav")
    table = split_table(table[table["end"] - table["start"] >= 1.0], gap=0.5)
    return folder, table


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["layer", "group"])
def test_fit_and_predict_run_in_bfloat16(cuda_autocast, encoder_of, meeting, tmp_path, kind):
    folder, table = meeting
    every = replace(FinetuneConfig(encoder=str(encoder_of(kind))), **EVERY)
    config = replace(
        every,
        audio_root=str(folder / "wav"),
        log_dir=str(tmp_path / "logs"),
        dtype="bfloat16",
        max_epochs=2,
        batch_seconds=10.0,
        accelerator="cpu",
    )
    sessions = train_table(table, config).sessions
    assert sessions["state"].tolist() == ["done"]
    written = read_predictions(Path(config.log_dir) / "version_0" / "predictions.csv")
    named = predict(config.log_dir, table, audio_root=config.audio_root, accelerator="cpu").table
    before = written[written["split"] == "test"].set_index("segment_id")["score"]
    after = named.set_index("segment_id")["score"]
    assert (before - after[before.index]).abs().max() < NARROW
