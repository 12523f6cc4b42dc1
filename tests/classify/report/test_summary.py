import pytest

from spk.classify.evaluation.score import score
from spk.classify.report.runs import ReportedRun
from spk.classify.report.summary import caveats, summary
from spk.classify.report.tables import pairs_of


@pytest.fixture
def make_runs(heard_table, predicted):
    def make(*wrong, models=("x", "y", "z")):
        table = heard_table()
        return [
            ReportedRun(name, predicted(table, set(rows), model), ("", ""))
            for name, rows, model in zip("abc", wrong, models, strict=False)
        ]

    return make


def told(runs):
    return summary(runs, [score(run.predictions) for run in runs], pairs_of(runs))


def test_each_run_says_its_accuracy_with_the_interval_and_what_is_easy(make_runs):
    ((place, text),) = told(make_runs({1, 2}))
    assert place == 0
    assert text.startswith("names 90.0 % (")
    assert "of 20 segments in 2 meetings" in text
    assert "most frequent of the scored speakers gives 50.0 %, guessing 50.0 %." in text


def test_no_difference_is_claimed_that_the_interval_does_not_carry(make_runs):
    assert told(make_runs({1, 2}, {2}))[-1] == (None, "No difference between runs is shown.")


def test_no_difference_is_claimed_that_one_meeting_alone_shows(make_runs):
    runs = make_runs(range(8), ())
    row = pairs_of(runs)[0, 1].rows.iloc[0]
    assert row["low"] == 0
    assert row["p"] < 0.05
    assert told(runs)[-1] == (None, "No difference between runs is shown.")


def test_no_difference_is_claimed_where_mcnemar_disagrees_with_the_interval(make_runs):
    runs = make_runs({0, 1, 2, 10, 11}, ())  # five of five: the exact p is 2 / 2^5 = 0.0625
    row = pairs_of(runs)[0, 1].rows.iloc[0]
    assert row["low"] > 0
    assert row["p"] == 0.0625
    assert told(runs)[-1] == (None, "No difference between runs is shown.")


def test_a_difference_is_stated_in_favour_of_the_better_run(make_runs):
    halves = [*range(6), *range(10, 16)]
    runs = make_runs(halves, {2}, halves[1:])
    place, text = told(runs)[-1]
    assert place is None
    assert "b is better than a by 55.0 points (" in text
    assert "b is better than c by 50.0 points (" in text
    assert text.endswith("in 1 of 3 pairs no difference is shown.")
    assert "-" not in text


def test_runs_of_another_task_are_not_said_to_be_better_or_worse(make_runs):
    halves = [*range(6), *range(10, 16)]
    runs = make_runs(halves, {2}, {2, 3}, models=("x, within corpus", "y", "z"))
    texts = [text for place, text in told(runs) if place is None]
    assert texts[0] == "No difference between runs of one task is shown."
    assert texts[1].startswith("Runs over all labels have a harder task than runs within meetings")
    assert len(texts) == 2
    assert len(told(runs[:2])) == 3  # each run, and that the tasks differ


def test_runs_that_share_nothing_are_not_compared(make_runs):
    first, second = make_runs({1}, {2})
    ends = [
        ReportedRun("a", first.predictions.iloc[:5], ("", "")),
        ReportedRun("b", second.predictions.iloc[9:], ("", "")),
    ]
    assert told(ends)[-1][1] == "No two runs share a segment, so none are compared."


def test_a_model_over_all_labels_carries_its_warning(make_runs):
    runs = make_runs({1}, {2}, models=("x, within corpus", "y"))
    assert "rewards recognising the room" in told(runs)[0][1]
    assert "rewards recognising the room" not in told(runs)[1][1]
    assert any("their tasks differ too" in text for text in caveats(runs, pairs_of(runs)))
    assert not any("tasks" in text for text in caveats(runs[1:], {}))
