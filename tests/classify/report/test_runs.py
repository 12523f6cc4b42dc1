import hashlib

import pytest

from spk.classify.report.runs import read_runs
from spk.common.errors import InputError
from spk.manifests.table import read_predictions, write_predictions


def test_a_folder_and_a_table_are_runs_named_by_themselves_or_as_asked(heard):
    first, second = read_runs([str(heard / "one"), str(heard / "two.csv")])
    assert (first.name, second.name) == ("one", "two")
    assert (first.model, second.model) == ("ridge, layer 1", "lda, layer 0")
    assert first.config["settings"]["within"] == "session"
    assert list(first.trials["layers"]) == ["0", "1"]
    assert second.trials is None
    assert not second.config
    (named,) = read_runs([f"frozen={heard / 'one'}"])
    assert named.name == "frozen"
    text = (heard / "one" / "predictions.csv").read_bytes()
    assert first.source == ("predictions.csv", hashlib.sha256(text).hexdigest())


def test_parquet_is_read_as_csv_is(heard, tmp_path):
    write_predictions(read_predictions(heard / "two.csv"), tmp_path / "predictions.parquet")
    (run,) = read_runs([str(tmp_path)])
    assert run.predictions.equals(read_runs([str(heard / "two.csv")])[0].predictions)


def test_an_equals_sign_in_a_file_that_is_there_names_nothing(heard, tmp_path):
    write_predictions(read_predictions(heard / "two.csv"), tmp_path / "a=b.csv")
    assert read_runs([str(tmp_path / "a=b.csv")])[0].name == "a=b"


def test_a_table_of_two_models_is_two_runs(heard_table, predicted, tmp_path):
    import pandas as pd

    table = heard_table()
    both = [predicted(table, {1}, "x"), predicted(table, {2}, "y")]
    write_predictions(pd.concat(both), tmp_path / "both.csv")
    runs = read_runs([str(tmp_path / "both.csv")])
    assert [run.name for run in runs] == ["both: x", "both: y"]
    assert [run.model for run in runs] == ["x", "y"]
    assert [len(run.predictions) for run in runs] == [20, 20]


def test_one_name_for_two_runs_is_refused(heard):
    with pytest.raises(InputError, match="one: name is given to several runs.*NAME=PATH"):
        read_runs([str(heard / "one"), f"one={heard / 'two.csv'}"])


def test_a_folder_without_predictions_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no predictions.csv or predictions.parquet"):
        read_runs([str(tmp_path)])


def test_no_row_of_the_split_is_refused_with_those_there_are(heard):
    with pytest.raises(InputError, match=r"0 of 20 rows have split 'valid'.*\['test', 'all'\]"):
        read_runs([str(heard / "two.csv")], split="valid")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("sweep.csv", "layers,classifier\n1,lda\n", r"\['valid_accuracy', .* are missing"),
        ("learning.csv", "seconds,accuracy,low,high,segments,speakers\n", "in 0 rows"),
        ("learning.csv", "seconds,accuracy,low,high,segments,speakers\n1,x,0,1,2,3\n", "'x'"),
        ("openset.csv", "wanted,threshold\n0.1,0.5\n", r"\['false_accepts', .* are missing"),
        ("control.csv", "of,classes\nlabel,9\n", "control.csv: cannot be read"),
        ("config.json", "[", "cannot be read"),
    ],
)
def test_a_damaged_file_beside_the_predictions_is_refused(heard, tmp_path, name, content, found):
    write_predictions(read_predictions(heard / "two.csv"), tmp_path / "predictions.csv")
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=found):
        read_runs([str(tmp_path)])
