"""A sweep on a real Ray with two nodes: what this machine finds, through kills of every kind."""

import os
import signal

import numpy as np
import pytest
from click.testing import CliRunner

from spk.classify.cli import main
from spk.classify.options import SweepSettings
from spk.common.errors import InputError
from spk.manifests.table import write_table

LAYERS = 8
REST = ["sweep.csv", "predictions.csv", "metrics.csv"]


def test_processes_are_not_counted_where_ray_counts_cores():
    with pytest.raises(InputError, match="--jobs: value is 2 beside --engine ray, which counts"):
        SweepSettings(engine="ray", jobs=2)
    with pytest.raises(InputError, match="--ray-address: value is 'h:1' beside --engine local"):
        SweepSettings(ray_address="h:1")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, toy_table, toy_features, write_store):
    """Return a folder with a table and its store of eight layers."""
    folder, table = tmp_path_factory.mktemp("swept"), toy_table()
    write_table(table, folder / "table.csv")
    features = toy_features(table, layers=3)
    noise = toy_features(table, layers=3, seed=1)
    layers = [features[:, [k % 3]] + 0.1 * k * noise[:, [k % 3]] for k in range(LAYERS)]
    write_store(folder / "store", table["segment_id"], np.concatenate(layers, axis=1))
    return folder


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """Return the files that this machine writes by itself, and its finished fits."""
    out = tmp_path_factory.mktemp("alone") / "out"
    done = CliRunner().invoke(main, words(corpus, "--jobs", "1", out=str(out))[1:])
    assert done.exit_code == 0, done.output
    return written(out)


def words(corpus, *more, out="out"):
    table, store = str(corpus / "table.csv"), str(corpus / "store")
    return ["classify", "sweep", table, store, out, "--classifiers", "centroid,ridge,lda", *more]


def on(two):
    return ["--engine", "ray", "--ray-address", two.address]


def written(out):
    """Return the bytes of a sweep's tables, and its fits, each once."""
    lines = fits(out)
    assert len(lines) == len(set(lines))
    return [(out / name).read_bytes() for name in REST], sorted(lines)


def fits(out):
    """Return the lines of a sweep's fits."""
    path = out / "cells.jsonl"
    return path.read_text().splitlines()[1:] if path.exists() else []


@pytest.mark.slow
def test_two_nodes_find_what_one_machine_does_bit_for_bit(two, corpus, alone, tmp_path):
    code, said, errors = two.run(words(corpus, *on(two)), tmp_path)
    assert (code, errors) == (0, "")
    assert "wrote out/sweep.csv" in said
    assert written(tmp_path / "out") == alone


@pytest.mark.slow
def test_a_worker_a_node_and_the_driver_killed_lose_and_double_nothing(
    two, corpus, alone, tmp_path
):
    two.set_fault("slow.h5")
    out = tmp_path / "out"
    process = two.start(words(corpus, *on(two)), tmp_path)
    os.kill(two.wait_for(two.workers, process)[0], signal.SIGKILL)
    two.wait_for(lambda: fits(out), process)
    two.tell("kill a node")
    try:
        there = len(fits(out))
        two.wait_for(lambda: len(fits(out)) > there, process)
        process.kill()
        process.communicate()
    finally:
        two.tell("add a node")
    there = fits(out)
    assert 0 < len(there) < len(alone[1])
    two.clear()
    code, said, errors = two.run(words(corpus, *on(two)), tmp_path)
    assert (code, errors) == (0, "")
    assert f"{len(there)} of {len(alone[1])} combinations were finished before" in said
    assert fits(out)[: len(there)] == there
    assert written(out) == alone


@pytest.mark.slow
def test_a_layer_that_kills_its_process_fails_by_name_and_nothing_is_chosen(two, corpus, tmp_path):
    (shard,) = (corpus / "store" / "shards").glob("*.h5")
    two.set_fault(f"kill-{shard.name}")
    code, _, errors = two.run(words(corpus, *on(two), "--layers", "3"), tmp_path)
    reason = "layer 3, centroid, ridge, lda (its process died in each of 4 tries)"
    again = f"sweep: 1 of 1 units failed, first {reason}, expected all; run the same command"
    assert (code, errors) == (3, f"failed: {reason}\n{again} to try again\n")
    assert not (tmp_path / "out" / "sweep.csv").exists()
    code, _, errors = two.run(words(corpus, "--layers", "3"), tmp_path)  # --engine local does it
    assert (code, errors) == (0, "")


@pytest.mark.slow
def test_a_signal_ends_a_ray_of_this_machine_and_the_sweep_goes_on_without(
    two, corpus, alone, tmp_path
):
    two.set_fault("slow.h5")
    process = two.start(words(corpus, "--engine", "ray"), tmp_path)
    two.wait_for(lambda: fits(tmp_path / "out"), process)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.splitlines() == [
        "stopping after this batch; once more to stop at once",
        "interrupted; run the same command to go on",
    ]
    assert two.workers() == []
    there = fits(tmp_path / "out")
    assert 0 < len(there) < len(alone[1])
    code, said, _ = two.run(words(corpus), tmp_path)
    assert code == 0
    assert f"{len(there)} of {len(alone[1])} combinations were finished before" in said
    assert written(tmp_path / "out") == alone
