"""The model as a whole: its scores, what its optimiser moves, its temperature, what it keeps."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spk.classify.classifiers.calibration import find_temperature
from spk.common.errors import InputError
from spk.finetune.config import POOLINGS
from spk.finetune.data.dataset import Batch, BatchIndex
from spk.finetune.model.heads import class_weights
from spk.finetune.model.module import (
    check_same_model,
    derive_seed,
    selection_score,
)

SAME = 1e-5  # relative to scores of about 1, float32: kernels add up in another order
HEAD = {  # of an mlp
    *("mix", "head.body.0.weight", "head.body.0.bias", "head.body.1.weight", "head.body.1.bias"),
    *("head.body.1.running_mean", "head.body.1.running_var", "head.body.1.num_batches_tracked"),
    *("head.out.weight", "head.out.bias"),
}
LAYER = "trunk.model.encoder.layers.2."
WHOLE = {"freeze_encoder_layers": 0, "freeze_feature_extractor": False}


@pytest.mark.parametrize("kind", ["layer", "group", "wavlm", "w2v-bert"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_scores_of_a_padded_batch_are_those_of_batches_of_one(
    make_module, make_batch, kind, pooling
):
    module = make_module(kind, freeze_encoder_layers=1, pooling_method=pooling).eval()
    with torch.no_grad():
        together = module(make_batch())
        alone = torch.cat([module(make_batch(place)) for place in range(3)])
    assert together.shape == (3, 3)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, rtol=SAME, atol=SAME)
    assert together.std(dim=0).min() > 100 * SAME  # not all alike anyway


def test_the_mix_begins_equal_and_learns(make_module, make_batch):
    module = make_module("layer", freeze_encoder_layers=1, states="mix", head="linear").eval()
    entered = module.trunk.run_frozen(
        *module.trunk.prepare(make_batch().waveforms, torch.device("cpu"))
    )
    mean = torch.stack(module.trunk.run_trainable(entered)).mean(0)
    scores = module(make_batch())
    expected = module.head(module.pooling(mean, entered.frames))
    torch.testing.assert_close(scores, expected, rtol=SAME, atol=SAME)
    scores.square().sum().backward()
    assert module.mix.grad.shape == (4,)
    assert module.mix.grad.all()
    assert not make_module("layer", freeze_encoder_layers=1).mix.requires_grad


def test_the_same_seed_and_task_begin_with_the_same_weights(make_module):
    first, again, other, task = (
        make_module("layer", freeze_encoder_layers=1, seed=seed, task=task).head.out.weight
        for seed, task in ((1, "M1"), (1, "M1"), (2, "M1"), (1, "M2"))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, task)


def test_a_training_step_of_one_segment_is_finite_and_reaches_the_head(make_module, make_batch):
    module = make_module("layer", freeze_encoder_layers=2, loss="aam").train()
    module._log = lambda *_: None
    found = module.training_step(make_batch(1), 0)
    found.backward()
    assert math.isfinite(float(found.detach()))
    assert torch.isfinite(module.head.out.weight.grad).all()


def test_class_weights_enter_the_training_loss_where_asked_for(make_module, make_batch):
    codes = torch.tensor([0, 0, 0, 1, 2])
    module = make_module("layer", freeze_encoder_layers=2, class_weights="balanced", codes=codes)
    module.eval()._log = lambda *_: None
    scores = module(make_batch())
    losses = nn.functional.cross_entropy(scores, torch.tensor([0, 1, 2]), reduction="none")
    expected = (losses * class_weights(codes, 3)).mean()  # the batch has one segment of each label
    torch.testing.assert_close(module.training_step(make_batch(), 0), expected)
    assert make_module("layer", freeze_encoder_layers=2, codes=codes).weights is None


def test_validation_counts_an_unknown_label_as_wrong_and_leaves_it_out_of_the_loss(
    make_module, make_batch
):
    module = make_module("layer", freeze_encoder_layers=2).eval()
    logged = {}
    module._log = lambda name, value, count: logged.update({name: (float(value), count)})
    plain = make_batch()
    codes = module(plain).argmax(1)
    codes[2] = -1
    with torch.no_grad():
        scores = module(plain)
        module.validation_step(Batch(plain.ask, plain.waveforms, codes), 0)
    assert logged["val_acc"] == (pytest.approx(2 / 3), 3)
    expected = float(nn.functional.cross_entropy(scores[:2], codes[:2]))
    assert logged["val_loss"] == (pytest.approx(expected), 2)
    module.on_validation_epoch_end()
    assert module.temperature == find_temperature(scores.double().numpy(), codes.numpy())
    assert module._checked == []


def grouped(module):
    """Return {name: (first learning rate, weight decay)} of the optimiser's parameters."""
    names = {id(p): name for name, p in module.named_parameters()}
    groups = module.configure_optimizers().param_groups
    found = [(names[id(p)], g["first_lr"], g["weight_decay"]) for g in groups for p in g["params"]]
    assert len({name for name, *_ in found}) == len(found)
    assert all(group["lr"] == group["first_lr"] for group in groups)
    return {name: rates for name, *rates in found}


