import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn import metrics

from spk.classify.metrics import (
    VerificationTrials,
    balanced_accuracy,
    calibration_error,
    equal_error_rate,
    interval_groups,
    log_loss,
    macro_f1,
    mean_interval,
    min_dcf,
    percentiles,
    resample,
    session_mean,
)

EXACT = 1e-12  # the same sums in another order
BRENT = 1e-9  # brentq's own tolerance
DRAWN = 0.02  # two bootstraps of 4000 draws: a percentile is sure to about 0.005


@pytest.fixture
def labels():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 6, size=200)
    predicted = np.where(rng.random(200) < 0.6, truth, rng.integers(0, 8, size=200))
    return truth, predicted


def test_balanced_accuracy_is_scikit_learns(labels):
    truth, predicted = labels
    predicted = np.where(predicted > 5, 0, predicted)  # scikit-learn warns of unseen classes
    expected = metrics.balanced_accuracy_score(truth, predicted)
    assert balanced_accuracy(truth, predicted) == pytest.approx(expected, abs=EXACT)


def test_macro_f1_is_scikit_learns_also_with_classes_only_predicted(labels):
    expected = metrics.f1_score(*labels, average="macro")
    assert macro_f1(*labels) == pytest.approx(expected, abs=EXACT)


def test_measures_skip_classes_that_do_not_occur():
    truth, predicted = np.array([0, 5, 5]), np.array([0, 5, 0])
    assert balanced_accuracy(truth, predicted) == pytest.approx(0.75)
    assert macro_f1(truth, predicted) == pytest.approx(2 / 3)


def test_log_loss_is_scikit_learns():
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(4), size=50)
    truth = rng.integers(0, 4, size=50)
    expected = metrics.log_loss(truth, chances, labels=range(4))
    assert log_loss(chances[np.arange(50), truth]) == pytest.approx(expected, abs=EXACT)


def test_a_probability_of_zero_costs_34_and_a_half():
    assert log_loss(np.array([0.0, 1.0])) == pytest.approx(15 * np.log(10) / 2)


def test_calibration_error_by_hand():
    # bins of 1/15: 0.9 and 0.92 share (0.867, 0.933], 0.5 is alone
    confidence, correct = np.array([0.9, 0.92, 0.5]), np.array([1.0, 0.0, 1.0])
    expected = (2 * abs(0.5 - 0.91) + abs(1 - 0.5)) / 3
    assert calibration_error(confidence, correct) == pytest.approx(expected, abs=EXACT)


def test_perfect_confidence_has_no_calibration_error():
    assert calibration_error(np.ones(5), np.ones(5)) == 0


def trials(seed=0, rows=120, classes=5):
    rng = np.random.default_rng(seed)
    scores = rng.dirichlet(np.ones(classes) * 0.7, size=rows).round(2)  # with many equal scores
    truth = np.where(rng.random(rows) < 0.6, scores.argmax(axis=1), rng.integers(0, classes, rows))
    return scores, truth


def test_equal_error_rate_is_the_crossing_of_scikit_learns_roc():
    scores, truth = trials()
    target = (np.arange(5) == truth[:, None]).ravel()
    false, true, _ = metrics.roc_curve(target, scores.ravel(), drop_intermediate=False)
    expected = brentq(lambda x: 1 - x - interp1d(false, true)(x), 0, 1)
    found = equal_error_rate(*VerificationTrials(scores, truth).rates(np.ones(len(truth))))
    assert found == pytest.approx(expected, abs=BRENT)


def test_min_dcf_is_the_least_cost_on_scikit_learns_det_curve():
    scores, truth = trials(1)
    target = (np.arange(5) == truth[:, None]).ravel()
    false, true, _ = metrics.roc_curve(target, scores.ravel(), drop_intermediate=False)
    expected = np.min(0.01 * (1 - true) + 0.99 * false) / 0.01
    found = min_dcf(*VerificationTrials(scores, truth).rates(np.ones(len(truth))))
    assert found == pytest.approx(expected, abs=EXACT)


def test_verification_by_hand():
    # targets .9 .6 .4, others .5 .3 .1: accepting from .5 up misses 1 of 3 and takes 1 of 3
    scores = np.array([[0.9, 0.1], [0.6, 0.3], [0.5, 0.4]])
    misses, false = VerificationTrials(scores, np.array([0, 0, 1])).rates(np.ones(3))
    np.testing.assert_allclose(misses, [1, 2 / 3, 1 / 3, 1 / 3, 0, 0, 0])
    np.testing.assert_allclose(false, [0, 0, 0, 1 / 3, 1 / 3, 2 / 3, 1])
    assert equal_error_rate(misses, false) == pytest.approx(1 / 3)
    assert min_dcf(misses, false) == pytest.approx(1 / 3)


def test_a_trivial_system_costs_one():
    misses, false = VerificationTrials(np.full((4, 3), 1 / 3), np.zeros(4, int)).rates(np.ones(4))
    assert min_dcf(misses, false) == pytest.approx(1)
    assert equal_error_rate(misses, false) == pytest.approx(0.5)


def test_min_dcf_weighs_both_errors_by_the_prior():
    # thresholds cost .5, .5 * .5 + .5 * .1 = .3 and .5; always accepting costs .5
    misses, false = np.array([1, 0.5, 0]), np.array([0, 0.1, 1])
    assert min_dcf(misses, false, prior=0.5) == pytest.approx(0.3 / 0.5)


