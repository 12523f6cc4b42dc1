import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from spk.classify.report import sessions as page
from spk.classify.report.runs import ReportedRun


@pytest.fixture
def drawn(monkeypatch):
    """Return the confusion matrices that are drawn, as (counts, names)."""
    found = []
    monkeypatch.setattr(
        page, "confusion", lambda counts, names, *, name: found.append((counts, names))
    )
    return found


def run_of(rows):
    columns = ["session", "speaker", "predicted"]
    frame = pd.DataFrame(rows, columns=columns)
    return ReportedRun(
        "r", frame.assign(segment_id=range(len(rows)), score=0.5, model="m"), ("", "")
    )


ROWS = [
    ("M", "M_1", "M_1"),
    ("M", "M_1", "M_2"),
    ("M", "M_2", "N_1"),
    ("M", "M_2", "M_3"),
    ("N", "N_1", "N_1"),
]


def test_a_confusion_matrix_counts_by_hand_and_keeps_other_meetings_apart(drawn):
    page.meetings([run_of(ROWS)], None)
    counts, names = drawn[0]
    assert names == (["1", "2"], ["1", "2", "3", "other"])
    assert np.array_equal(counts, [[1, 1, 0, 0], [0, 0, 1, 1]])
    assert np.array_equal(drawn[1][0], [[1]])


def test_the_table_adds_speakers_that_are_not_tested(drawn):
    table = pd.DataFrame({"session": ["M", "N"], "speaker": ["M_4", "N_2"]})
    page.meetings([run_of(ROWS)], table)
    assert drawn[0][1][1] == ["1", "2", "3", "4", "other"]
    assert drawn[1][1][1] == ["1", "2"] or drawn[1][1][1] == ["1", "2", "M_3"]


def test_accuracies_by_meeting_and_speaker_have_wilsons_interval():
    run = run_of(ROWS)
    first, second = page.meetings_table([run]).rows
    interval = binomtest(1, 4).proportion_ci(0.95, method="wilson")
    assert [cell.text for cell in first] == ["M", "4", "25.0 %"]
    assert first[2].note == f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
    assert second[2].note != "100.0 to 100.0"  # one of one is not certainty
    speakers = page.speakers_table([run]).rows
    assert [[cell.text for cell in row] for row in speakers] == [
        ["M", "1", "2", "50.0 %", "2 (1)"],
        ["M", "2", "2", "0.0 %", "3 (1)"],
        ["N", "1", "1", "100.0 %", ""],
    ]


def test_a_meeting_that_a_run_lacks_is_left_empty():
    runs = [run_of(ROWS), run_of(ROWS[:4])]
    assert [cell.text for cell in page.meetings_table(runs).rows[1]] == ["N", "1", "100.0 %", ""]
    assert [cell.text for cell in page.speakers_table(runs).rows[2]][3:] == ["100.0 %", "", "", ""]
    assert [place for place, _ in page.meetings(runs, None)[1].accuracies] == [0]
