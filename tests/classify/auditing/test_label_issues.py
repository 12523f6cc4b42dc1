"""What confident learning says of a session, and who fits nobody."""

import numpy as np
import pytest

from spk.classify.auditing.held_out import Judged
from spk.classify.auditing.label_issues import find_issues, fits_nobody
from spk.classify.auditing.options import AuditOptions
from spk.classify.auditing.trial import Trial, try_planted, without
from spk.manifests.splits.tasks import Task


def judged_of(codes, chances):
    codes = np.array(codes)
    return Judged("S", ("a", "b"), np.arange(len(codes)), codes, np.array(chances), chances)


@pytest.fixture
def issues():
    """Twenty turns; the third is a's by its label and b's by its sound; the last is unknown."""
    codes = [0, 1] * 10
    chances = np.array([[0.9, 0.1], [0.1, 0.9]] * 10)
    chances[2], codes[19] = (0.05, 0.95), -1
    return find_issues(judged_of(codes, chances), np.full(20, 0.8), np.full(20, 3.0))


def test_the_turn_that_fits_another_is_suspect_and_ranked_last(issues):
    assert np.flatnonzero(issues.suspect).tolist() == [2]
    assert np.nanargmin(issues.quality) == 2
    assert (issues.better[2], round(issues.probability[2], 6)) == (1, 0.95)


def test_a_label_that_was_not_learnt_is_not_judged(issues):
    assert np.flatnonzero(np.isnan(issues.quality)).tolist() == [19]
    assert not issues.suspect[19]


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 1), ({"min_probability": 0.96}, 0), ({"min_seconds": 3.5}, 0)],
)
def test_a_name_is_proposed_where_it_is_probable_and_the_turn_long(issues, options, count):
    assert issues.proposed(AuditOptions(**options)).sum() == count


def test_a_session_in_which_one_label_is_judged_has_no_suspects():
    chances = np.array([[0.2, 0.8]] * 12)
    alone = find_issues(judged_of([0] * 12, chances), np.full(12, 0.5), np.full(12, 2.0))
    assert not alone.suspect.any()


def test_short_turns_fit_less_by_nature_and_are_no_outliers():
    rng = np.random.default_rng(0)
    seconds = rng.uniform(1, 10, 60)
    fit = 0.2 + 0.2 * np.log(seconds) + rng.normal(0, 0.02, 60)
    seconds[0], fit[0] = 8.0, 0.2  # as the shortest, but long
    assert np.flatnonzero(fits_nobody(fit, seconds)).tolist() == [0]
    seconds[0] = 0.5
    assert not fits_nobody(fit, seconds)[0]


@pytest.fixture
def task():
    rows, codes = np.arange(12), np.array([0, 1] * 6)
    cuts = (
        (np.arange(6, 12), np.arange(6)),
        (np.arange(6), np.arange(6, 12)),
    )
    return Task(
        "S", ("a", "b"), {"train": rows, "valid": rows}, {"train": codes, "valid": codes}, cuts
    )


def test_suspects_are_neither_learnt_nor_judged_on_trial(task):
    suspect = np.zeros(12, bool)
    suspect[[0, 7]] = True
    fewer = without(task, suspect)
    assert fewer.rows["valid"].tolist() == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    for learnt, held_out in fewer.cuts:
        assert not np.isin([0, 7], np.concatenate([learnt, held_out])).any()


@pytest.mark.parametrize(("finds", "recall", "carries"), [(True, 1.0, True), (False, 0.0, False)])
def test_a_trial_counts_what_was_planted_and_found(task, finds, recall, carries):
    def propose(labels):
        codes = labels["S"]
        wrong = codes != task.codes["train"]
        names = np.where(wrong & finds, task.codes["train"], -1)
        return [(judged_of(codes, np.full((12, 2), 0.5)), names)]

    trial = try_planted([task], {"S": np.ones(12, bool)}, propose, before=2)
    assert trial.planted == 3  # one of twelve, three times
    assert trial.recall[0] == recall
    assert trial.carries == carries
    assert trial.proposed == 3 * finds + 3 * 2


def test_a_trial_without_turns_to_plant_in_claims_nothing():
    assert not Trial(0, 0, 0).carries
