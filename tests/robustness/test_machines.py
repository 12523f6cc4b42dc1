"""A small share of `machines.py`, and proof that it finds what it looks for."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from spk.extract.store.writer import StoreWriter

CAMPAIGNS = Path(__file__).with_name("campaigns")


@pytest.mark.slow
def test_workers_and_nodes_are_killed_and_nothing_is_lost_or_doubled(tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    done = subprocess.run(
        [sys.executable, str(CAMPAIGNS / "machines.py"), "3", "0", "300"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^3 \| 2 \| 1 \| \d \| ", done.stdout, re.MULTILINE), done.stdout
    assert "two drivers: the second was told, and went on at " in done.stdout
    assert done.stdout.endswith("nothing found\n")
    assert not list(tmp_path.glob("machines-*"))


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