def test_the_optimiser_holds_every_open_tensor_once_at_its_rate(make_module):
    settings = {"learning_rate": 1e-4, "layer_decay": 0.5, "weight_decay": 0.02, **WHOLE}
    module = make_module("layer", head_learning_rate=1e-3, pooling_method="attentive", **settings)
    found = grouped(module)
    opened = {name for name, p in module.named_parameters() if p.requires_grad}
    assert {*found} == opened | {"mix"}
    model = "trunk.model."
    expected = {
        f"{model}encoder.layers.2.": 1e-4,
        f"{model}encoder.layers.1.": 0.5e-4,
        f"{model}encoder.layers.0.": 0.25e-4,
        f"{model}encoder.layer_norm.": 1e-4,
        f"{model}feature_projection.": 0.125e-4,
        f"{model}encoder.pos_conv_embed.": 0.125e-4,
        f"{model}feature_extractor.": 0.0625e-4,
        "head.": 1e-3,
        "pooling.": 1e-3,
        "mix": 1e-3,
    }
    for name, rates in found.items():
        (rate,) = [rate for beginning, rate in expected.items() if name.startswith(beginning)]
        assert rates == [pytest.approx(rate), 0.02], name
    assert grouped(make_module("layer", **settings))["head.out.bias"] == [1e-4, 0.02]


