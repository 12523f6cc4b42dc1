"""What lies beside a run becomes a section; what does not is told with its command."""

import pandas as pd
import pytest

from spk.classify.report.analyses import sections
from spk.classify.report.runs import ReportedRun

CHOSEN = {"chosen": {}, "settings": {"within": "session", "penalty": None}}
CURVE = pd.DataFrame(
    {"seconds": [1.0, 9.0], "accuracy": [0.5, 0.75], "low": [0.4, 0.6], "high": [0.6, 0.9]}
).assign(segments=20, speakers=[4, 2])


@pytest.fixture
def make(heard_table, predicted):
    def run(name, model="ridge, layer 1", **known):
        return ReportedRun(name, predicted(heard_table(), {1}, model), ("", ""), path=name, **known)

    return run


def test_a_sweep_that_lacks_a_file_gets_the_command_with_table_and_folder(make):
    found = sections([make("my run", config=CHOSEN)], "t.csv")
    assert found["control"] is None
    assert found["learning"].missing == [(0, "", "spk-classify curve t.csv STORE 'my run'")]
    assert found["open_set"].missing == [(0, "", "spk-classify open-set t.csv STORE 'my run'")]
    assert found["learning"].figure is found["learning"].table is None
    bare = sections([make("r", config=CHOSEN)])
    assert bare["learning"].missing[0][2] == "spk-classify curve TABLE STORE r"


def test_a_run_over_all_labels_without_its_control_is_to_be_swept_again(make):
    run = make("r", "lda, within corpus", config={**CHOSEN, "settings": {"within": "corpus"}})
    ((place, why, command),) = sections([make("other"), run])["control"].missing
    assert (place, why) == (1, "")
    assert command == "spk-classify sweep TABLE STORE r --within corpus"
    assert sections([make("tuned", "x, within corpus")])["control"] is None  # no sweep's


def test_a_folded_sweep_has_no_open_set_and_no_command_for_one(make):
    folded = make("r", config={"chosen": {}, "settings": {"folds": 5}})
    found = sections([folded, make("s", config=CHOSEN)])["open_set"].missing
    assert "was swept with --folds" in found[0][1]
    assert found[0][2] == ""
    assert found[1][2]
    assert sections([folded])["open_set"] is None
    assert sections([folded])["learning"].missing[0][2]


def test_runs_without_a_file_stand_beside_those_with_one(make):
    runs = [make("a"), make("b", learning=CURVE), make("c", config=CHOSEN)]
    found = sections(runs)["learning"]
    assert found.runs == [1]
    assert [place for place, _ in found.sentences] == [1]
    assert [row[0].text for row in found.table.rows] == ["b", "b"]
    assert [row[0].run for row in found.table.rows] == [1, 1]
    assert [row[2].text for row in found.table.rows] == ["50.0 %", "75.0 %"]
    assert [row[3].text for row in found.table.rows] == ["", ""]  # of before there was one
    assert "var(--hue-1)" in found.figure
    assert "var(--hue-0)" not in found.figure
    assert [place for place, *_ in found.missing] == [0, 2]
    assert "not the folder of a sweep" in found.missing[0][1]


def test_a_meeting_that_cannot_be_recognised_has_no_bar_and_empty_cells(make):
    names = ["accuracy", "low", "high", "majority", "mean", "mean_low", "mean_high"]
    control = pd.DataFrame({"of": ["label", "meeting"], "classes": [4, 2], "segments": [20, 0]})
    for name in (*names, "mean_majority"):
        control[name] = [0.5, float("nan")]
    found = sections([make("r", "x, within corpus", control=control)])["control"]
    assert [cell.text for cell in found.table.rows[1][3:]] == ["", "", "", "", "0"]
    assert "no test segment is of a meeting in train" in found.sentences[0][1]
    assert found.figure.count("opacity: 0.55") == 1
