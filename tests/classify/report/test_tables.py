import math

import pandas as pd
import pytest

from spk.classify.evaluation.score import MEASURES, score
from spk.classify.report.runs import ReportedRun
from spk.classify.report.tables import (
    CONFIDENCE,
    MEANING,
    NAMING,
    difference_table,
    leaks_table,
    pairs_of,
    provenance,
    runs_table,
    sweep_commands,
    trials_table,
)
from spk.manifests.splits.leakage import leakage_report


@pytest.fixture
def runs(heard_table, predicted):
    table = heard_table()
    many, one = predicted(table, {2, 5, 11}), predicted(table, {2}, "better")
    return [ReportedRun("many", many, ("a.csv", "1")), ReportedRun("one", one, ("b.csv", "2"))]


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_every_measure_is_shown_once_and_explained():
    assert sorted([*NAMING, *CONFIDENCE]) == sorted(MEASURES)
    assert set(MEANING) == set(MEASURES)


NAMES = ("accuracy", "majority_scored")  # without a table


def test_runs_stand_under_each_other_and_the_best_is_marked(runs):
    table = runs_table(runs, [score(run.predictions) for run in runs], NAMES)
    assert [row[3].text for row in table.rows] == ["85.0 %", "95.0 %"]
    assert [row[3].best for row in table.rows] == [False, True]
    assert not any(row[4].best for row in table.rows)  # the task's, not the run's
    assert [cell.text for cell in table.rows[0][:3]] == ["many", "20", "2"]
    low = runs_table(runs, [score(run.predictions) for run in runs], ("log_loss",))
    assert [row[3].best for row in low.rows] == [False, True]
    assert low.rows[0][3].sort > low.rows[1][3].sort


def test_nothing_is_best_where_the_segments_differ(runs):
    fewer = ReportedRun("fewer", runs[1].predictions.iloc[1:], ("b.csv", "2"))
    both = [runs[0], fewer]
    table = runs_table(both, [score(run.predictions) for run in both], ("accuracy",))
    assert not any(row[3].best for row in table.rows)


def test_nothing_is_best_between_runs_of_different_tasks(runs):
    rows = runs[1].predictions.assign(model="better, within corpus")
    other = [runs[0], ReportedRun("one", rows, ("b.csv", "2"))]
    table = runs_table(other, [score(run.predictions) for run in other], NAMING)
    assert not any(cell.best for row in table.rows for cell in row)


def test_a_difference_is_paired_and_counts_who_alone_is_right(runs):
    (row,) = texts(difference_table(runs, pairs_of(runs)))
    assert row[:5] == ["many", "one", "85.0 %", "95.0 %", "+10.0"]
    assert row[5:9] == ["20", "0", "2", "0.5"]  # two of two: McNemar's exact p is 2 / 2^2
    assert row[9] == "no difference"


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        ({0, 1, 2, 10, 11}, "unsettled: interval and test disagree"),
        ({0, 1, 2, 10, 11, 12}, "one is better"),
    ],
)
def test_a_difference_is_shown_where_interval_and_test_agree(
    heard_table, predicted, wrong, verdict
):
    table = heard_table()
    first = ReportedRun("many", predicted(table, wrong), ("", ""))
    second = ReportedRun("one", predicted(table, ()), ("", ""))
    for runs in ([first, second], [second, first]):
        assert texts(difference_table(runs, pairs_of(runs)))[0][9] == verdict


def test_runs_without_a_shared_segment_are_no_pair(runs):
    ends = [
        ReportedRun("a", runs[0].predictions.iloc[:5], ("", "")),
        ReportedRun("b", runs[0].predictions.iloc[9:], ("", "")),
    ]
    assert pairs_of(ends) == {}


def test_trials_stand_best_first():
    trials = pd.DataFrame(
        {"layers": ["0", "mix:0+1"], "classifier": "lda", "valid_accuracy": [0.5, 0.75]}
    ).assign(valid_low=0.1, valid_high=0.9, chosen=["", "yes"])
    assert texts(trials_table(trials)) == [
        ["mix:0+1", "lda", "", "75.0 %", "", "yes"],
        ["0", "lda", "", "50.0 %", "", ""],
    ]
    assert trials_table(trials, most=1).rows[0][3].note == "10.0 to 90.0"


def test_the_report_shows_the_leakage_report(heard_table):
    found = leakage_report(heard_table())
    table = leaks_table(found)
    assert [row[0].text for row in table.rows] == [*sorted(("A&<b>", "B")), "all"]
    assert len(table.heads) == len(table.rows[0]) == len(found.columns)
    assert table.rows[-1][2].text == "20"
    assert math.isclose(table.rows[-1][4].sort, found["within_2"].iloc[-1])


def test_provenance_marks_what_differs(runs):
    settings = {"within": "session", "penalty": None, "layers": "0-3"}
    known = {"settings": settings, "store": {"encoder": "x", "layers": [0, 1]}, "facts": ["told"]}
    with_config = ReportedRun("c", runs[0].predictions, ("a.csv", "1"), config=known)
    found = {row[0].text: row[1:] for row in provenance([with_config, runs[1]]).rows}
    command = "spk-classify sweep TABLE STORE OUT --within session --layers 0-3"
    assert sweep_commands([runs[1], with_config]) == [(1, command)]
    known["identity"] = "p q.csv"
    assert sweep_commands([with_config], "t.csv") == [
        (0, f"{command.replace('TABLE', 't.csv')} --identity 'p q.csv'")
    ]
    assert [cell.text for cell in found["store.layers"]] == ["0, 1", ""]
    assert found["store.encoder"][0].best
    assert "facts" not in found
    alike = {row[0].text: row[1] for row in provenance([runs[0]]).rows}
    assert not alike["model"].best