def test_an_epoch_is_a_function_of_seed_task_and_number(make_module):
    """Its drawings, its open layers and its rates, whatever came before."""
    schedule = {"freeze_encoder_layers": "all", "unfreeze": "1:2"}
    rates = {"lr_step": 2, "lr_gamma": 0.5, "learning_rate": 1e-4, "head_learning_rate": 1e-3}
    drawn = {}
    for order in ((0, 1, 2, 5), (5, 2, 1, 0)):
        module = make_module("layer", **schedule, **rates)
        optimiser = module.configure_optimizers()
        for epoch in order:
            trainer = SimpleNamespace(
                current_epoch=epoch, global_rank=0, optimizers=[optimiser], world_size=1
            )
            module._trainer = trainer
            module.on_train_epoch_start()
            drawn.setdefault(epoch, []).append(float(torch.rand(())))
            found = [group["lr"] for group in optimiser.param_groups]
            factor = 0.5 ** (epoch // 2)
            assert found == pytest.approx([1e-4 * factor, 1e-4 * factor, 1e-3 * factor])
            opened = [n for n, p in module.trunk.named_parameters() if p.requires_grad]
            assert bool(opened) == (epoch > 0)
    assert all(first == second for first, second in drawn.values())
    assert len({first for first, _ in drawn.values()}) == 4


def test_seeds_differ_by_every_part_and_are_the_same_everywhere():
    seeds = [
        derive_seed(1, "M", 0),
        derive_seed(1, "M", 1),
        derive_seed(2, "M", 0),
        derive_seed(1, "N", 0),
    ]
    assert len({*seeds}) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    # sha256 of "1/M/0", first 8 bytes, halved: by sha256sum
    assert derive_seed(1, "M", 0) == int("089e585640c83e30", 16) >> 1


def test_merit_is_accuracy_and_then_the_lower_loss():
    codes = torch.tensor([0, 1, 2, -1])
    sure = 9 * torch.eye(4, 3)
    unsure, wrong = 1 * torch.eye(4, 3), 9 * torch.eye(4, 3).roll(1, dims=1)
    assert selection_score(sure, codes) > selection_score(unsure, codes) > 0.75
    assert selection_score(sure, codes) < 0.75 + 1 / 8 + 1e-9
    assert selection_score(wrong, codes) < 0.01
    assert selection_score(sure, torch.full((4,), -1)) == 0


@pytest.mark.parametrize(
    ("kind", "settings", "trunk"),
    [
        ("layer", {"freeze_encoder_layers": "all"}, ()),
        ("layer", {"freeze_encoder_layers": 2}, (LAYER, "trunk.model.encoder.layer_norm.")),
        ("group", {"freeze_encoder_layers": 2}, (LAYER,)),
        ("layer", {"freeze_encoder_layers": "all", "unfreeze": "1:2", "states": "2"}, ()),
        ("hubert", WHOLE, ("trunk.model.feature_", "trunk.model.encoder.")),
    ],
)
def test_what_is_kept_is_what_is_ever_open(make_module, kind, settings, trunk):
    module = make_module(kind, **settings)
    found = module.trained_names()
    assert {name for name in found if not name.startswith("trunk.")} == HEAD
    state = module.state_dict()
    expected = {name for name in state if trunk and name.startswith(trunk)}
    assert found - HEAD == expected
    if kind == "hubert":  # its running statistics change in training too
        assert "trunk.model.encoder.pos_conv_embed.batch_norm.running_mean" in found


def test_a_checkpoint_leaves_out_the_rest_unless_asked_to_keep_it(make_module):
    for keep in (False, True):
        module = make_module("layer", freeze_encoder_layers=2, keep_encoder=keep)
        module.temperature = 1.5
        checkpoint = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        expected = {*module.state_dict()} if keep else module.trained_names()
        assert {*checkpoint["state_dict"]} == expected
        known = checkpoint["spk"]
        assert (known["task"], known["labels"], known["split"]) == ("M1", ["a", "b", "c"], "random")
        assert known["temperature"] == 1.5
        assert known["settings"]["freeze_encoder_layers"] == 2
        assert known["encoder"]["weights_sha256"] == module.subject.encoder["weights_sha256"]


def test_the_checkpoint_of_another_encoder_or_task_is_refused(make_module):
    module = make_module("layer", freeze_encoder_layers=2)
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    known, subject = checkpoint["spk"], module.subject
    check_same_model(known, subject)
    check_same_model({**known, "encoder": {**known["encoder"], "encoder": "elsewhere"}}, subject)
    check_same_model({**known, "task": "M1 ", "labels": ["a", "b ", "c"]}, subject)  # from before
    changes = [
        (
            {"encoder": {**known["encoder"], "weights_sha256": "0f"}},
            "weights_sha256 is .*, expected '0f'",
        ),
        ({"encoder": {}}, "weights_sha256 is .*, expected None"),
        ({"task": "M2"}, "checkpoint of M2: task is 'M2', expected 'M1'; use the table that it"),
        ({"labels": ["a", "c", "b"]}, r"labels is \('a', 'c', 'b'\), expected \('a', 'b', 'c'\)"),
    ]
    for change, message in changes:
        with pytest.raises(InputError, match=message):
            check_same_model({**known, **change}, subject)
    for nothing in (None, {}):
        with pytest.raises(InputError, match="does not say what it was trained on"):
            check_same_model(nothing, subject)
    checkpoint["spk"]["temperature"] = 2.5
    module.on_load_checkpoint(checkpoint)
    assert module.temperature == 2.5


def test_the_largest_batch_that_fitted_is_remembered(make_module, waveforms):
    module = make_module("layer", freeze_encoder_layers=2)
    for rows in (waveforms[1:2], waveforms, waveforms[2:]):
        batch = Batch(BatchIndex(0, 0, ()), rows, torch.zeros(len(rows)))
        module.on_train_batch_end(None, batch, 0)
    assert module.largest == 3 * 16000
