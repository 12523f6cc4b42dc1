"""A sweep on a real Ray with two nodes: what this machine finds, through kills of every kind."""

import os
import re
import signal

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import without_next_steps

from spk.classify.cli import main
from spk.classify.options import SweepSettings
from spk.classify.selection import sweep
from spk.common.engine.work import Done, FailedUnit, Resources
from spk.common.errors import InputError
from spk.common.extras import EXTRAS, check_extra
from spk.manifests.table import write_table

LAYERS, SHARDS = 8, 10  # so a unit lasts a second where each shard takes 0.1 s
REST = ["sweep.csv", "predictions.csv", "metrics.csv"]


def test_processes_are_not_counted_where_ray_counts_cores():
    with pytest.raises(InputError, match="--jobs: value is 2 beside --engine ray, which counts"):
        SweepSettings(engine="ray", jobs=2)
    with pytest.raises(InputError, match="--ray-address: value is 'h:1' beside --engine local"):
        SweepSettings(ray_address="h:1")


def test_layers_that_failed_are_named_and_nothing_is_chosen(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(EXTRAS, "ray", ())  # this needs no Ray

    def all_but_the_first(address, describe, stop, log):
        first, *others = (job := describe(None)).units
        job.publish(first, job.function(job.shared, first.payload))
        return False, [FailedUnit(unit, "it died") for unit in others]

    monkeypatch.setattr(sweep, "check_machines", lambda *_, **__: None)
    monkeypatch.setattr(sweep, "unit_resources", lambda *_, **__: Resources())
    with monkeypatch.context() as patched:
        patched.setattr(sweep, "run_units", all_but_the_first)
        done = invoke(corpus, tmp_path / "out", "--engine", "ray", "--layers", "1,3")
    assert done.exit_code == 3
    assert without_next_steps(done.stderr) == (
        "sweep: 1 of 2 units failed, first layer 3, centroid, ridge, lda (it died), expected all; "
        "run the same command to try again\n"
    )
    assert re.search("^next: spk-classify sweep .* --engine ray", done.stderr, re.MULTILINE)
    assert "report" not in done.stderr
    assert len(fits(tmp_path / "out")) == 3
    assert not (tmp_path / "out" / "sweep.csv").exists()
    done = invoke(corpus, tmp_path / "out", "--layers", "1,3")  # --engine local does the rest
    assert (done.exit_code, without_next_steps(done.stderr)) == (0, "")
    assert "3 of 6 combinations were finished before" in done.stdout


def test_what_the_user_can_repair_is_told_as_without_ray(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(EXTRAS, "ray", ())  # this needs no Ray

    def of_a_damaged_store(address, describe, stop, log):
        job = describe(None)
        job.publish(job.units[0], Done.by(check_extra, "toy", "the unit"))

    monkeypatch.setattr(sweep, "check_machines", lambda *_, **__: None)
    monkeypatch.setattr(sweep, "unit_resources", lambda *_, **__: Resources())
    monkeypatch.setattr(sweep, "run_units", of_a_damaged_store)
    monkeypatch.setitem(EXTRAS, "toy", ("no_such_module",))
    done = invoke(corpus, tmp_path / "out", "--engine", "ray")
    assert done.exit_code == 1
    assert done.stderr.startswith("the unit: no_such_module is not installed, expected the extra")


def invoke(corpus, out, *more):
    """Run the command in this process."""
    return CliRunner().invoke(main, words(corpus, *more, out=str(out))[1:])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, toy_table, toy_features, write_store):
    """Return a folder with a table and its store of eight layers."""
    folder, table = tmp_path_factory.mktemp("swept"), toy_table()
    write_table(table, folder / "table.csv")
    features = toy_features(table, layers=3)
    noise = toy_features(table, layers=3, seed=1)
    layers = [features[:, [k % 3]] + 0.1 * k * noise[:, [k % 3]] for k in range(LAYERS)]
    rows = np.concatenate(layers, axis=1)
    for part in np.array_split(np.arange(len(table)), SHARDS):
        write_store(folder / "store", table["segment_id"].to_numpy()[part], rows[part])
    return folder


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """Return the files that this machine writes by itself, and its finished fits."""
    out = tmp_path_factory.mktemp("alone") / "out"
    done = invoke(corpus, out, "--jobs", "1")
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


@pytest.mark.ray
@pytest.mark.slow
def test_two_nodes_find_what_one_machine_does_bit_for_bit(two, corpus, alone, tmp_path):
    code, said, errors = two.run(words(corpus, *on(two)), tmp_path)
    assert (code, errors) == (0, "")
    assert "wrote out/sweep.csv" in said
    assert written(tmp_path / "out") == alone


@pytest.mark.ray
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
