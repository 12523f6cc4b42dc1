"""A run's folder is only ever continued, added to or read with what it was made of."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from spk.classify.cli import main
from spk.classify.selection.run_inputs import (
    checksums,
    difference_of,
    inputs_of,
    read_inputs,
    write_inputs,
)
from spk.common.errors import InputError
from spk.extract.store.reader import FeatureStore
from spk.manifests.table import write_table

FAST = ["--classifiers", "ridge", "--layers", "1", "--jobs", "1"]
ADD = {"curve": ["--seconds", "2", "--draws", "1"], "open-set": []}


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def swept(tmp_path_factory, table, store_path):
    """Return (table file, finished sweep)."""
    folder = tmp_path_factory.mktemp("swept")
    write_table(table, folder / "table.csv")
    assert run("sweep", folder / "table.csv", store_path, folder / "out", *FAST).exit_code == 0
    return folder / "table.csv", folder / "out"


def change(table, kind):
    """Return (what is told, a table that differs so)."""
    row = int(np.flatnonzero(table["split"] == "train")[3])
    name, other = table["segment_id"][row], table.copy()
    if kind == "fewer":
        fewer = table.drop(index=row).reset_index(drop=True)
        return f"1 of the run's {len(table)} rows is missing, first {name!r}", fewer
    if kind == "more":
        more = pd.concat([table, table[:1].assign(segment_id="new")], ignore_index=True)
        return f"1 of {len(more)} rows is not the run's, first 'new'", more
    value = {"split": "valid", "speaker": "somebody", "end": other["end"][row] + 0.25}[kind]
    other.loc[row, kind] = value
    return f"1 of {len(table)} rows has another {kind}, first {name!r} with '{value}'", other


@pytest.mark.parametrize("command", list(ADD))
@pytest.mark.parametrize("kind", ["split", "speaker", "end", "fewer", "more"])
def test_another_table_is_refused_with_what_differs(
    tmp_path, table, store_path, swept, command, kind
):
    told, other = change(table, kind)
    write_table(other, tmp_path / "other.csv")
    said = run(command, tmp_path / "other.csv", store_path, swept[1], *ADD[command])
    assert said.exit_code == 1
    assert said.output.startswith(f"{tmp_path / 'other.csv'}: {told}")
    assert said.output.endswith("; pass the table and the store that were swept\n")
    assert not list(swept[1].glob("*.csv.tmp"))
    assert not (swept[1] / "learning.csv").exists()


@pytest.mark.parametrize("kind", ["split", "fewer"])
def test_a_sweep_does_not_go_on_in_the_folder_of_another_table(
    tmp_path, table, store_path, swept, kind
):
    told, other = change(table, kind)
    write_table(other, tmp_path / "other.csv")
    before = {file.name: file.read_bytes() for file in swept[1].iterdir()}
    said = run("sweep", tmp_path / "other.csv", store_path, swept[1], *FAST)
    assert said.exit_code == 1
    assert told in said.output
    assert said.output.endswith("; pass --overwrite to restart it, or name another folder\n")
    assert before == {file.name: file.read_bytes() for file in swept[1].iterdir()}


@pytest.mark.parametrize("command", [*ADD, "sweep"])
def test_another_stores_features_are_refused(
    tmp_path, table, features, swept, write_store, command
):
    changed = features.copy()
    changed[5, 1, 0] += 1
    store = write_store(tmp_path / "other", table["segment_id"], changed)
    said = run(command, swept[0], store, swept[1], *ADD.get(command, FAST))
    assert said.exit_code == 1
    name = table["segment_id"][5]
    assert f"{store}: 1 of {len(table)} rows has other features, first {name!r}" in said.output


def test_rows_in_another_order_and_a_copied_store_are_the_same_run(
    tmp_path, table, features, swept, write_store
):
    store = write_store(tmp_path / "copy", table["segment_id"], features)
    write_table(table[::-1].reset_index(drop=True), tmp_path / "turned.csv")
    said = run("curve", tmp_path / "turned.csv", store, swept[1], *ADD["curve"])
    assert said.exit_code == 0, said.output


def test_a_folder_from_before_is_compared_by_its_predictions(tmp_path, table, store_path, swept):
    old = tmp_path / "old"
    old.mkdir()
    for file in swept[1].iterdir():
        (old / file.name).write_bytes(file.read_bytes())
    (old / "inputs.json").unlink()
    config = json.loads((old / "config.json").read_text())
    del config["files"], config["inputs_sha256"]
    (old / "config.json").write_text(json.dumps(config))
    assert run("open-set", swept[0], store_path, old).exit_code == 0
    other = table.assign(split=table["split"].replace({"test": "train", "train": "test"}))
    write_table(other, tmp_path / "other.csv")
    said = run("open-set", tmp_path / "other.csv", store_path, old)
    assert said.exit_code == 1
    assert "36 of 36 rows have another split" in said.output


def test_a_stopped_sweep_is_no_run_and_says_how_to_go_on(tmp_path, store_path, swept):
    (tmp_path / "cells.jsonl").write_bytes((swept[1] / "cells.jsonl").read_bytes())
    (tmp_path / "predictions.csv").write_bytes((swept[1] / "predictions.csv").read_bytes())
    for said in (run("curve", swept[0], store_path, tmp_path), run("report", tmp_path)):
        assert said.exit_code == 1
        assert "holds a sweep that was stopped before its end" in said.output


@pytest.mark.parametrize("name", ["metrics.csv", "sweep.csv", "predictions.csv", "inputs.json"])
def test_files_of_two_runs_in_one_folder_are_refused(tmp_path, store_path, swept, name):
    for file in swept[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_bytes((swept[1] / name).read_bytes() + b"\n")
    for said in (run("curve", swept[0], store_path, tmp_path), run("report", tmp_path)):
        assert said.exit_code == 1
        assert f"first {name!r}, expected one run's" in said.output


def test_a_curve_of_another_run_is_not_reported_as_this_ones(tmp_path, store_path, swept):
    for file in swept[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "learning.csv").unlink(missing_ok=True)
    assert run("curve", swept[0], store_path, tmp_path, *ADD["curve"]).exit_code == 0
    page = tmp_path / "page.html"
    assert run("report", tmp_path, "-o", page).exit_code == 0
    curve = pd.read_csv(tmp_path / "learning.csv", dtype=str)
    curve.assign(run="0" * 16).to_csv(tmp_path / "learning.csv", index=False)
    said = run("report", tmp_path, "-o", page)
    assert said.exit_code == 1
    assert "learning.csv: is of another run" in said.output
    assert "run spk-classify curve again" in said.output


def test_inputs_are_read_as_written(tmp_path, table, store):
    odd = table.assign(speaker=[f'B\u00fc {k},"x"' for k in range(len(table))], start=1 / 3)
    written = inputs_of(odd, store, [2, 0])
    write_inputs(written, tmp_path)
    found = read_inputs(tmp_path)
    assert difference_of(written.rows, found.rows) == ""
    assert found.layers == [0, 2]
    assert found.sha256 == written.sha256
    (tmp_path / "inputs.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        read_inputs(tmp_path)


def test_checksums_are_of_the_layers_asked_for(tmp_path, table, features, write_store):
    changed = features.copy()
    changed[0, 2] += 1
    stores = [
        FeatureStore.open(write_store(tmp_path / name, table["segment_id"], made))
        for name, made in (("a", features), ("b", changed))
    ]
    ids = table["segment_id"].to_numpy(str)
    one, other = (checksums(store, ids, [0, 1]) for store in stores)
    assert one == other
    assert len(set(one)) == len(ids)
    one, other = (checksums(store, ids, [1, 2]) for store in stores)
    assert one[0] != other[0]
    assert one[1:] == other[1:]
