"""Every command that scores says when a score means nothing."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from spk.classify.cli import main
from spk.classify.evaluation.score import score
from spk.classify.speaker_model_files import load_model
from spk.classify.validity import doubts_of, learnt_from, unknown_text
from spk.manifests.splits.tasks import majority_label, make_tasks
from spk.manifests.table import write_predictions, write_table

FAST = ["--classifiers", "ridge", "--layers", "1", "--jobs", "1"]
LEARNT = "segments were learnt from or chosen on, or share audio with such"


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, table, store_path):
    """Return (table file, model folder)."""
    folder = tmp_path_factory.mktemp("fitted")
    write_table(table, folder / "table.csv")
    assert run("fit", folder / "table.csv", store_path, folder / "model", *FAST).exit_code == 0
    return folder / "table.csv", folder / "model"


def segments(rows):
    columns = ["segment_id", "session", "audio", "start", "end", "split"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize(
    ("audio", "session", "start", "expected"),
    [
        ("S1.wav", "S1", 5.0, True),
        ("/data/wav/S1.flac", "S1", 5.9, True),  # another folder and suffix
        ("/data/wav/S1.flac", "renamed", 5.9, True),  # the same recording by its path
        ("other/wav/S1.wav", "S1", 5.0, True),
        ("S1.wav", "S1", 6.0, False),  # touching is no shared audio
        ("S2.wav", "S2", 5.0, False),
        ("S2/0001.wav", "S2", 0.0, False),  # files of cut segments have names in common
    ],
)
def test_shared_audio_is_seen_however_the_path_is_written(audio, session, start, expected):
    learnt = segments(
        [("a", "S1", "wav/S1.wav", 5.0, 6.0, "train"), ("b", "S1", "S1/0001.wav", 0, 1, "train")]
    )
    rows = segments([("x", session, audio, start, start + 1, "test")])
    assert learnt_from(rows, learnt).tolist() == [expected]


@pytest.mark.parametrize(
    ("declared", "used", "expected"),
    [
        ("train", "train", False),
        ("valid", "train", True),
        ("test", "train", True),
        ("", "valid", True),
        ("valid", "valid", False),
        ("train", "valid", False),
    ],
)
def test_a_row_counts_where_the_model_had_more_of_it_than_its_split_says(declared, used, expected):
    learnt = segments([("a", "S1", "S1.wav", 5.0, 6.0, used)])
    rows = segments([("a", "S1", "S1.wav", 5.0, 6.0, declared)])
    assert learnt_from(rows, learnt).tolist() == [expected]


def test_predict_counts_what_the_model_learnt_and_its_name_says_so(
    tmp_path, table, store_path, fitted
):
    other = table.assign(split=np.where(table["split"] == "train", "test", "train"))
    write_table(other, tmp_path / "other.csv")
    said = run("predict", fitted[1], tmp_path / "other.csv", store_path, tmp_path / "p.csv")
    assert said.exit_code == 0
    assert f"108 of 108 {LEARNT}" in said.output
    named = pd.read_csv(tmp_path / "p.csv")
    assert named["model"].iloc[0].endswith(", 108 training segments")
    for command in (
        ["score", tmp_path / "p.csv"],
        ["compare", tmp_path / "p.csv", tmp_path / "p.csv"],
        ["report", tmp_path / "p.csv", "-o", tmp_path / "page.html"],
    ):
        told = run(*command)
        assert told.exit_code == 0, told.output
        assert f"108 {LEARNT}" in told.output


def test_its_own_test_rows_raise_no_doubt(tmp_path, store_path, fitted):
    said = run("predict", fitted[1], fitted[0], store_path, tmp_path / "p.csv")
    assert said.exit_code == 0
    assert LEARNT not in said.output
    told = run("score", tmp_path / "p.csv", "--table", fitted[0])
    assert LEARNT not in told.output


def test_a_model_from_before_says_that_it_cannot_know(tmp_path, store_path, fitted):
    old = tmp_path / "old"
    old.mkdir()
    for file in fitted[1].iterdir():
        (old / file.name).write_bytes(file.read_bytes())
    (old / "learnt.csv").unlink()
    described = json.loads((old / "model.json").read_text())
    del described["sha256"]["learnt.csv"]
    (old / "model.json").write_text(json.dumps(described))
    assert load_model(old).learnt is None
    said = run("predict", old, fitted[0], store_path, tmp_path / "p.csv")
    assert said.exit_code == 0
    assert "the model does not say which segments it learnt from" in said.output


def test_score_sees_by_the_table_what_foreign_predictions_do_not_say(tmp_path, store_path, fitted):
    run("predict", fitted[1], fitted[0], store_path, tmp_path / "p.csv", "--split", "train")
    named = pd.read_csv(tmp_path / "p.csv").assign(split="test", model="theirs")
    write_predictions(named, tmp_path / "theirs.csv")
    told = run("score", tmp_path / "theirs.csv", "--table", fitted[0])
    assert f"by the table, 108 of 108 {LEARNT}" in told.output


def test_sweep_fit_and_curve_count_test_rows_that_overlap_training(tmp_path, table, store_path):
    leaky = table.copy()
    tested = np.flatnonzero(leaky["split"] == "test")
    trained = np.flatnonzero(leaky["split"] == "train")
    leaky.loc[tested[:3], ["start", "end"]] = leaky.loc[trained[:3], ["start", "end"]].to_numpy()
    write_table(leaky, tmp_path / "t.csv")
    said = run("sweep", tmp_path / "t.csv", store_path, tmp_path / "out", *FAST)
    assert f"3 of 36 {LEARNT}" in said.output, said.output
    assert pd.read_csv(tmp_path / "out" / "predictions.csv")["model"][0].endswith(
        ", 3 training segments"
    )
    for command in (["curve", "--seconds", "2", "--draws", "1"], ["open-set"]):
        told = run(command[0], tmp_path / "t.csv", store_path, tmp_path / "out", *command[1:])
        assert f"test: 3 of 36 {LEARNT}" in told.output
    leaky["split"] = leaky["split"].replace({"test": "valid", "valid": "test"})
    write_table(leaky, tmp_path / "v.csv")
    told = run("fit", tmp_path / "v.csv", store_path, tmp_path / "model", *FAST)
    assert f"valid: 3 of 36 {LEARNT}" in told.output


def test_speakers_that_are_no_candidates_are_counted_everywhere(
    tmp_path, table, store_path, fitted
):
    strange = table.assign(speaker="guest")
    write_table(strange, tmp_path / "t.csv")
    said = run("predict", fitted[1], tmp_path / "t.csv", store_path, tmp_path / "p.csv")
    told = unknown_text(36, 36, "guest")
    assert told in said.output
    page = ["report", tmp_path / "p.csv", "-o", tmp_path / "page.html"]
    for command in (
        ["score", tmp_path / "p.csv"],
        ["compare", tmp_path / "p.csv", tmp_path / "p.csv"],
        page,
    ):
        assert told in run(*command).output
    assert "36 of 36 segments have speakers" in (tmp_path / "page.html").read_text()
    named = pd.read_csv(tmp_path / "p.csv").drop(columns="scores")
    assert doubts_of(named) == []  # nobody can know
    assert doubts_of(named, table) == [told]


def test_a_new_meeting_with_the_model_of_another_is_named_by_the_repair(
    tmp_path, table, store_path
):
    first, second = sorted(set(table["session"]))[:2]
    write_table(table[table["session"] == first], tmp_path / "known.csv")
    new = table[table["session"] == second].drop(columns="split").assign(speaker="?")
    write_table(new, tmp_path / "new.csv")
    run("fit", tmp_path / "known.csv", store_path, tmp_path / "model", *FAST)
    predict = ("predict", tmp_path / "model", tmp_path / "new.csv", store_path, tmp_path / "p.csv")
    said = run(*predict, "--split", "all")
    assert said.exit_code == 1
    assert "fit with --within corpus on the table of the known meetings" in said.output
    fit = ("fit", tmp_path / "known.csv", store_path, tmp_path / "all", *FAST)
    assert run(*fit, "--within", "corpus").exit_code == 0
    said = run("predict", tmp_path / "all", *predict[2:], "--split", "all")
    assert said.exit_code == 0
    assert len(pd.read_csv(tmp_path / "p.csv")) == len(new)


def lopsided(table, kind):
    """Return a table whose majorities are easily counted in two ways."""
    rows = table.copy()
    first = sorted(set(rows["session"]))[0]
    here, train = (rows["session"] == first).to_numpy(), (rows["split"] == "train").to_numpy()
    if kind == "missing":  # a meeting's leader in train is never tested
        rows.loc[
            here & (rows["split"] == "test") & rows["speaker"].str.endswith("1-M"), "split"
        ] = ""
    elif kind == "purged":
        rows.loc[
            np.flatnonzero(here & train & rows["speaker"].str.endswith("1-M"))[:5], "split"
        ] = ""
    elif kind == "folded":  # valid would make another the leader
        rows.loc[
            np.flatnonzero(here & train & ~rows["speaker"].str.endswith("3-M"))[:2], "split"
        ] = ""
        valid = here & (rows["split"] == "valid")
        rows.loc[valid & rows["speaker"].str.endswith("3-M"), "split"] = ""
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("within", ["session", "corpus"])
@pytest.mark.parametrize("kind", ["ties", "missing", "purged", "folded", "rejected"])
def test_one_table_has_one_majority(tmp_path, table, features, write_store, kind, within):
    rows = lopsided(table, kind)
    keep = np.ones(len(rows), bool)
    if kind == "rejected":
        keep[
            np.flatnonzero((rows["split"] == "train") & rows["speaker"].str.endswith("1-M"))[:7]
        ] = False
    ids = rows["segment_id"].to_numpy()
    store = write_store(tmp_path / "store", ids[keep], features[keep], ids[~keep])
    write_table(rows, tmp_path / "t.csv")
    folds = ["--folds", "2"] if kind == "folded" else []
    said = run(
        "sweep", tmp_path / "t.csv", store, tmp_path / "out", *FAST, *folds, "--within", within
    )
    assert said.exit_code == (3 if kind == "rejected" else 0), said.output
    swept = pd.read_csv(tmp_path / "out" / "metrics.csv")
    predictions = tmp_path / "out" / "predictions.csv"
    told = run("score", predictions, "--table", tmp_path / "t.csv", "-o", tmp_path / "m.csv")
    assert told.exit_code == 0, told.output
    scored = pd.read_csv(tmp_path / "m.csv")
    values = [
        frame.loc[frame["measure"] == "majority", "value"].item() for frame in (swept, scored)
    ]
    train = rows[rows["split"] == "train"]
    named = pd.read_csv(predictions)
    usual = [  # counted by hand
        sorted((-int((part["speaker"] == name).sum()), name) for name in set(part["speaker"]))[0][1]
        for session in named["session"]
        for part in [train if within == "corpus" else train[train["session"] == session]]
    ]
    values.append(float(np.mean(named["speaker"] == usual)))
    assert values == pytest.approx([values[0]] * 3)
    assert f"the majority class ({values[0]:.1%})" in said.output
    if within == "corpus":
        control = pd.read_csv(tmp_path / "out" / "control.csv").set_index("of")
        assert control.loc["label", "majority"] == pytest.approx(values[0])


def test_the_majority_is_the_first_of_equals_among_the_candidates(table):
    assert majority_label(["c", "b", "b", "c", "a"], ["c", "b", "a"]) == "b"
    assert majority_label([], ["z", "y"]) == "y"
    for task in make_tasks(table, "session")[0]:
        assert task.labels[task.majority_code] == min(task.labels)  # all have as many


def test_without_a_table_no_majority_is_called_that(tmp_path, store_path, fitted):
    run("predict", fitted[1], fitted[0], store_path, tmp_path / "p.csv")
    measures = score(pd.read_csv(tmp_path / "p.csv"), resamples=10)
    assert "majority" not in set(measures["measure"])
    assert (
        "always naming the most frequent of the scored speakers"
        in run("score", tmp_path / "p.csv").output
    )


@pytest.mark.parametrize(("train", "valid"), [(3, 0), (2, 2), (0, 4)])
def test_rows_of_the_splits_that_are_learnt_from_are_counted(train, valid):
    splits = ["train"] * train + ["valid"] * valid + ["test"] * 3
    named = pd.DataFrame(
        {
            "segment_id": [f"s{number}" for number in range(len(splits))],
            "session": "M",
            "speaker": "A",
            "predicted": "A",
            "score": 1.0,
            "split": splits,
            "model": "ridge",
        }
    )
    (line,) = doubts_of(named)
    assert f"{train + valid} of {len(splits)} segments are of the splits train and valid" in line
    assert doubts_of(named[named["split"] == "test"]) == []
