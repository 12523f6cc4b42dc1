"""One unfit meeting is left out by name, whatever the classifier."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from spk.classify.classifiers.registry import PENALTIES
from spk.classify.cli import main
from spk.manifests.table import write_table

pytestmark = pytest.mark.slow

KINDS = ("unknown valid", "one speaker", "no train", "no valid", "rejected", "constant", "few")
FOLDED = ("one speaker", "no train", "rejected", "constant", "few")


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def unfit(kind, table, features):
    """Return table, features and rejected ids in which the second meeting is unfit."""
    table, features = table.copy(), features.copy()
    here = (table["session"] == sorted(set(table["session"]))[1]).to_numpy()
    split = table["split"]
    rejected = np.zeros(len(table), bool)
    if kind == "unknown valid":
        table.loc[here & (split == "valid"), "speaker"] = "guest"
    elif kind == "one speaker":
        table.loc[here, "speaker"] = "only"
    elif kind in ("no train", "no valid"):
        table.loc[here & (split == kind[3:]), "split"] = ""
        if kind == "no train":
            table.loc[here & (split == "valid"), "split"] = ""
    elif kind == "rejected":
        rejected = here
    elif kind == "constant":
        features[here] = 1.5
    elif kind == "few":  # a segment of each of two speakers: nothing to hold out
        train = np.flatnonzero(here & (split == "train"))
        table.loc[here & (split == "valid"), "split"] = ""
        table.loc[train[2:], "split"] = ""
    keep = ~rejected
    return table, features[keep], table["segment_id"][keep], table["segment_id"][rejected]


@pytest.fixture
def made(tmp_path, table, features, write_store):
    def make(kind):
        rows, vectors, ids, rejected = unfit(kind, table, features)
        write_table(rows, tmp_path / "table.csv")
        return tmp_path / "table.csv", write_store(tmp_path / "store", ids, vectors, rejected)

    return make


@pytest.mark.parametrize("classifier", PENALTIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_and_a_fit_leave_an_unfit_meeting_out_by_name(
    tmp_path, table, made, kind, classifier
):
    rows, store = made(kind)
    name = sorted(set(table["session"]))[1]
    options = ["--layers", "1", "--classifiers", classifier, "--jobs", "1"]
    said = run("sweep", rows, store, tmp_path / "out", *options)
    kept = kind == "unknown valid" and classifier != "lightgbm"  # learnt and tested all the same
    assert said.exit_code == (0 if kept else 3), said.output
    assert (f"left out: {name}, " in said.output) is not kept
    named = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert set(named["session"]) == set(table["session"]) - (set() if kept else {name})
    if not kept:
        listed = pd.read_csv(tmp_path / "out" / "left_out.csv")
        assert set(listed["session"]) == {name}
        assert listed["reason"].notna().all()
    fitted = run("fit", rows, store, tmp_path / "model", *options)
    assert fitted.exit_code == (0 if kept else 3), fitted.output
    assert (tmp_path / "model" / "left_out.csv").exists() is not kept


@pytest.mark.parametrize("classifier", [name for name in PENALTIES if name != "lightgbm"])
@pytest.mark.parametrize("kind", FOLDED)
def test_folds_leave_an_unfit_meeting_out_by_name(tmp_path, table, made, kind, classifier):
    rows, store = made(kind)
    options = ["--layers", "1", "--classifiers", classifier, "--jobs", "1", "--folds", "3"]
    said = run("sweep", rows, store, tmp_path / "out", *options)
    assert said.exit_code == 3, said.output
    assert f"left out: {sorted(set(table['session']))[1]}, " in said.output


@pytest.mark.parametrize("kind", ["one speaker", "constant", "rejected"])
def test_curve_and_open_set_leave_out_what_the_sweep_did_and_say_so(tmp_path, table, made, kind):
    rows, store = made(kind)
    options = ["--layers", "1", "--classifiers", "ridge", "--jobs", "1"]
    assert run("sweep", rows, store, tmp_path / "out", *options).exit_code == 3
    name = sorted(set(table["session"]))[1]
    for command in (["curve", "--seconds", "2", "--draws", "1"], ["open-set"]):
        said = run(command[0], rows, store, tmp_path / "out", *command[1:])
        assert said.exit_code == 3, said.output
        assert f"left out: {name}, " in said.output


def test_open_set_with_lightgbm_leaves_out_whom_it_cannot_stop_without(
    tmp_path, table, features, write_store
):
    rows = table.copy()
    label = rows["speaker"][0]
    here = rows["session"] == rows["session"][0]
    rows.loc[here & (rows["split"] == "valid") & (rows["speaker"] != label), "split"] = ""
    write_table(rows, tmp_path / "table.csv")
    store = write_store(tmp_path / "store", rows["segment_id"], features)
    options = ["--layers", "1", "--classifiers", "lightgbm", "--jobs", "1"]
    assert run("sweep", tmp_path / "table.csv", store, tmp_path / "out", *options).exit_code == 0
    said = run("open-set", tmp_path / "table.csv", store, tmp_path / "out")
    assert said.exit_code == 3, said.output
    assert f"left out: {rows['session'][0]}, stranger {label!r}, no validation" in said.output


def test_meetings_too_small_for_an_open_set_are_named(tmp_path, table, features, write_store):
    name = sorted(set(table["session"]))[2]
    rows = table[~((table["session"] == name) & table["speaker"].str.endswith("003-M"))]
    write_table(rows, tmp_path / "table.csv")
    store = write_store(tmp_path / "store", table["segment_id"], features)
    options = ["--layers", "1", "--classifiers", "ridge", "--jobs", "1"]
    assert run("sweep", tmp_path / "table.csv", store, tmp_path / "out", *options).exit_code == 0
    said = run("open-set", tmp_path / "table.csv", store, tmp_path / "out")
    assert said.exit_code == 3
    assert f"left out: {name}, 2 speakers, fewer than 3" in said.output


@pytest.mark.parametrize("classifier", PENALTIES)
def test_a_layer_without_information_does_not_end_a_sweep(
    tmp_path, table, features, write_store, classifier
):
    flat = features.copy()
    flat[(table["session"] == table["session"][0]).to_numpy(), 0] = 0.5  # one layer, one meeting
    write_table(table, tmp_path / "table.csv")
    store = write_store(tmp_path / "store", table["segment_id"], flat)
    options = ["--layers", "0,1", "--classifiers", classifier, "--jobs", "1"]
    said = run("sweep", tmp_path / "table.csv", store, tmp_path / "out", *options)
    assert said.exit_code == 0, said.output
    assert (pd.read_csv(tmp_path / "out" / "sweep.csv")["valid_accuracy"] >= 0).all()
    flat = ["--layers", "0", "--classifiers", f"{classifier}", "--jobs", "1"]
    said = run("fit", tmp_path / "table.csv", store, tmp_path / "model", *flat)
    assert said.exit_code == 3, said.output  # all its training rows are the same at this layer
    assert f"left out: {table['session'][0]}, all" in said.output


def test_many_left_out_meetings_are_named_in_a_file(tmp_path, toy_table, toy_features, write_store):
    sessions = [f"20990101_S_R001S{k:02}C01" for k in range(25)]
    rows = toy_table(sessions, speakers=2, repeats=1)
    alone = rows["session"] != sessions[0]
    rows.loc[alone, "speaker"] = rows["session"][alone]
    write_table(rows, tmp_path / "table.csv")
    store = write_store(tmp_path / "store", rows["segment_id"], toy_features(rows))
    options = ["--layers", "1", "--classifiers", "centroid", "--jobs", "1"]
    said = run("sweep", tmp_path / "table.csv", store, tmp_path / "out", *options)
    assert said.exit_code == 3
    assert "left out: 4 more sessions, see left_out.csv" in said.output
    assert pd.read_csv(tmp_path / "out" / "left_out.csv")["session"].nunique() == 24
