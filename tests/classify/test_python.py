"""The functions for Python: tables or files, settings in Python's types, doubts told."""

import logging

import pandas as pd
import pytest

from spk.classify import (
    compare,
    fit,
    load_model,
    predict,
    run_experiment,
    save_model,
    score,
    write_report,
)
from spk.manifests import InputError, read_table, split_table, write_predictions, write_table

CHOSEN = {"classifiers": ["ridge"], "layers": [1], "jobs": 1}


@pytest.fixture(scope="module")
def random_table(table):
    return split_table(table, "random", valid_share=0.2)


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_random_split_is_named_leaky_whatever_is_made_of_it(random_table, store, caplog):
    result = run_experiment(random_table, store, **CHOSEN)
    assert result.split == "random (leaky)"
    assert "split: random (leaky)" in result.facts
    assert set(result.predictions["model"]) == {"ridge, layer 1, split random (leaky)"}
    assert told(caplog)[0].startswith("split: random (leaky): test segments have neighbours")
    caplog.clear()
    score(result.predictions, random_table, resamples=10)
    assert told(caplog)[0].startswith("split: random (leaky)")
    assert fit(random_table, store, **CHOSEN).origin["split"] == "random (leaky)"


def test_a_split_that_nobody_recorded_is_told(table, store, caplog):
    assert run_experiment(table, store, **CHOSEN).split == "unknown"
    assert told(caplog) == ["split: nobody recorded how this table was split, so it may leak"]


def test_a_result_shows_itself_in_one_line(random_table, store):
    result = run_experiment(random_table, store, **CHOSEN)
    compared = compare(result.predictions, result.predictions)
    assert repr(result) == f"<ExperimentResult {result.conclusion}>"
    assert repr(compared) == f"<Comparison {compared.conclusion}>"
    assert repr(result.model).startswith("SpeakerModel(classifier='ridge', ")
    assert len(repr(result.model)) < 300
    for part in (result.inputs, *result.model.fitted.values()):
        assert "\n" not in repr(part)


def test_predictions_of_another_classifier_are_scored_once_they_have_score_and_model(table, store):
    rows = table[table.split == "test"].assign(predicted=lambda rows: rows.speaker)
    with pytest.raises(InputError, match="or add them: score is 0..1, model any name$"):
        score(rows, table)
    accuracy = score(rows.assign(score=1.0, model="own"), table, resamples=10).iloc[0]
    assert (accuracy["measure"], accuracy["value"]) == ("accuracy", 1)


def test_files_stand_for_tables_and_folders_for_stores(random_table, store, store_path, tmp_path):
    write_table(random_table, tmp_path / "table.csv")
    one = run_experiment(random_table, store, **CHOSEN)
    other = run_experiment(tmp_path / "table.csv", store_path, **CHOSEN)
    pd.testing.assert_frame_equal(one.predictions, other.predictions)
    write_predictions(one.predictions, tmp_path / "named.csv")
    save_model(fit(str(tmp_path / "table.csv"), str(store_path), **CHOSEN), tmp_path / "model")
    named = predict(load_model(tmp_path / "model"), tmp_path / "table.csv", store_path)
    compared = compare(tmp_path / "named.csv", named)
    assert (compared.rows["difference"] == 0).all()
    measured = [
        score(tmp_path / "named.csv", tmp_path / "table.csv", resamples=10),
        score(one.predictions, read_table(tmp_path / "table.csv"), resamples=10),
    ]
    pd.testing.assert_frame_equal(*measured)
    write_report({"ours": tmp_path / "named.csv"}, tmp_path / "report.html")
    assert "ours" in (tmp_path / "report.html").read_text()


def test_what_is_left_out_of_the_names_is_told(random_table, store, caplog):
    model = fit(random_table, store, **CHOSEN)
    other = random_table.assign(session=random_table["session"].str.replace("R002", "R009"))
    caplog.clear()
    predict(model, other, store)
    assert [line for line in told(caplog) if line.startswith("left out: 20990102_M_R009S01C01, ")]
