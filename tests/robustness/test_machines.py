"""A small share of `machines.py`, and proof that it finds what it looks for."""

import random
from collections import Counter

import numpy as np
import pytest

from spk.extract.store.writer import StoreWriter

ROWS = 160  # which are seven units


@pytest.mark.ray
@pytest.mark.slow
def test_workers_and_nodes_are_killed_and_nothing_is_lost_or_doubled(
    machines, two, tmp_path, monkeypatch
):
    for name, value in two.environment.items():
        monkeypatch.setenv(name, value)
    machines.make_inputs(tmp_path / "inputs", ROWS)
    two.set_fault("slow.flac")
    work = machines.Machines(two, tmp_path / "inputs", tmp_path, random.Random(0))
    work.run(3)
    assert work.findings == []
    assert [work.sums[kind] for kind in ("kills", "workers", "nodes")] == [3, 2, 1]


def write(folder, names, value):
    """Write a store of a few rows."""
    config = {"kind": "pooled", "layers": [0], "dim": 4, "dtype": "float32", "pooling": "mean"}
    with StoreWriter(folder / "out", config) as store:
        for name in names:
            features = np.full((1, 4), value, np.float32)
            store.add(name, features, duration=1.0, frames=4, audio_bytes=9, audio_crc32=7)


@pytest.mark.parametrize(
    ("rows", "value", "found"),
    [(["a", "b"], 1.0, set()), (["a"], 1.0, {"lost"}), (["a", "b"], 2.0, {"changed", "wrong"})],
)
def test_a_broken_promise_is_found(machines, tmp_path, rows, value, found):
    for name in ("whole", "seen"):
        (tmp_path / name).mkdir()
    write(tmp_path / "whole", ["a", "b"], 1.0)
    write(tmp_path / "seen", rows, value)
    work = object.__new__(machines.Machines)
    work.store = machines.Store("on Ray", lambda inputs, turn: "", done=3)
    work.sums, work.findings = Counter(), []
    work._reference = work.store.look(tmp_path / "whole")
    work.look(tmp_path / "seen", dict(work._reference))
    assert set(work.sums) == found
    assert len(work.findings) == len(found)
