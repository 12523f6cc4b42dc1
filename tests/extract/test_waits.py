"""The host tells a device what to do and does not wait for it."""

import math

import numpy as np
import pytest
import torch

from spk.extract.encoder.encoder import Encoder
from spk.extract.encoder.loading import load_encoder_parts

META = torch.device("meta")
EQUAL, UNEQUAL = (3000, 3000, 3000), (3000, 2200, 900)


def submitted(folder, lengths, pooling="mean+std", dtype=torch.float32):
    parts = load_encoder_parts(str(folder))
    encoder = Encoder(parts, device=META, dtype=dtype)
    rows = [np.ones(count, np.int16) for count in lengths]
    return lambda: encoder.encode_async(rows, [0, 1, 3], pooling, math.inf)


@pytest.mark.parametrize("kind", ["layer_encoder", "group_encoder"])
@pytest.mark.parametrize("pooling", ["mean+std", "max"])
def test_a_batch_of_equal_lengths_waits_for_nothing(kind, pooling, request, waits):
    submit = submitted(request.getfixturevalue(kind), EQUAL, pooling)
    waits.clear()
    submit()
    assert waits == []


@pytest.mark.parametrize("kind", ["layer_encoder", "group_encoder"])
def test_a_batch_with_padding_waits_where_transformers_looks_at_its_mask(kind, request, waits):
    submit = submitted(request.getfixturevalue(kind), UNEQUAL)
    waits.clear()
    submit()
    assert len(waits) <= 1


@pytest.mark.parametrize("inference", [False, True])
def test_the_watch_sees_what_waits(waits, inference):
    with torch.inference_mode(inference):
        there = torch.zeros(3, device=META)
        there.sum().item()
        there.cpu()
        torch.zeros(3).to(META)
        assert len(waits) == 3
        torch.zeros(3).to(META, non_blocking=True)
        assert len(waits) == 3
