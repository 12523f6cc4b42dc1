import json
import subprocess
import sys

import pandas as pd
import pytest
from click.testing import CliRunner

from spk.classify.cli import main
from spk.manifests.split_record import write_record
from spk.manifests.table import write_table

FAST = ["--classifiers", "ridge", "--layers", "1", "--jobs", "1"]


@pytest.fixture(scope="module")
def table_path(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("cli") / "table.csv"
    write_table(table, path)
    record = {"method": "random", "parameters": {}, "counts": {}, "purged": {}, "leaky": True}
    write_record({**record, "untrained": [], "untested": []}, path)
    return path


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_sweep_fit_predict_and_score_follow_each_other(tmp_path, table_path, store_path):
    swept = run("sweep", table_path, store_path, tmp_path / "out", *FAST)
    assert swept.exit_code == 0, swept.output
    assert "split: random (leaky)" in swept.output
    assert (tmp_path / "out" / "sweep.png").stat().st_size > 0
    fitted = run("fit", table_path, store_path, tmp_path / "model", *FAST)
    assert fitted.exit_code == 0, fitted.output
    assert "3 classifiers, fitted on train" in fitted.output
    named = tmp_path / "p.csv"
    predicted = run("predict", tmp_path / "model", table_path, store_path, named)
    assert predicted.exit_code == 0, predicted.output
    same = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert pd.read_csv(named).equals(same)
    scored = run("score", named, "--table", table_path, "-o", tmp_path / "m.json")
    assert scored.exit_code == 0, scored.output
    assert "split: random (leaky)" in scored.output
    rows = {
        row["measure"]: row
        for row in json.loads((tmp_path / "m.json").read_text())["measures"]
        if row["stratum"] == "all"
    }
    accuracy, baselines = rows["accuracy"], [rows[name]["value"] for name in ("majority", "chance")]
    told = (
        f"names {accuracy['value']:.1%} ({accuracy['low']:.1%} to {accuracy['high']:.1%}) of "
        f"{accuracy['segments']} segments in 3 meetings (interval over meetings and "
        f"segments); always naming the most frequent speaker "
        f"gives {baselines[0]:.1%}, guessing {baselines[1]:.1%}."
    )
    assert scored.stdout.splitlines()[-2].endswith(told)
    assert json.loads((tmp_path / "m.json").read_text())["facts"] == ["split: random (leaky)"]


def test_scores_over_all_labels_say_where_the_room_is_told_apart(tmp_path, table_path, store_path):
    corpus = [*FAST, "--within", "corpus"]
    assert run("fit", table_path, store_path, tmp_path / "model", *corpus).exit_code == 0
    named = run("predict", tmp_path / "model", table_path, store_path, tmp_path / "p.csv")
    assert named.exit_code == 0
    scored = run("score", tmp_path / "p.csv", "-o", tmp_path / "m.json")
    told = "rewards recognising the room: spk-classify sweep says how much"
    assert told in scored.output
    assert told in json.loads((tmp_path / "m.json").read_text())["facts"][0]


def test_a_model_that_is_there_is_refused_before_anything_is_fitted(tmp_path, table_path):
    (tmp_path / "mine.txt").write_text("mine")
    told = run("fit", table_path, "nowhere", tmp_path)
    assert told.exit_code == 1
    assert "exists and is no model, expected no such folder" in told.output


@pytest.mark.parametrize(
    "other",
    [
        ["--classifiers", "lda"],
        ["--penalty", "7"],
        ["--pooling-part", "mean"],
        ["--within", "corpus"],
        ["--folds", "3"],
        ["--seed", "5"],
        ["--layers", "2"],
    ],
    ids=" ".join,
)
def test_another_model_is_refused_before_anything_is_fitted(
    tmp_path, table_path, store_path, monkeypatch, other
):
    there = tmp_path / "model"
    assert run("fit", table_path, store_path, there, *FAST).exit_code == 0
    before = (there / "model.json").read_bytes()
    assert run("fit", table_path, store_path, there, *FAST).exit_code == 0  # the same one
    monkeypatch.setattr("spk.classify.experiment.sweep", None)  # nothing may be tried
    told = run("fit", table_path, store_path, there, *FAST, *other)
    assert told.exit_code == 1
    assert "exists with other content, expected no such folder; pass --overwrite" in told.output
    assert (there / "model.json").read_bytes() == before


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(tmp_path, table_path, store_path, seed):
    told = run("sweep", table_path, store_path, tmp_path / "out", *FAST, "--seed", seed)
    assert told.exit_code == 1
    assert f"--seed: value is '{seed}', expected a whole number from 0 up to 4294967295" in (
        told.output
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["sweep", "TABLE", "nowhere", "out"],
        ["fit", "TABLE", "nowhere", "model"],
        ["predict", "nowhere", "TABLE", "nowhere", "p.csv"],
        ["score", "nowhere.csv"],
    ],
)
def test_what_the_user_can_repair_is_one_line_and_exit_1(table_path, arguments):
    arguments = [table_path if argument == "TABLE" else argument for argument in arguments]
    told = run(*arguments)
    assert told.exit_code == 1
    assert len(told.output.splitlines()) == 1
    assert "nowhere" in told.output


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from spk.classify.cli import main\n"
        "main(['sweep', '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'numpy', 'lightgbm', 'matplotlib', 'h5py'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
