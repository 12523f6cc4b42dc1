"""The threshold of `open_set` serves the model that the sweep chose, and no other."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import silent

from spk.classify.cli import main
from spk.classify.evaluation.measured_threshold import measured_threshold
from spk.classify.experiment import fit, run_experiment
from spk.classify.options import PredictOptions
from spk.classify.output import write_outcome
from spk.classify.selection.candidates import SweepSettings
from spk.classify.speaker_model import predict
from spk.classify.speaker_model_files import load_model, save_model
from spk.common.errors import InputError
from spk.manifests.table import read_predictions, write_table

FAST = SweepSettings(classifiers="ridge", layers="1", penalty=10.0, jobs=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory, table, store_path):
    """Return a folder with a table, a sweep that open-set was run on, and a model of its choice."""
    folder = tmp_path_factory.mktemp("threshold")
    write_table(table, folder / "table.csv")
    write_outcome(run_experiment(table, store_path, FAST, log=silent), folder / "run")
    line = ["open-set", folder / "table.csv", store_path, folder / "run", "--false-accepts", "0.3"]
    assert CliRunner().invoke(main, list(map(str, line))).exit_code == 0
    save_model(fit(table, store_path, FAST, log=silent), folder / "model")
    return folder


@pytest.fixture
def model(made):
    return load_model(made / "model")


def test_it_is_the_threshold_that_was_measured_for_the_share(made, model):
    measured = pd.read_csv(made / "run" / "openset.csv")["threshold"].item()
    assert measured_threshold(model, made / "run", 0.3) == measured


def test_predict_names_nobody_below_it(made, table, store_path, tmp_path):
    out = tmp_path / "named.csv"
    line = ["predict", made / "model", made / "table.csv", store_path, out]
    line += ["--unknown-below", "auto", "--run", made / "run", "--false-accepts", "0.3"]
    done = CliRunner().invoke(main, list(map(str, line)))
    assert done.exit_code == 0, done.output
    named = read_predictions(out)
    threshold = pd.read_csv(made / "run" / "openset.csv")["threshold"].item()
    below = named["score"] < threshold
    assert 0 < below.sum() < len(named)
    assert named["predicted"].tolist() == named["best"].mask(below, "unknown").tolist()
    assert f"unknown: {below.sum()} of {len(named)} segments, probability below" in done.output
    python = predict(
        load_model(made / "model"), table, store_path, unknown_below=threshold, log=silent
    )
    assert python["predicted"].tolist() == named["predicted"].tolist()


def test_a_share_that_was_not_measured_is_refused(made, model):
    with pytest.raises(InputError, match=r"no threshold for --false-accepts 0\.05.* 0\.3;"):
        measured_threshold(model, made / "run", 0.05)


def test_another_model_than_the_sweeps_choice_is_refused(made, model, table, store_path):
    others = {
        "penalty": fit(table, store_path, FAST, penalty=100.0, log=silent),
        "layers": fit(table, store_path, FAST, layers="2", log=silent),
        "weights_sha256": replace(model, config={**model.config, "weights_sha256": "c"}),
        "seed": fit(table, store_path, FAST, seed=1, log=silent),
        "segments": fit(table.drop(index=0).reset_index(drop=True), store_path, FAST, log=silent),
        "calibration": replace(model, temperature=2 * model.temperature),
    }
    for what, other in others.items():
        with pytest.raises(InputError, match=rf"chose another model than is given \(.*{what}"):
            measured_threshold(other, made / "run", 0.3)


def test_thresholds_of_another_sweep_are_refused(made, model, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(made / "run", run)
    frame = pd.read_csv(run / "openset.csv").assign(run="0123")
    frame.to_csv(run / "openset.csv", index=False)
    with pytest.raises(InputError, match=r"openset\.csv: is of another sweep than the folder"):
        measured_threshold(model, run, 0.3)
    (run / "openset.csv").unlink()
    with pytest.raises(InputError, match=r"holds no openset\.csv.*run spk-classify open-set"):
        measured_threshold(model, run, 0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--unknown-below", "auto"], "value is 'auto' and --run is 'none'"),
        (["--unknown-below", "0.5", "--run", "run"], "value is '0.5' and --run is 'run'"),
        (["--false-accepts", "0.1"], "value is 0.1 and --unknown-below is 'none'"),
        (["--unknown-below", "1.5"], "value is '1.5', expected a probability from 0 to 1, or auto"),
    ],
)
def test_options_that_do_not_go_together_are_refused(made, store_path, tmp_path, options, message):
    line = [made / "model", made / "table.csv", store_path, tmp_path / "named.csv"]
    done = CliRunner().invoke(main, ["predict", *map(str, line), *options])
    assert done.exit_code == 1
    assert message in done.output


def test_a_probability_may_be_a_number_in_python():
    assert PredictOptions(unknown_below=0.5).unknown_below == "0.5"
    assert PredictOptions().unknown_below is None
