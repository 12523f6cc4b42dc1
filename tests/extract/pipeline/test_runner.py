"""A run's settings by default."""

import pytest

from spk.extract.options import ExtractOptions
from spk.extract.pipeline import runner
from spk.extract.pipeline.runner import count_workers


@pytest.mark.parametrize(
    ("cores", "devices", "expected"), [(1, 1, 1), (6, 1, 6), (64, 1, 16), (64, 8, 8), (2, 4, 1)]
)
def test_the_cores_at_hand_decode_up_to_sixteen_for_a_device(monkeypatch, cores, devices, expected):
    monkeypatch.setattr(runner, "available_cores", lambda: cores)
    assert count_workers(ExtractOptions(), devices) == expected


@pytest.mark.parametrize("workers", [0, 3, 40])
def test_what_the_user_says_stands(monkeypatch, workers):
    monkeypatch.setattr(runner, "available_cores", lambda: 2)
    assert count_workers(ExtractOptions(workers=workers), 2) == workers
