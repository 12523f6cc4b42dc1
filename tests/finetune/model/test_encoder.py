"""What trains and what doesn't, and that the way through a cut is the encoder's own."""

import numpy as np
import pytest
import torch

from spk.common.errors import InputError
from spk.extract.encoder.encoder import load_encoder
from spk.extract.encoder.loading import load_encoder_parts
from spk.finetune.config import FinetuneConfig
from spk.finetune.model.encoder import FRAME, PartlyFrozenEncoder, parse_layer_choice

SAME = 1e-5  # relative, float32: attention kernels add up in another order
KINDS = ("layer", "group", "hubert", "wavlm", "data2vec", "w2v-bert")
# What stands at the front of the names of the tensors that train, by hand.
CONVOLUTIONS = "feature_extractor."
ENTRY = ("feature_projection.", "encoder.pos_conv_embed.")
LAYERS = tuple(f"encoder.layers.{number}." for number in range(3))
NORM = "encoder.layer_norm."
WHOLE = {"freeze_encoder_layers": 0, "freeze_feature_extractor": False}
# (settings, open with a norm after the layers, open with a norm before them)
OPEN = [
    (WHOLE, (CONVOLUTIONS, *ENTRY, *LAYERS, NORM), (CONVOLUTIONS, *ENTRY, NORM, *LAYERS)),
    ({"freeze_encoder_layers": 0}, (*ENTRY, *LAYERS, NORM), (*ENTRY, NORM, *LAYERS)),
    ({"freeze_encoder_layers": 1}, (*LAYERS[1:], NORM), LAYERS[1:]),
    ({"freeze_encoder_layers": 2}, (LAYERS[2], NORM), (LAYERS[2],)),
    ({"freeze_encoder_layers": 3}, (), ()),
    ({"freeze_encoder_layers": "all"}, (), ()),
    ({"freeze_encoder_layers": 1, "states": "mix"}, (*LAYERS[1:], NORM), LAYERS[1:]),
    (
        {"freeze_encoder_layers": 0, "states": "mix"},
        (*ENTRY, *LAYERS, NORM),
        (*ENTRY, NORM, *LAYERS),
    ),
    ({"freeze_encoder_layers": 1, "states": "2"}, (LAYERS[1],), (LAYERS[1],)),
    ({"freeze_encoder_layers": 0, "states": "1"}, (*ENTRY, LAYERS[0]), (*ENTRY, NORM, LAYERS[0])),
    ({"freeze_encoder_layers": 0, "states": "0"}, ENTRY, (*ENTRY, NORM)),
    ({"freeze_encoder_layers": 2, "states": "1"}, (), ()),
]
SCHEDULE = {"freeze_encoder_layers": "all", "unfreeze": "1:2,3:0"}
SCHEDULED = {0: (), 1: (LAYERS[2], NORM), 2: (LAYERS[2], NORM), 3: (*ENTRY, *LAYERS, NORM)}
# A key's bias adds the same to all scores of a query, which softmax takes away: gradient 0.
WITHOUT_EFFECT = ".k_proj.bias"


def outcome(trunk, waveforms):
    """Return one number that depends on every state asked for."""
    entered = trunk.run_frozen(*trunk.prepare(waveforms, torch.device("cpu")))
    probe = torch.randn(32, generator=torch.Generator().manual_seed(9))
    states = trunk.run_trainable(entered)
    return sum(
        (state * probe).tanh()[row, : entered.frames[row]].sum()
        for state in states
        for row in range(len(waveforms))
    )


def names(trunk, beginnings):
    return {name for name, _ in trunk.model.named_parameters() if name.startswith(beginnings)}


def reached(trunk, waveforms):
    """Return the names of the tensors that get a gradient."""
    for parameter in trunk.parameters():
        parameter.grad = None
    total = outcome(trunk, waveforms)
    if total.requires_grad:
        total.backward()
    found = {name: p.grad for name, p in trunk.model.named_parameters() if p.grad is not None}
    still = [n for n, grad in found.items() if not grad.any() and WITHOUT_EFFECT not in n]
    assert still == []
    return {*found}


