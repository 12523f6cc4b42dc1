"""Extraction on a real Ray with two nodes: kills of every kind, and the same rows as locally."""

import json
import os
import re
import signal
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from helpers import noise_meeting
from ray_cluster import said_by

from spk.common.errors import InputError
from spk.extract.options import ExtractOptions
from spk.extract.run import run_extraction
from spk.extract.store.maintenance import store_info
from spk.extract.store.reader import FeatureStore
from spk.manifests.table import write_table

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RECORDINGS, EACH = 4, 10
REJECTED = 3  # exit code: one segment is silent
# A segment is a batch of its own, so that batches are those of a run without units. The baseline is
# an encoder like any other, and loaded in a third of the time.
SETTINGS = {"encoder": "mfcc", "device": "cpu", "store_dtype": "float32"}
SETTINGS |= {"batch_seconds": 0.1, "workers": 0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return the folder of four recordings and a table, and the table."""
    root = tmp_path_factory.mktemp("corpus")
    tables = []
    for number in range(RECORDINGS):
        edges = 0.5 + np.cumsum([0.0, *(0.4 + 0.05 * (i * 7 % 11) for i in range(EACH))])
        spans = list(pairwise(edges))
        if number == 0:
            spans[0] = (0.0, 0.4)
        silent = 0.0 if number else 0.5
        tables.append(noise_meeting(root, f"m{number}.wav", spans, silent=silent, seed=number))
    table = pd.concat(tables, ignore_index=True)
    write_table(table, root / "table.csv")
    return root, table


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """Return what this machine writes by itself: {segment_id: (layers, dim)}."""
    root, table = corpus
    store = tmp_path_factory.mktemp("alone") / "store"
    run_extraction(table, store, ExtractOptions(audio_root=str(root), **SETTINGS))
    return rows_of(store)


def words(corpus, *more):
    """Return the arguments of the command: units of about two thirds of a recording."""
    settings = [
        word
        for name, value in SETTINGS.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    root, _ = corpus
    table = str(root / "table.csv")
    settings += ["--audio-root", str(root), "--unit-minutes", "0.08"]
    return ["extract", table, "store", *settings, *more]


def on(two):
    return ["--engine", "ray", "--ray-address", two.address]


def rows_of(path):
    """Return the rows of a store, each once."""
    store = FeatureStore.open(path)
    ids = [name for shard in store.shards for name in FeatureStore.open(shard.path).ids().tolist()]
    assert len(ids) == len(set(ids))
    return dict(zip(ids, store.read(ids), strict=True))


def assert_same(rows, expected):
    assert rows.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(rows[name], values)


def committed(folder):
    return list((folder / "store" / "shards").glob("0*.h5"))


def told_running(folder):
    running = store_info(folder / "store")["running"]
    return running if running and running["units"] else None


def unnamed(folder):
    return [path.name for path in (folder / "store" / "shards").glob(".writing-*")]


def test_two_nodes_write_what_one_machine_does_bit_for_bit(two, corpus, alone, tmp_path):
    code, said, errors = two.run(words(corpus, *on(two)), tmp_path)
    assert (code, errors) == (REJECTED, "")
    assert f"{len(alone)} of {len(alone) + 1} segments have features, {len(alone)} of" in said
    assert "1 rejected (silent 1)" in said
    assert (tmp_path / "store.rejected.csv").read_text().count("silent") == 1
    assert_same(rows_of(tmp_path / "store"), alone)
    assert len(committed(tmp_path)) > RECORDINGS
    assert unnamed(tmp_path) == []
    root, table = corpus
    options = ExtractOptions(audio_root=str(root), **SETTINGS)
    assert run_extraction(table, tmp_path / "store", options).new == 0  # --engine local goes on


def test_a_worker_and_a_node_killed_in_a_unit_lose_and_double_nothing(two, corpus, alone, tmp_path):
    two.set_fault("slow.wav")
    process = two.start(words(corpus, *on(two)), tmp_path)
    two.wait_for(lambda: committed(tmp_path) and len(two.workers()) > 1, process)
    os.kill(two.workers()[0], signal.SIGKILL)
    two.tell("kill a node")
    try:
        code, said, errors = said_by(process)
    finally:
        two.tell("add a node")
    assert (code, errors) == (REJECTED, "")
    assert re.search(r"; (1 try of units was|2 tries of units were) lost and made again", said)
    assert "raylet" not in said  # what Ray says of a machine that died
    assert_same(rows_of(tmp_path / "store"), alone)
    assert unnamed(tmp_path) == []


def test_a_driver_tells_who_works_and_the_second_one_is_told_and_goes_on_after_its_end(
    two, corpus, alone, tmp_path
):
    two.set_fault("slow.wav")
    process = two.start(words(corpus, *on(two)), tmp_path)
    running = two.wait_for(lambda: committed(tmp_path) and told_running(tmp_path), process)
    assert (running["total"], running["pid"]) == (len(alone) + 1, process.pid)
    assert 0 <= running["done"] < len(alone)
    assert {unit["pid"] for unit in running["units"]} <= two.processes().keys()
    root, table = corpus
    settings = {**SETTINGS, "audio_root": str(root), "engine": "ray", "ray_address": two.address}
    with pytest.raises(InputError, match=rf'writing is locked by {{"pid": {process.pid},'):
        run_extraction(table, tmp_path / "store", ExtractOptions(**settings))
    process.kill()
    process.communicate()
    there = rows_of(tmp_path / "store")
    assert 0 < len(there) < len(alone)

    process = two.start(words(corpus, *on(two)), tmp_path)
    two.wait_for(lambda: len(rows_of(tmp_path / "store")) > len(there), process)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    two.wait_until_idle()
    assert store_info(tmp_path / "store")["running"] is None
    there = rows_of(tmp_path / "store")
    assert 0 < len(there) < len(alone)
    assert_same(there, {name: alone[name] for name in there})

    two.clear()
    code, said, _ = two.run(words(corpus, *on(two)), tmp_path)
    assert code == REJECTED
    assert f"{len(alone) - len(there)} of them new" in said
    assert_same(rows_of(tmp_path / "store"), alone)
    assert unnamed(tmp_path) == []


def test_a_unit_that_kills_its_process_fails_by_name_and_the_others_go_on(
    two, corpus, alone, tmp_path
):
    two.set_fault("kill-m1.wav")
    code, said, errors = two.run(words(corpus, *on(two), "--unit-minutes", "0.3"), tmp_path)
    assert code == 3
    assert re.fullmatch(
        r"failed: \d+ segments of 3 recordings, m0.wav to m2.wav "
        r"\(its process died in each of 4 tries\)\n",
        errors,
    )
    assert "failed; run the same command to try again" in said
    there = rows_of(tmp_path / "store")
    assert {name[:2] for name in there} >= {"m3"}
    assert_same(there, {name: alone[name] for name in there})
    two.clear()
    options = ExtractOptions(audio_root=str(corpus[0]), **SETTINGS)
    run_extraction(corpus[1], tmp_path / "store", options)  # --engine local does what is left
    assert_same(rows_of(tmp_path / "store"), alone)


def test_a_machine_that_does_not_see_the_store_is_told_with_what_remains(two, corpus, tmp_path):
    two.set_fault("blind")
    code, _, errors = two.run(words(corpus, *on(two)), tmp_path)
    assert code == 1
    assert f"{tmp_path}/store/shards is not seen there (No such file or directory)" in errors
    assert "--shard i/n into a store of its own, then spk-store merge" in errors
    assert committed(tmp_path) == unnamed(tmp_path) == []


LISTENING = """
import json, sys
import psutil  # which Ray brings
ours = psutil.Process(int(sys.argv[1]))
lines = [line for p in [ours, *ours.children(recursive=True)] for line in p.net_connections()]
print(json.dumps(sorted({line.laddr.ip for line in lines if line.status == "LISTEN"})))
"""


def test_a_ray_of_this_machine_is_on_loopback_alone_and_ends_on_a_signal(
    two, corpus, alone, tmp_path
):
    two.set_fault("slow.wav")
    process = two.start(words(corpus, "--engine", "ray"), tmp_path)
    two.wait_for(lambda: committed(tmp_path), process)
    asked = [sys.executable, "-c", LISTENING, str(process.pid)]
    said = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert json.loads(said.stdout)
    assert set(json.loads(said.stdout)) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    os.killpg(process.pid, signal.SIGTERM)  # as scancel does: to all of them
    _, errors = process.communicate(timeout=60)
    said = [
        "stopping, and ending the units under way; once more to stop at once",
        "interrupted; run the same command to resume",
    ]
    assert (process.returncode, errors.splitlines()) == (128 + signal.SIGTERM, said)
    two.wait_until_idle()
    there = rows_of(tmp_path / "store")
    assert 0 < len(there) < len(alone)
    assert_same(there, {name: alone[name] for name in there})
    root, table = corpus  # --engine local goes on
    run_extraction(table, tmp_path / "store", ExtractOptions(audio_root=str(root), **SETTINGS))
    assert_same(rows_of(tmp_path / "store"), alone)
    assert unnamed(tmp_path) == []