def test_weights_are_repeated_rows():
    scores, truth = trials(2, rows=20)
    weights = np.random.default_rng(0).integers(0, 3, size=20)
    rows = np.repeat(np.arange(20), weights)
    once = VerificationTrials(scores[rows], truth[rows]).rates(np.ones(len(rows)))
    found = VerificationTrials(scores, truth).rates(weights)
    assert equal_error_rate(*found) == pytest.approx(equal_error_rate(*once), abs=EXACT)
    assert min_dcf(*found) == pytest.approx(min_dcf(*once), abs=EXACT)


def test_candidates_that_a_segment_lacks_are_no_trials():
    scores = np.array([[0.7, 0.3, np.nan], [0.2, 0.3, 0.5]])
    misses, false = VerificationTrials(scores, np.array([0, 2])).rates(np.ones(2))
    assert len(false) == 5  # accept-none and the thresholds .7 .5 .3 .2; .3 occurs twice
    assert misses[2] == 0
    assert false[2] == 0


def test_without_any_target_rates_are_unknown():
    misses, false = VerificationTrials(np.array([[0.5, 0.5]]), np.array([-1])).rates(np.ones(1))
    assert np.isnan(equal_error_rate(misses, false))
    assert np.isnan(min_dcf(misses, false))


def test_meeting_mean_by_hand():
    assert session_mean(np.array([1.0, 0, 1, 1]), np.array([0, 0, 3, 3])) == 0.75


def test_resampling_draws_meetings_and_then_their_segments():
    sessions = np.repeat([4, 7, 9], [5, 10, 20])
    for rows, group in resample(sessions, 50, seed=1):
        for number in range(3):
            drawn = sessions[rows[group == number]]
            assert len(set(drawn)) == 1  # one meeting
            assert len(drawn) == np.sum(sessions == drawn[0])  # as many segments as it has


def test_resampling_repeats_with_its_seed():
    sessions = np.repeat([0, 1], [5, 6])
    first, again, other = (list(resample(sessions, 5, seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(first, other, strict=True))


def test_mean_interval_is_the_two_layer_bootstraps():
    rng = np.random.default_rng(5)
    sessions = np.repeat(np.arange(8), 15)
    values = (rng.random(120) < np.linspace(0.3, 0.95, 8)[sessions]).astype(int)
    slow = np.array([values[rows].mean() for rows, _ in resample(sessions, 4000, seed=1)])
    fast = mean_interval(values, sessions, 4000, seed=2)
    np.testing.assert_allclose(fast, np.percentile(slow, [2.5, 97.5]), atol=DRAWN)


def test_mean_interval_of_paired_differences_is_the_two_layer_bootstraps():
    rng = np.random.default_rng(6)
    sessions = np.repeat(np.arange(5), 30)
    values = rng.choice([-1, 0, 1], p=[0.1, 0.6, 0.3], size=150)
    slow = np.array([values[rows].mean() for rows, _ in resample(sessions, 4000, seed=1)])
    fast = mean_interval(values, sessions, 4000, seed=2)
    np.testing.assert_allclose(fast, np.percentile(slow, [2.5, 97.5]), atol=DRAWN)


def test_one_meetings_interval_is_the_binomial_one():
    # evaluation practice: 61 segments, 90 % right, is 80 to 95 %
    values = np.arange(61) < 55
    low, high = mean_interval(values, np.zeros(61), 4000)
    assert (low, high) == pytest.approx((0.82, 0.97), abs=0.02)


def test_meetings_widen_the_interval():
    values, one = np.repeat([1, 0], 60), np.zeros(120)
    apart = mean_interval(values, np.repeat([0, 1], 60))
    assert apart == (0.0, 1.0)
    assert mean_interval(values, one)[0] > 0.4


def test_percentiles_leave_out_what_is_unknown():
    low, high = percentiles(np.array([np.nan, *range(101)], dtype=float))
    assert (low, high) == pytest.approx((2.5, 97.5))
    assert np.isnan(percentiles(np.array([np.nan]))).all()


def test_speakers_are_drawn_where_there_is_one_meeting_or_one_task():
    sessions, speakers = np.array(["m", "m", "n"]), np.array(["b", "a", "b"])
    for chosen, one_task, groups, name in (
        (slice(3), False, [0, 0, 1], "meetings"),
        (slice(3), True, [1, 0, 1], "speakers"),
        (slice(2), False, [1, 0], "speakers"),
        (slice(1), False, [0], "segments"),
    ):
        found, drawn = interval_groups(sessions[chosen], speakers[chosen], one_task=one_task)
        assert (found.tolist(), drawn) == (groups, name)


def test_an_interval_over_speakers_is_wider_where_speakers_differ():
    speakers = np.repeat(np.arange(24), 20)
    right = (np.arange(480) % 20 < np.repeat(np.arange(24) % 12 + 3, 20)).astype(int)
    over_speakers = mean_interval(right, interval_groups(np.zeros(480), speakers)[0])
    over_segments = mean_interval(right, np.zeros(480, int))
    assert np.ptp(over_speakers) > 1.4 * np.ptp(over_segments)
