from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from spk.classify.cli import main
from spk.classify.learning import COLUMNS, learning_curve
from spk.classify.outcome import evaluate
from spk.classify.show import write_outcome
from spk.classify.sweep import Settings
from spk.manifests.table import InputError, write_table

FAST = Settings(classifiers="ridge", layers="1", jobs=1)


@pytest.fixture(scope="module")
def outcome(table, store_path):
    return evaluate(table, store_path, FAST)


@pytest.fixture(scope="module")
def run(tmp_path_factory, outcome):
    folder = tmp_path_factory.mktemp("learning") / "run"
    write_outcome(outcome, folder)
    return folder


def test_all_speech_gives_what_the_sweep_gave(table, store_path, run, outcome):
    (row,) = learning_curve(table, store_path, run, seconds="1e6", draws=2).to_dict("records")
    right = outcome.predictions["speaker"] == outcome.predictions["predicted"]
    assert row["accuracy"] == row["worst"] == row["best"] == pytest.approx(right.mean())
    assert row["segments"] == len(right)
    assert row["speakers"] == 0  # nobody has that much
    assert row["speech"] == pytest.approx(12 * 1.5)


def test_whole_segments_are_learnt_until_the_seconds_are_reached(table, store_path, run):
    curve = learning_curve(table, store_path, run, seconds="1,1.5,2,6,18,60", draws=1)
    assert tuple(curve.columns) == COLUMNS
    assert list(curve["seconds"]) == [1, 1.5, 2, 6, 18, 60]
    np.testing.assert_allclose(curve["speech"], [1.5, 1.5, 3, 6, 18, 18])  # 12 segments of 1.5 s
    assert list(curve["speakers"]) == [9, 9, 9, 9, 9, 0]
    assert ((curve["low"] <= curve["accuracy"]) & (curve["accuracy"] <= curve["high"])).all()
    assert curve["accuracy"].iloc[-1] > curve["accuracy"].iloc[0]


def test_the_first_draw_is_what_scikit_learn_learns_from_the_first_segments(
    table, features, store_path, run
):
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fixed = replace(FAST, penalty=10.0)
    folder = run.parent / "fixed"
    write_outcome(evaluate(table, store_path, fixed), folder)
    (row,) = learning_curve(table, store_path, folder, seconds="3", draws=1).to_dict("records")
    X, right = features[:, 1], []
    for _, part in table.groupby("session"):
        train = part[part["split"] == "train"].groupby("speaker").head(2).index
        test = part.index[part["split"] == "test"]
        model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=10.0))
        model.fit(X[train], table["speaker"][train])
        right += list(model.predict(X[test]) == table["speaker"][test])
    assert row["accuracy"] == pytest.approx(np.mean(right))


def test_draws_differ_and_the_same_seed_gives_the_same_curve(table, store_path, run):
    first, again, other = (
        learning_curve(table, store_path, run, seconds="1", draws=3, seed=seed)
        for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(first, again)
    assert first["worst"][0] < first["best"][0]
    assert not first.equals(other)


def test_a_folded_sweep_has_a_curve_too(table, store_path, tmp_path):
    folded = replace(FAST, folds=3, gap=0.4)
    write_outcome(evaluate(table, store_path, folded), tmp_path / "run")
    curve = learning_curve(table, store_path, tmp_path / "run", seconds="60", draws=1)
    assert curve["speech"][0] == pytest.approx(16 * 1.5)  # train and valid


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"seconds": "1,x"}, "seconds: '1,x' is given, expected numbers above 0"),
        ({"seconds": "0"}, "seconds: '0' is given"),
        ({"draws": 0}, "draws: 0 is given, expected 1 or more"),
    ],
)
def test_numbers_that_cannot_be_are_refused(table, store_path, run, options, expected):
    with pytest.raises(InputError, match=expected):
        learning_curve(table, store_path, run, **options)


@pytest.mark.parametrize("content", [None, "[]", '{"settings": {"colour": 1}}', '{"store": {}}'])
def test_a_folder_that_is_no_sweeps_is_refused(tmp_path, table, store_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="holds no config.json of a sweep"):
        learning_curve(table, store_path, tmp_path)


def test_another_store_is_refused(tmp_path, table, features, run, write_store):
    path = write_store(tmp_path / "s", table["segment_id"], features, encoder="other")
    with pytest.raises(InputError, match="encoder is 'other', expected the run's 'toy'"):
        learning_curve(table, path, run)


def test_the_command_writes_the_curve_beside_the_sweep(tmp_path, table, store_path, run):
    write_table(table, tmp_path / "t.csv")
    words = ["curve", tmp_path / "t.csv", store_path, run, "--seconds", "1,6", "--draws", "2"]
    told = CliRunner().invoke(main, [str(word) for word in words])
    assert told.exit_code == 0, told.output
    assert "2 lengths of enrolment" in told.output
    assert list(pd.read_csv(run / "learning.csv")["seconds"]) == [1, 6]
    wrong = CliRunner().invoke(main, ["curve", str(tmp_path / "t.csv"), str(store_path), "nowhere"])
    assert wrong.exit_code == 1
    assert len(wrong.output.splitlines()) == 1
