import json
from dataclasses import replace

import numpy as np
import pytest

from spk.classify.experiment import run_experiment
from spk.classify.options import SweepSettings
from spk.classify.selection import sweep as module
from spk.classify.selection.sweep import sweep
from spk.classify.selection.sweep_cache import SweepCache, fingerprint_of
from spk.extract.store.reader import FeatureStore
from spk.manifests.splits.tasks import make_tasks

FAST = SweepSettings(classifiers="ridge,lda", jobs=1)


@pytest.fixture
def tasks(table):
    return make_tasks(table, "session")[0]


@pytest.fixture
def counted(monkeypatch):
    """Count the layer sets that are tried, by name, with the classifiers."""
    tried, real = [], module._try_layers

    def count(work, share):
        tried.append((share[0].name, *share[1]))
        return real(work, share)

    monkeypatch.setattr(module, "_try_layers", count)
    return tried


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.correct, other.correct)
        assert replace(one, correct=other.correct) == other


def test_a_killed_sweep_goes_on_with_what_is_missing(tmp_path, table, store, tasks, counted):
    path = tmp_path / "cells.jsonl"
    whole = sweep(table, store, tasks, FAST, cells=SweepCache(path, "a"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:30])  # three cells, one cut off by the kill
    counted.clear()
    told = []
    again = sweep(table, store, tasks, FAST, cells=SweepCache(path, "a"), log=told.append)
    assert counted == [("1", "lda"), ("2", "ridge", "lda")]
    assert told == ["3 of 6 combinations were finished before, and not tried again"]
    assert_same(whole, again)
    assert len(SweepCache(path, "a")) == 6


def test_cells_of_another_fingerprint_are_not_used(tmp_path, table, store, tasks, counted):
    path = tmp_path / "cells.jsonl"
    sweep(table, store, tasks, FAST, cells=SweepCache(path, "a"))
    assert len(SweepCache(path, "b")) == 0
    assert len(path.read_bytes().splitlines()) == 1
    assert len(SweepCache(path, "a")) == 0  # begun anew, not mixed


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[1, 2]\n", b"{}\n"])
def test_a_file_that_is_no_list_of_cells_is_begun_anew(tmp_path, content):
    path = tmp_path / "cells.jsonl"
    path.write_bytes(content)
    assert len(SweepCache(path, "a")) == 0
    begun = json.loads(path.read_bytes())
    assert (begun["schema"], begun["fingerprint"]) == (3, "a")


def test_no_damaged_trial_is_read(tmp_path, table, store, tasks):
    path = tmp_path / "cells.jsonl"
    whole = sweep(table, store, tasks, FAST, cells=SweepCache(path, "a"))
    known = {(trial.layers, trial.classifier): trial for trial in whole}
    content, rng = path.read_bytes(), np.random.default_rng(4)
    kept = 0
    for _ in range(60):
        torn = bytearray(content)
        place = int(rng.integers(len(content)))
        torn[place] ^= int(rng.integers(1, 256))
        path.write_bytes(torn)
        cells = SweepCache(path, "a")
        kept += len(cells) == len(whole)
        for key, trial in known.items():
            found = cells.get(*key)
            assert found is None or found.accuracy == trial.accuracy
            assert_same([found or trial], [trial])
    assert kept < 6  # a space in the JSON, or 1E-05 for 1e-05


@pytest.mark.parametrize(
    "changes", [{"penalty": 7.0}, {"seed": 1}, {"within": "corpus"}, {"folds": 3}, {"gap": 1.0}]
)
def test_a_changed_setting_changes_the_fingerprint(table, store, tasks, changes):
    assert mark(table, store, tasks) != mark(table, store, tasks, **changes)


def mark(table, store, tasks, **changes):
    return fingerprint_of(table, store, tasks, replace(FAST, **changes))


def test_what_chooses_cells_does_not_change_the_fingerprint(table, store, tasks):
    same = {"layers": "1", "classifiers": "ridge", "jobs": 2}
    assert mark(table, store, tasks) == mark(table, store, tasks, **same)


def test_another_table_split_or_store_changes_the_fingerprint(
    tmp_path, table, features, store, tasks, write_store
):
    first = mark(table, store, tasks)
    assert first != mark(table.assign(speaker=table["speaker"] + "x"), store, tasks)
    assert first != mark(table.assign(split="train"), store, tasks)
    assert first != mark(table, store, tasks[:1])
    path = write_store(tmp_path / "same", table["segment_id"], features)
    assert first == mark(table, FeatureStore.open(path), tasks)
    changed = features.copy()
    changed[7, 2, 0] += 1
    path = write_store(tmp_path / "other", table["segment_id"], changed)
    assert first != mark(table, FeatureStore.open(path), tasks)


def test_an_experiment_repeated_in_its_folder_tries_nothing_again(
    tmp_path, table, store_path, counted
):
    first = run_experiment(table, store_path, FAST, keep=tmp_path / "cells.jsonl")
    counted.clear()
    more = replace(FAST, classifiers="ridge,lda,centroid")
    second = run_experiment(table, store_path, more, keep=tmp_path / "cells.jsonl")
    assert counted == [(layer, "centroid") for layer in "012"]
    assert_same(first.trials, [t for t in second.trials if t.classifier != "centroid"])
    assert counted.clear() or len(run_experiment(table, store_path, more).trials) == 9
    assert len(counted) == 3  # without a file nothing is kept