@pytest.mark.parametrize(("settings", "after", "before"), OPEN)
def test_gradients_reach_exactly_what_is_open(make_trunk, waveforms, settings, after, before):
    for kind, beginnings in (("layer", after), ("group", before)):
        trunk = make_trunk(kind, **settings)
        expected = names(trunk, tuple(beginnings))
        assert reached(trunk, waveforms) == expected
        assert {n for n, p in trunk.model.named_parameters() if p.requires_grad} == expected
        assert len([b for b in beginnings if names(trunk, b)]) == len(beginnings)


def test_layers_open_by_the_schedule(make_trunk, waveforms):
    trunk = make_trunk("layer", **SCHEDULE)
    for epoch in (0, 1, 2, 3, 7, 1, 0):
        trunk.set_epoch(epoch)
        expected = names(trunk, SCHEDULED[min(epoch, 3)])
        assert reached(trunk, waveforms) == expected, epoch


def stepped(trunk, waveforms):
    """Return the names of the tensors that one step of plain descent changes by a bit or more."""
    before = {name: value.clone() for name, value in trunk.model.state_dict().items()}
    optimiser = torch.optim.SGD(trunk.parameters(), lr=0.1)
    total = outcome(trunk, waveforms)
    optimiser.zero_grad()
    total.backward()
    optimiser.step()
    after = trunk.model.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(("frozen", "beginnings"), [(1, LAYERS[1:]), (0, (*ENTRY, NORM, *LAYERS))])
def test_a_step_changes_only_what_is_trained(make_trunk, waveforms, frozen, beginnings):
    trunk = make_trunk("hubert", freeze_encoder_layers=frozen)
    changed = stepped(trunk, waveforms)
    every = {n for n in trunk.model.state_dict() if n.startswith(tuple(beginnings))}
    assert changed - every == set()
    assert {n for n in every - changed if WITHOUT_EFFECT not in n} == set()
    statistics = "encoder.pos_conv_embed.batch_norm.running_mean"
    assert statistics in trunk.model.state_dict()
    assert (statistics in changed) == (frozen == 0)


@pytest.mark.parametrize("kind", ["layer", "group"])
def test_the_frozen_part_builds_no_graph(make_trunk, waveforms, kind):
    for settings, cut in (({"freeze_encoder_layers": 1}, 1), ({"freeze_encoder_layers": "all"}, 2)):
        trunk = make_trunk(kind, states="mix", **settings)
        entered = trunk.run_frozen(*trunk.prepare(waveforms, torch.device("cpu")))
        assert trunk.cut == cut
        assert [entered.hidden.requires_grad, entered.hidden.grad_fn] == [False, None]
        assert not any(state.requires_grad for state in entered.states.values())
        graphs = [state.requires_grad for state in trunk.run_trainable(entered)]
        assert graphs == [
            number > settings["freeze_encoder_layers"] if cut == 1 else False for number in range(4)
        ]


def test_what_is_frozen_is_in_eval_mode_and_what_is_open_trains(make_trunk):
    trunk = make_trunk("layer", **SCHEDULE)
    for mode, epoch in ((True, 0), (True, 1), (True, 3), (False, 3), (True, 3), (True, 1)):
        trunk.train(mode)
        trunk.set_epoch(epoch)
        trunk.train(mode)  # in any order
        assert trunk.training == mode
        beginnings = tuple(SCHEDULED[epoch]) if mode else ()
        for name, module in trunk.model.named_modules():
            inside = bool(beginnings) and f"{name}.".startswith(beginnings)
            own = epoch == 3 and mode and name == "encoder.dropout"  # after the positions
            assert module.training == (inside or own), name


def test_dropout_is_active_in_what_is_open_alone(make_trunk, waveforms):
    for frozen, differ in ((1, True), ("all", False)):
        trunk = make_trunk("layer", freeze_encoder_layers=frozen)
        with torch.no_grad():
            first, second = (outcome(trunk, waveforms) for _ in range(2))
            assert torch.equal(first, second) != differ
            trunk.eval()
            assert torch.equal(outcome(trunk, waveforms), outcome(trunk, waveforms))


def test_layer_drop_is_off(make_trunk):
    assert make_trunk("layer", freeze_encoder_layers=0).model.config.layerdrop == 0


