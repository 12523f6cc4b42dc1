import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from spk.classify.cli import main
from spk.classify.evaluation.learning_curve import COLUMNS, conclude_curve, learning_curve
from spk.classify.experiment import run_experiment
from spk.classify.options import SweepSettings
from spk.classify.output import write_outcome
from spk.common.errors import InputError
from spk.manifests.table import write_table

FAST = SweepSettings(classifiers="ridge", layers="1", jobs=1)


@pytest.fixture(scope="module")
def outcome(table, store_path):
    return run_experiment(table, store_path, FAST)


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
    write_outcome(run_experiment(table, store_path, fixed), folder)
    (row,) = learning_curve(table, store_path, folder, seconds="3", draws=1).to_dict("records")
    X, right = features[:, 1], []
    for _, part in table.groupby("session"):
        train = part[part["split"] == "train"].groupby("speaker").head(2).index
        test = part.index[part["split"] == "test"]
        model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=10.0))
        model.fit(X[train], table["speaker"][train])
        right += list(model.predict(X[test]) == table["speaker"][test])
    assert row["accuracy"] == pytest.approx(np.mean(right))


def test_how_far_a_length_is_behind_the_last_is_paired(table, store_path, run):
    options = {"draws": 2, "seed": 3}
    curve = learning_curve(table, store_path, run, seconds="1.5,6,18", **options)
    less = curve["accuracy"].iloc[-1] - curve["accuracy"]
    np.testing.assert_allclose(curve["behind"][:2], less[:2])
    assert curve["behind"].isna().tolist() == [False, False, True]
    assert (curve["behind_low"] < curve["behind"])[:2].all()
    assert (curve["behind"] < curve["behind_high"])[:2].all()
    unpaired = curve["high"].iloc[-1] - curve["low"][0]
    assert curve["behind_high"][0] - curve["behind_low"][0] < unpaired
    same = learning_curve(table, store_path, run, seconds="18,60", **options)  # all give all
    assert list(same.loc[0, ["behind", "behind_low", "behind_high"]]) == [0, 0, 0]


def test_only_a_length_whose_interval_leaves_out_0_is_said_to_be_behind():
    rows = [(1, 0.4, 0.3, 0.1, 0.3, 9), (5, 0.6, 0.1, -0.1, 0.2, 9), (60, 0.7, None, None, None, 2)]
    names = ["seconds", "accuracy", "behind", "behind_low", "behind_high", "speakers"]
    curve = pd.DataFrame(rows, columns=names).assign(low=0.2, high=0.8, segments=30)
    told = conclude_curve(curve)
    assert told.startswith("With 60 s of speech per speaker 70.0% (20.0% to 80.0%) of 30 test")
    assert "(2 speakers have that much, the others give all they have); with 1 s 40.0%" in told
    assert "Shown to be behind 60 s: 1 s; not shown: 5 s (95 % interval" in told
    assert "behind" not in conclude_curve(
        curve[["seconds", "accuracy", "low", "high"]].assign(segments=30, speakers=9)
    )
    assert "with 1 s" not in conclude_curve(curve[:1])


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
    write_outcome(run_experiment(table, store_path, folded), tmp_path / "run")
    curve = learning_curve(table, store_path, tmp_path / "run", seconds="60", draws=1)
    assert curve["speech"][0] == pytest.approx(16 * 1.5)  # train and valid


def test_a_run_of_before_with_isotonic_calibration_has_a_curve_too(
    table, store_path, run, tmp_path
):
    shutil.copytree(run, tmp_path / "old")
    config = json.loads((run / "config.json").read_text())
    config["settings"]["calibration"] = config["chosen"]["calibration"] = "isotonic"
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    old, new = (
        learning_curve(table, store_path, folder, seconds="5", draws=1)
        for folder in (tmp_path / "old", run)
    )
    assert old.equals(new)


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


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ({"combine": "mix", "layers": [0, 1], "weights": [0.5, 0.5]}, "layers mix:0\\+1"),
        ({"standardise": "no"}, "layer 1, not standardised"),
    ],
)
def test_what_only_earlier_versions_fit_asks_for_a_new_sweep(
    tmp_path, table, store_path, run, chosen, named
):
    old = shutil.copytree(run, tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    config["chosen"] |= chosen
    config["settings"] |= {key: value for key, value in chosen.items() if key == "combine"}
    del config["files"]
    (old / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"chose {named} in an earlier version.*sweep again"):
        learning_curve(table, store_path, old)


def test_another_store_is_refused(tmp_path, table, features, run, write_store):
    path = write_store(
        tmp_path / "s", table["segment_id"], features, encoder="x", weights_sha256="c" * 64
    )
    with pytest.raises(InputError, match="weights_sha256 'ccc.*, not 'aaa"):
        learning_curve(table, path, run)


def test_the_command_writes_the_curve_beside_the_sweep(tmp_path, table, store_path, run):
    write_table(table, tmp_path / "t.csv")
    words = ["curve", tmp_path / "t.csv", store_path, run, "--seconds", "1,6", "--draws", "2"]
    told = CliRunner().invoke(main, [str(word) for word in words])
    assert told.exit_code == 0, told.output
    curve = pd.read_csv(run / "learning.csv")
    assert list(curve["seconds"]) == [1, 6]
    assert told.output.startswith("learnt: train alone, since validation sets what is found here")
    assert "\nridge, layer 1\n\nseconds  accuracy" in told.output
    assert f"\n{conclude_curve(curve)}\nwrote" in told.output
    wrong = CliRunner().invoke(main, ["curve", str(tmp_path / "t.csv"), str(store_path), "nowhere"])
    assert wrong.exit_code == 1
    assert len(wrong.output.splitlines()) == 1


def test_seconds_that_nobody_has_are_no_headline():
    columns = ["seconds", "accuracy", "low", "high", "behind", "behind_low", "segments", "speakers"]
    rows = [
        (1.0, 0.4, 0.3, 0.5, 0.4, 0.3, 50, 6),
        (10.0, 0.7, 0.6, 0.8, 0.1, -0.1, 50, 2),
        (60.0, 0.8, 0.7, 0.9, np.nan, np.nan, 50, 0),
    ]
    told = conclude_curve(pd.DataFrame(rows, columns=columns))
    assert told.startswith("With 10 s of speech per speaker 70.0% (60.0% to 80.0%) of 50 test")
    assert "; no speaker has 60 s; with 1 s 40.0%" in told
    assert "Shown to be behind all they have: 1 s; not shown: 10 s" in told
