"""What `network.py` compares is compared; machines are made and cables pulled by `make faults`."""

import os

import numpy as np
import pytest

from spk.extract.store.writer import StoreWriter

CONFIG = {"kind": "pooled", "layers": [0], "dim": 4, "dtype": "float32", "pooling": "mean"}


def write(folder, names, value):
    """Write a store of a few rows."""
    folder.mkdir()
    with StoreWriter(folder / "out", CONFIG) as store:
        for name in names:
            features = np.full((1, 4), value, np.float32)
            store.add(name, features, duration=1.0, frames=4, audio_bytes=9, audio_crc32=7)
    (folder / "out.rejected.csv").touch()


@pytest.mark.parametrize(
    ("rows", "value", "left", "findings"),
    [("ab", 1.0, (), 0), ("a", 1.0, (), 1), ("ab", 2.0, (), 1), ("ab", 1.0, (".writing-x",), 1)],
)
def test_a_broken_promise_is_found(network, tmp_path, rows, value, left, findings):
    write(tmp_path / "alone", "ab", 1.0)
    write(tmp_path / "cut", rows, value)
    for name in left:
        (tmp_path / "cut" / "out" / "shards" / name).touch()
    work = object.__new__(network.Campaign)
    work.store, work.findings = network.Store("", lambda inputs, turn: "", done=3), 0
    work._whole = work.store.whole(tmp_path / "alone")
    work.compare(tmp_path / "cut")
    assert work.findings == findings


def test_without_root_it_says_why_it_does_not_run(network, monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert network.main() == 2
    assert "by root alone" in capsys.readouterr().err