@pytest.mark.parametrize("kind", KINDS)
def test_states_through_every_cut_are_those_of_extraction(encoder_of, waveforms, kind):
    folder = str(encoder_of(kind))
    expected = load_encoder(folder).states(waveforms, layers=range(4))
    parts = load_encoder_parts(folder)
    for frozen in (0, 1, 2, 3, "all"):
        for states, numbers in (("mix", (0, 1, 2, 3)), ("last", (3,)), ("1", (1,)), ("0", (0,))):
            trunk = PartlyFrozenEncoder(
                parts, FinetuneConfig(freeze_encoder_layers=frozen, states=states)
            ).eval()
            assert trunk.wanted == numbers
            with torch.no_grad():
                entered = trunk.run_frozen(*trunk.prepare(waveforms, torch.device("cpu")))
                found = trunk.run_trainable(entered)
            assert entered.frames.tolist() == [len(row) for row in expected]
            assert len(found) == len(numbers)
            for number, state in zip(numbers, found, strict=True):
                for row, whole in zip(state.numpy(), expected, strict=True):
                    own = row[: len(whole)]
                    assert np.abs(own - whole[:, number]).max() < SAME * np.abs(whole).max()


@pytest.mark.parametrize("kind", ["layer", "group", "wavlm", "w2v-bert"])
def test_layers_below_the_cut_run_once_and_those_above_the_states_never(
    make_trunk, waveforms, kind
):
    trunk = make_trunk(kind, freeze_encoder_layers=1, states="2").eval()
    seen = []
    for number, layer in enumerate(trunk.model.encoder.layers):
        layer.register_forward_hook(lambda *_, number=number: seen.append(number))
    entered = trunk.run_frozen(*trunk.prepare(waveforms, torch.device("cpu")))
    assert seen == [0]
    trunk.run_trainable(entered)
    assert seen == [0, 1]
    trunk.run_trainable(entered)  # what was entered may be used again
    assert seen == [0, 1, 1]


@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize("kind", ["layer", "group", "wavlm", "w2v-bert"])
def test_gradient_checkpointing_runs_layers_again_for_the_same_gradients(
    make_trunk, waveforms, kind, frozen
):
    gradients, runs = [], []
    for again in (False, True):
        trunk = make_trunk(kind, freeze_encoder_layers=frozen, gradient_checkpointing=again)
        counted = []
        inner = next(
            part
            for part in trunk.model.encoder.layers[2].modules()
            if isinstance(part, torch.nn.LayerNorm)
        )
        inner.register_forward_hook(lambda *_, counted=counted: counted.append(1))
        torch.manual_seed(6)
        outcome(trunk, waveforms).backward()
        gradients.append({n: p.grad for n, p in trunk.named_parameters() if p.grad is not None})
        runs.append(len(counted))
    assert runs == [1, 2]
    assert gradients[0].keys() == gradients[1].keys()
    largest = max(float(grad.abs().max()) for grad in gradients[0].values())
    for name, grad in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], grad, rtol=1e-6, atol=1e-6 * largest)


def test_masks_lie_in_training_alone_and_where_they_are_asked_for(make_trunk, waveforms):
    trunk = make_trunk("layer", freeze_encoder_layers=1)
    batch = trunk.prepare(waveforms, torch.device("cpu"))
    exact = trunk.run_frozen(*batch).hidden
    for settings in ({"mask_seconds": 0.2}, {"mask_dims": 0.25}, {"mask_dims": 0.001}):
        trunk = make_trunk("layer", freeze_encoder_layers=1, **settings)
        torch.manual_seed(2)
        altered = not torch.equal(trunk.run_frozen(*batch).hidden, exact)
        assert altered == (settings != {"mask_dims": 0.001})  # less than one dimension
        assert torch.equal(trunk.eval().run_frozen(*batch).hidden, exact)


