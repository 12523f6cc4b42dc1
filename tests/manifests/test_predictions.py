"""The rows of a predictions table: times, and nobody where nobody is probable enough."""

import json

import numpy as np
import pandas as pd
import pytest

from spk.common.errors import InputError
from spk.manifests.predictions import (
    make_predictions,
    names_nobody,
    unnamed_lines,
    with_unknown,
)
from spk.manifests.table import check_predictions, read_predictions, write_predictions


@pytest.fixture
def named():
    rows = pd.DataFrame({"segment_id": ["a", "b", "c"], "session": "S", "speaker": "A"})
    rows = rows.assign(start=[0.5, 2.0, 4.0], end=[1.0, 3.25, 9.0], split="test")
    scores = [json.dumps({"A": p, "B": 1 - p}) for p in (0.9, 0.6, 0.3)]
    best = {"predicted": ["A", "A", "B"], "score": np.array([0.9, 0.6, 0.7])}
    return make_predictions(rows, "toy", **best, scores=scores)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_predictions_carry_the_times_of_their_segments(named, tmp_path, suffix):
    assert named["start"].tolist() == [0.5, 2.0, 4.0]
    assert named["end"].tolist() == [1.0, 3.25, 9.0]
    write_predictions(named, tmp_path / f"p{suffix}")
    pd.testing.assert_frame_equal(read_predictions(tmp_path / f"p{suffix}"), named)


def test_a_table_without_times_is_still_read(named, tmp_path):
    old = named.drop(columns=["start", "end"])
    old.to_csv(tmp_path / "old.csv", index=False)
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "old.csv"), old)
    assert list(old.columns) == [
        *("segment_id", "session", "speaker", "predicted", "score", "split", "model", "scores")
    ]


def test_times_that_are_none_are_refused(named):
    with pytest.raises(InputError, match="start of 1 row is not before its end, first 9"):
        check_predictions(named.assign(start=[9.0, 2.0, 4.0]))


def test_nobody_is_named_below_the_probability_and_the_best_is_kept(named):
    found = with_unknown(named, 0.7)
    assert found["predicted"].tolist() == ["A", "unknown", "B"]  # one that is equal is named
    assert found["best"].tolist() == ["A", "A", "B"]
    assert found["score"].tolist() == [0.9, 0.6, 0.7]
    assert with_unknown(found, 0.65)["predicted"].tolist() == ["A", "unknown", "B"]
    assert with_unknown(found, 0)["predicted"].tolist() == ["A", "A", "B"]
    assert unnamed_lines(found, 0.7) == ["unknown: 1 of 3 segments, probability below 0.7"]
    assert unnamed_lines(named, None) == []


def test_a_speaker_called_unknown_is_not_taken_for_nobody(named):
    scores = named["scores"].str.replace('"B"', '"unknown"')
    with pytest.raises(InputError, match="a speaker is called 'unknown'.*rename the speaker"):
        with_unknown(named.assign(scores=scores), 0.5)


@pytest.mark.parametrize("below", [-0.1, 1.5, float("nan")])
def test_what_is_no_probability_is_refused(named, below):
    with pytest.raises(InputError, match="unknown_below: .* is given, expected 0 to 1"):
        with_unknown(named, below)


def test_rows_without_a_best_may_stand_beside_others(named, tmp_path):
    both = pd.concat([named.assign(model="plain"), with_unknown(named, 0.8)])
    both.to_csv(tmp_path / "both.csv", index=False)
    for table in (check_predictions(both), read_predictions(tmp_path / "both.csv")):
        assert table["best"].tolist() == ["A", "A", "B"] * 2
        assert names_nobody(table).tolist() == [False] * 3 + [False, True, True]


def test_somebody_called_unknown_is_not_nobody(named):
    somebody = named.assign(predicted="unknown")
    assert not names_nobody(somebody).any()
    assert not names_nobody(somebody.assign(best="unknown")).any()
    assert names_nobody(somebody.assign(best="A")).all()
