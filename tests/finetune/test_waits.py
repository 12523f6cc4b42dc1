"""Steps of training and validation tell a device what to do and do not wait for it."""

import pytest
import torch

META = torch.device("meta")
EVERY = {"mask_seconds": 0.1, "mask_dims": 0.2, "states": "mix", "gradient_checkpointing": True}


@pytest.fixture
def step(make_module, waits):
    """Return a function that gives the waits of a step, after what is set up on first use."""

    def made(batch, *, training=True, **settings):
        module = make_module("layer", freeze_encoder_layers=1, **settings).to(META)
        module._log = lambda *_: None
        optimiser = torch.optim.AdamW(module.parameters())
        module.train(training)
        waits.clear()
        if not training:
            with torch.inference_mode():
                module.validation_step(batch, 0)
            return list(waits)
        module.training_step(batch, 0).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        return list(waits)

    return made


@pytest.mark.parametrize("pooling", ["mean+std", "mean+std+max", "attentive"])
@pytest.mark.parametrize("settings", [{}, EVERY], ids=["plain", "every"])
def test_a_training_step_waits_where_transformers_looks_at_its_mask_alone(
    step, make_batch, pooling, settings
):
    assert step(make_batch(0), pooling_method=pooling, **settings) == []
    assert len(step(make_batch(), pooling_method=pooling, **settings)) <= 1


def test_a_validation_step_does_so_too(step, make_batch):
    assert step(make_batch(0), training=False) == []
    assert len(step(make_batch(), training=False)) <= 1


def test_all_steps_share_one_way_to_the_device(make_module):
    trunk = make_module("layer", freeze_encoder_layers=1).trunk
    cpu = torch.device("cpu")
    assert trunk.lane(cpu) is trunk.lane(cpu)
    assert trunk.lane(cpu) is not trunk.lane(META)