def test_masks_are_one_stretch_of_at_most_the_stated_share(make_trunk):
    trunk = make_trunk("layer", freeze_encoder_layers=1, mask_seconds=0.2, mask_dims=0.25)
    torch.manual_seed(3)
    lengths = {"time": [], "dims": []}
    for _ in range(40):
        mask = trunk._masked(torch.ones(3, 49, 32), torch.tensor([49, 49, 49])) == 0
        times, dims = mask.all(dim=2), mask.all(dim=1)
        assert torch.equal(mask, times[:, :, None] | dims[:, None])
        for name, found in (("time", times), ("dims", dims)):
            lengths[name] += found.sum(1).tolist()
            edges = found.int().diff(dim=1, prepend=torch.zeros(3, 1), append=torch.zeros(3, 1))
            assert (edges.clamp(min=0).sum(1) <= 1).all()
        assert len({tuple(row.tolist()) for row in times}) > 1  # drawn for each row
    assert 0.1 / FRAME < max(lengths["time"]) <= 0.2 / FRAME
    assert 4 < max(lengths["dims"]) <= 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_lie_in_a_rows_own_frames_and_leave_half_of_them(make_trunk, dtype):
    trunk = make_trunk("layer", freeze_encoder_layers=1, mask_seconds=0.3, mask_dims=0.1)
    frames, seen = torch.tensor([1, 9, 400]), set()
    trunk.set_epoch(0)
    for seed in range(200):
        torch.manual_seed(seed)
        mask = trunk._masked(torch.ones(3, 400, 1000, dtype=dtype), frames) == 0
        times, dims = mask.all(dim=2), mask.all(dim=1)
        assert not any(times[row, count:].any() for row, count in enumerate(frames))
        seen.add(tuple(times.sum(1).tolist()))
        assert dims.sum(1).max() <= 100
    assert [max(counts) for counts in zip(*seen, strict=True)] == [0, 4, 15]
    torch.manual_seed(199)
    again = trunk._masked(torch.ones(3, 400, 1000, dtype=dtype), frames) == 0
    assert torch.equal(again, mask)


def test_a_layer_that_opens_in_the_last_epoch_is_counted_as_open(make_trunk):
    trunk = make_trunk("layer", freeze_encoder_layers=2, unfreeze="3:1", max_epochs=4)
    assert (trunk.least, trunk.cut) == (1, 1)


def test_groups_hold_what_is_ever_open_once_with_its_factor(make_trunk):
    for settings in ({**WHOLE}, SCHEDULE, {"freeze_encoder_layers": 1, "states": "2"}):
        trunk = make_trunk("layer", layer_decay=0.5, **settings)
        trunk.set_epoch(40)
        grouped = [id(p) for _, parameters in trunk.groups() for p in parameters]
        assert len(grouped) == len({*grouped})
        assert {*grouped} == {id(p) for p in trunk.parameters() if p.requires_grad}


@pytest.mark.parametrize(("states", "count"), [("last", 3), ("mix", 3), ("2", 2)])
def test_rates_decay_from_the_topmost_layer_that_trains(make_trunk, states, count):
    trunk = make_trunk("layer", layer_decay=0.5, states=states, **WHOLE)
    factors = {id(p): factor for factor, parameters in trunk.groups() for p in parameters}
    found = {name: factors.get(id(p)) for name, p in trunk.model.named_parameters()}
    for number in range(3):
        expected = 0.5 ** (count - 1 - number) if number < count else None
        assert {f for n, f in found.items() if n.startswith(LAYERS[number])} == {expected}
    assert {f for n, f in found.items() if n.startswith(ENTRY)} == {0.5**count}
    assert {f for n, f in found.items() if n.startswith(CONVOLUTIONS)} == {0.5 ** (count + 1)}
    assert {f for n, f in found.items() if n.startswith(NORM)} == {1.0 if count == 3 else None}


def test_states_that_are_not_there_are_refused(make_trunk):
    assert parse_layer_choice("mix", 2) == (0, 1, 2)
    assert parse_layer_choice("last", 2) == parse_layer_choice("2", 2) == (2,)
    with pytest.raises(InputError, match="--states: value is '4', expected last, mix or .* 0 to 3"):
        make_trunk("layer", states="4")
    frozen = "--freeze-encoder-layers: value is 4, expected at most 3, .*-layers 1$"
    with pytest.raises(InputError, match=frozen):
        make_trunk("layer", freeze_encoder_layers=4)


def test_an_encoder_without_layers_is_refused():
    with pytest.raises(InputError, match="^mfcc: has no layers, .*; name another with --encoder$"):
        PartlyFrozenEncoder(load_encoder_parts("mfcc"), FinetuneConfig(encoder="mfcc"))
