import numpy as np
import pytest

from spk.classify.naming import calibration
from spk.classify.naming.calibration import (
    Calibrator,
    Trials,
    best_other,
    calibrate,
    fit_calibrator,
    folds_of,
    make_trials,
    score_threshold,
)
from spk.classify.naming.stretches import Stretches

NUMBERS = Calibrator(score=8.0, margin=3.0, length=-0.5, offset=-4.0)


def toy_stretches(persons="ABCDE", sessions=4, each=3, noise=0.4, seed=0):
    rng = np.random.default_rng(seed)
    voices = {name: rng.normal(size=8) for name in persons}
    rows = [(name, f"s{k}") for k in range(sessions) for name in persons for _ in range(each)]
    means = np.stack([voices[name] + noise * rng.normal(size=8) for name, _ in rows])
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Stretches(*columns, np.full(len(rows), 5.0), (5 * means).astype(np.float32))


@pytest.fixture(scope="module")
def stretches():
    return toy_stretches()


@pytest.fixture(scope="module")
def trials(stretches):
    return make_trials(stretches)


def test_probabilities_over_persons_and_unknown_sum_to_one():
    scores = np.random.default_rng(0).uniform(-1, 1, (50, 6))
    chances = np.exp(NUMBERS.log_probabilities(scores, np.linspace(1, 100, 50)))
    assert chances.shape == (50, 7)
    assert np.allclose(chances.sum(axis=1), 1)


def test_who_is_no_candidate_has_probability_zero_and_the_others_the_rest():
    scores = np.array([[0.9, 0.2, np.nan]])
    chances = np.exp(NUMBERS.log_probabilities(scores, np.array([10.0])))[0]
    assert chances[2] == 0
    alone = np.exp(NUMBERS.log_probabilities(scores[:, :2], np.array([10.0])))[0]
    assert np.allclose(chances[[0, 1, 3]], alone)


def test_a_probability_is_the_softmax_that_the_module_states():
    scores, seconds = np.array([[0.5, 0.1]]), np.array([20.0])
    logits = [
        8.0 * s + 3.0 * (s - other) - 0.5 * np.log(2) - 4.0 for s, other in ((0.5, 0.1), (0.1, 0.5))
    ]
    expected = np.exp([*logits, 0.0]) / np.exp([*logits, 0.0]).sum()
    assert np.allclose(np.exp(NUMBERS.log_probabilities(scores, seconds))[0], expected)


def test_the_best_other_score_is_another_persons():
    scores = np.array([[0.3, 0.9, 0.5], [0.3, np.nan, np.nan]])
    assert best_other(scores)[0].tolist() == [0.9, 0.5, 0.9]
    assert best_other(scores)[1, 0] == 0.3


def test_fitted_numbers_are_likelier_than_their_neighbours(trials):
    fitted = fit_calibrator(trials)

    def loss(numbers):
        logs = Calibrator(*numbers).log_probabilities(trials.scores, trials.seconds)
        weights = calibration._balanced(trials)
        value = -weights @ logs[np.arange(len(logs)), trials.truth]
        return value + calibration.PENALTY / 8 * np.square(numbers).sum()

    numbers = np.array([fitted.score, fitted.margin, fitted.length, fitted.offset])
    steps = [sign * 0.05 * row for row in np.eye(4) for sign in (1, -1)]
    steps = [step for step in steps if (numbers + step)[:2].min() >= 0]
    assert all(loss(numbers) <= loss(numbers + step) + 1e-7 for step in steps)


def test_known_persons_and_strangers_count_the_same_however_many_there_are(trials):
    known = trials.truth >= 0
    weights = np.where(known, 10 * trials.weights, trials.weights)
    many = Trials(trials.names, trials.scores, trials.seconds, trials.truth, weights)
    once, again = fit_calibrator(trials), fit_calibrator(many)
    assert again.score == pytest.approx(once.score, rel=1e-4)
    assert again.offset == pytest.approx(once.offset, rel=1e-4)


def test_a_better_score_never_means_less():
    rng = np.random.default_rng(2)  # scores that say the opposite of the truth
    truth = rng.integers(-1, 3, 60)
    scores = rng.uniform(0, 1, (60, 3))
    scores[np.arange(60), truth] -= 2.0 * (truth >= 0)
    fitted = fit_calibrator(Trials(list("ABC"), scores, np.full(60, 9.0), truth, np.ones(60)))
    assert min(fitted.score, fitted.margin) >= 0


def test_neither_the_session_nor_the_stranger_that_is_scored_is_learnt_from(stretches, monkeypatch):
    calls, score = [], calibration._score_left_out

    def spy(sums, persons, learnt, asked, folds, known):
        calls.append((learnt, asked, known))
        return score(sums, persons, learnt, asked, folds, known)

    monkeypatch.setattr(calibration, "_score_left_out", spy)
    make_trials(stretches)
    assert len(calls) == 4 * (1 + 5)  # each session, with nobody and with each person left out
    for learnt, asked, known in calls:
        assert not {*stretches.sessions[learnt]} & {*stretches.sessions[asked]}
        assert known or not {*stretches.persons[learnt]} & {*stretches.persons[asked]}


def test_a_stranger_is_left_out_of_the_voices(trials):
    strange = trials.truth < 0
    assert np.isnan(trials.scores[strange]).sum(axis=1).min() >= 1
    assert not np.isnan(trials.scores[~strange]).any()
    assert (
        trials.scores[~strange].max()
        > trials.scores[strange][~np.isnan(trials.scores[strange])].max()
    )


def test_trials_of_one_person_in_one_session_weigh_one(trials):
    known = trials.truth >= 0
    assert trials.weights[known].sum() == pytest.approx(5 * 4)
    assert trials.weights[~known].sum() == pytest.approx(5 * 4)


def test_too_little_enrolment_gives_no_probability():
    assert calibrate(toy_stretches("ABC")).calibrator is None  # one left out leaves two
    assert calibrate(toy_stretches(sessions=1)).calibrator is None
    assert calibrate(toy_stretches("ABCD", sessions=2)).calibrator is not None


def test_at_most_the_wanted_share_of_strangers_is_above_the_threshold(stretches):
    known = calibrate(stretches)
    for share in (0.0, 0.05, 0.25):
        assert (known.strangers >= known.threshold(share)).mean() <= share
    assert known.threshold(0.25) < known.threshold(0.0)


def test_without_calibration_a_score_between_own_and_other_voices_decides():
    few = toy_stretches("ABC", sessions=1, each=8)
    threshold = score_threshold(few)
    own, other = calibration.halves(few)
    assert np.median(other) < threshold < np.median(own)
    assert calibrate(few).threshold(0.05) == threshold
    alone = toy_stretches("A", sessions=1, each=40)
    own, other = calibration.halves(alone)
    assert np.isnan(other).all()
    assert (own >= score_threshold(alone)).mean() == pytest.approx(0.95, abs=0.06)


def test_sessions_are_left_out_whole_and_clips_by_their_rank():
    assert folds_of(toy_stretches(sessions=2, each=1)).tolist() == [0] * 5 + [1] * 5
    persons = np.array(list("AABB"))
    sessions = np.array(["A/1", "A/2", "B/1", "B/2"])
    clips = Stretches(persons, sessions, np.ones(4), np.ones((4, 2), np.float32))
    assert folds_of(clips).tolist() == [0, 1, 0, 1]
