"""What a classifier over all labels is rewarded for, against counts by hand and scikit-learn."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from spk.classify.cli import main
from spk.classify.evaluation.confounds import (
    COLUMNS,
    confound_tables,
    person_of_label,
    read_control,
)
from spk.classify.evaluation.wording import conclude_control
from spk.classify.experiment import run_experiment
from spk.classify.options import SweepSettings
from spk.classify.output import write_outcome
from spk.common.errors import InputError
from spk.manifests.table import write_table

FAST = SweepSettings(classifiers="ridge", layers="1", within="corpus", penalty=10.0, jobs=1)
ROOM = 0.5  # how far apart rooms are, in a voice's spread


@pytest.fixture(scope="module")
def roomy(table, features):
    """Return features in which each meeting has a place of its own."""
    rng = np.random.default_rng(5)
    places = {name: rng.normal(size=features.shape[2]) for name in sorted(set(table["session"]))}
    shift = np.array([places[name] for name in table["session"]])
    return features + (ROOM * shift[:, None]).astype(np.float32)


@pytest.fixture(scope="module")
def outcome(table, roomy, write_store, tmp_path_factory):
    path = write_store(tmp_path_factory.mktemp("control") / "s", table["segment_id"], roomy)
    return run_experiment(table, path, FAST)


@pytest.fixture(scope="module")
def run(outcome, table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("control") / "run"
    write_outcome(outcome, folder)
    write_table(table, folder.parent / "t.csv")
    return folder


@pytest.fixture
def people(table, tmp_path):
    """Return an identity file in which 001-M of the two meetings of a series are two people."""
    pairs = sorted(set(zip(table["session"], table["speaker"], strict=True)))
    rows = []
    for session, label in pairs:
        local = label.removeprefix(f"{session}_")
        person = f"{session[:8]}-{local}" if local != "001-M" else f"{session}-{local}"
        rows.append(f"{session},{local},{person}\n")
    (tmp_path / "people.csv").write_text("session,speaker,person\n" + "".join(rows))
    return tmp_path / "people.csv"


def named(truth, predicted, table, model="x, within corpus"):
    home = dict(zip(table["speaker"], table["session"], strict=True))
    rows = pd.DataFrame({"speaker": truth, "predicted": predicted, "split": "test"})
    return rows.assign(session=rows["speaker"].map(home), model=model)


def test_labels_fold_by_the_series_and_by_the_file(table, people):
    first, second, third = sorted(set(table["session"]))  # the first two are one series
    truth = [f"{first}_001-M", f"{first}_002-M", f"{first}_002-M", f"{first}_003-M"]
    predicted = [f"{second}_001-M", f"{second}_002-M", f"{third}_002-M", f"{first}_003-M"]
    rows = named(truth, predicted, table)
    for identity, of, classes, accuracy in (
        (None, "person (series)", 6, 3 / 4),
        (people, "person (identity)", 7, 2 / 4),  # 001-M are two people
    ):
        found = confound_tables(rows, table, identity=identity)["x, within corpus"]
        assert list(found["of"]) == ["label", of]
        assert list(found["classes"]) == [9, classes]
        assert list(found["accuracy"]) == [1 / 4, accuracy]
        assert list(found["segments"]) == [4, 4]
    assert not confound_tables(rows.assign(model="y"), table)  # within sessions nothing is folded


def test_a_control_is_what_scikit_learn_makes_of_meetings(outcome, table, roomy):
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, train, test = roomy[:, 1], table["split"] == "train", table["split"] == "test"
    model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=10.0))
    model.fit(X[train], table["session"][train])
    right = model.predict(X[test]) == table["session"][test]
    rows = outcome.control.set_index("of")
    assert tuple(outcome.control.columns) == COLUMNS
    assert rows.loc["meeting", "accuracy"] == pytest.approx(right.mean())
    assert rows.loc["meeting", "mean"] == pytest.approx(
        right.groupby(table["session"][test]).mean().mean()
    )
    assert rows.loc["meeting", "mean_majority"] == pytest.approx(1 / 3)
    assert rows.loc["room (series)", "classes"] == 2
    assert rows.loc["room (series)", "accuracy"] >= rows.loc["meeting", "accuracy"]


def test_ends_are_those_of_the_measures(outcome):
    label = outcome.control.set_index("of").loc["label"]
    found = outcome.measures.query("stratum == 'all'").set_index("measure")
    for row, names in (("accuracy", ("accuracy", "low", "high")),):
        assert list(found.loc[row, ["value", "low", "high"]]) == list(label[list(names)])
    meetings = found.loc["accuracy_meetings", ["value", "low", "high"]]
    np.testing.assert_allclose(
        meetings.to_numpy(float), label[["mean", "mean_low", "mean_high"]].to_numpy(float)
    )


def test_a_room_is_told_only_where_its_interval_carries_it(outcome, table, features):
    assert outcome.conclusion.endswith(f"\n{conclude_control(outcome.control)}")
    told = conclude_control(outcome.control)
    assert "Folded to 6 persons, the 9 labels give " in told
    assert "the meeting is recognised, by its room or by who is in it" in told
    chance = outcome.control.copy()
    chance.loc[chance["of"] == "meeting", "mean_low"] = 1 / 3
    assert conclude_control(chance).endswith("that the meeting is recognised is not shown.")


def test_voices_alone_are_not_said_to_be_rooms(table, write_store, tmp_path):
    noise = np.random.default_rng(3).normal(size=(len(table), 3, 24)).astype(np.float32)
    path = write_store(tmp_path / "s", table["segment_id"], noise)
    assert (
        "that the meeting is recognised is not shown"
        in run_experiment(table, path, FAST).conclusion
    )


@pytest.mark.parametrize("left", [2, 1])
def test_a_meeting_that_is_not_in_train_is_not_said_to_be_hard_to_recognise(
    tmp_path, features, table, write_store, left
):
    sessions = sorted(set(table["session"]))[: left + 1]
    known = table["session"].isin(sessions)
    apart = table[known].reset_index(drop=True)
    apart["split"] = apart["split"].replace("test", "train")
    apart.loc[apart["session"] == sessions[-1], "split"] = "test"
    path = write_store(tmp_path / "s", apart["segment_id"], features[known])
    outcome = run_experiment(apart, path, FAST)
    assert "cannot be recognised: no test segment is of a meeting in train." in outcome.conclusion
    assert outcome.control.set_index("of").loc["meeting", "segments"] == 0


def test_one_meeting_has_no_room_to_recognise(tmp_path, features, table, write_store):
    known = table["session"] == table["session"][0]
    alone = table[known].reset_index(drop=True)
    path = write_store(tmp_path / "s", alone["segment_id"], features[known])
    told = run_experiment(alone, path, FAST).conclusion
    assert "Train has one meeting, so there is no room to recognise." in told
    assert "Each of the 3 labels is a person of its own: nothing is folded." in told


def test_a_chosen_pair_and_a_folded_sweep_are_asked_for_the_meeting(table, store_path):
    for changes in ({"combine": "pairs", "layers": "all"}, {"folds": 3, "gap": 0.4}):
        outcome = run_experiment(table, store_path, replace(FAST, **changes))
        assert list(outcome.control["of"])[2:] == ["meeting", "room (series)"]
        assert "recognise the meeting alone in" in outcome.conclusion


def test_names_that_tell_no_series_fold_nothing(toy_table):
    other = toy_table(sessions=("monday", "tuesday"))
    assert person_of_label(other) is None
    found = confound_tables(named(other["speaker"], other["speaker"], other), other)[
        "x, within corpus"
    ]
    assert list(found["of"]) == ["label"]
    assert conclude_control(found).startswith("Who is who is not known")


def test_an_identity_file_that_does_not_fit_is_refused(table, store_path, people, tmp_path):
    text = people.read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(text[:-1]) + "\n")
    with pytest.raises(InputError, match="'003-M' of session '20990102.*' has no person"):
        run_experiment(table, store_path, FAST, identity=tmp_path / "few.csv")
    with pytest.raises(InputError, match="expected 'corpus'; pass --within corpus"):
        run_experiment(table, store_path, replace(FAST, within="session"), identity=people)
    series = table.assign(speaker=table["session"].str[:15] + table["speaker"].str[-6:])
    with pytest.raises(
        InputError, match="is 2 persons.*make the table with spk-manifests rttm --scope session"
    ):
        person_of_label(series, people)
    persons = person_of_label(table, people)
    already = table.assign(speaker=table["speaker"].map(persons))
    assert person_of_label(already, people) == {name: name for name in persons.values()}


def score(*words):
    told = CliRunner().invoke(main, ["score", *map(str, words)])
    return told.exit_code, told.output


def test_score_tells_the_control_that_the_sweep_left_beside_its_predictions(run, people, outcome):
    pd.testing.assert_frame_equal(read_control(run / "control.csv"), outcome.control)
    words = (run / "predictions.csv", "--table", run.parent / "t.csv")
    code, text = score(*words)
    assert code == 0, text
    assert conclude_control(outcome.control) in text
    code, text = score(*words, "--identity", people)
    assert "Folded to 7 persons, the 9 labels give" in text
    assert "recognise the meeting alone in" in text


def test_a_control_of_other_predictions_is_not_taken(run, tmp_path, table):
    for name in ("predictions.csv", "control.csv"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    (tmp_path / "predictions.csv").write_text("\n".join(lines[:-1]) + "\n")
    code, text = score(tmp_path / "predictions.csv", "--table", run.parent / "t.csv")
    assert code == 0, text
    assert "Folded to 6 persons" in text
    assert "meeting alone" not in text


def test_score_needs_the_table_for_an_identity_and_a_control_that_is_one(run, people, tmp_path):
    code, text = score(run / "predictions.csv", "--identity", people)
    assert (code, "identity: no table is given" in text) == (1, True)
    (tmp_path / "predictions.csv").write_bytes((run / "predictions.csv").read_bytes())
    (tmp_path / "control.csv").write_text("of,classes\nlabel,x\n")
    code, text = score(tmp_path / "predictions.csv", "--table", run.parent / "t.csv")
    assert code == 1
    assert "control.csv: cannot be read" in text
    assert len(text.splitlines()) == 1
