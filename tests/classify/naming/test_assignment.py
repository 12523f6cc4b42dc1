from itertools import product

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from spk.classify.naming.assignment import allowed_together, assign, purity, rivals


def gain_of(gains, named):
    return sum(gains[k, person] for k, person in enumerate(named) if person >= 0)


@pytest.mark.parametrize("seed", range(15))
def test_where_no_name_is_shared_it_is_the_assignment_problem_with_unknown_for_everybody(seed):
    gains = np.random.default_rng(seed).normal(size=(6, 4))
    pairs = [(i, k) for k in range(6) for i in range(k)]
    free = np.concatenate([np.maximum(gains, 0), np.zeros((6, 6))], axis=1)
    rows, columns = linear_sum_assignment(free, maximize=True)
    named = assign(gains, pairs)
    assert gain_of(gains, named) == pytest.approx(free[rows, columns].sum())
    taken = named[named >= 0]
    assert len({*taken.tolist()}) == len(taken)


@pytest.mark.parametrize("seed", range(10))
def test_with_some_rivals_it_is_the_best_of_all_assignments(seed):
    rng = np.random.default_rng(seed)
    gains = rng.normal(0.3, 1, size=(4, 3))
    pairs = [(i, k) for k in range(4) for i in range(k) if rng.random() < 0.5]

    def allowed(named):
        clash = any(named[i] == named[k] >= 0 for i, k in pairs)
        return not clash and all(p < 0 or gains[k, p] >= 0 for k, p in enumerate(named))

    every = [named for named in product(range(-1, 3), repeat=4) if allowed(named)]
    best = max(gain_of(gains, named) for named in every)
    assert gain_of(gains, assign(gains, pairs)) == pytest.approx(best)


def test_a_gain_of_zero_gives_the_name_and_less_or_nothing_does_not():
    assert assign(np.array([[0.0, -0.1]]), []).tolist() == [0]
    assert assign(np.array([[-0.1, np.nan], [-np.inf, -1.0]]), []).tolist() == [-1, -1]


SPEECH = {"A": [(0.0, 40.0)], "B": [(40.0, 70.0)], "C": [(39.0, 41.0)]}
AT_ONCE = {("A", "B"): 0.0, ("A", "C"): 1.0, ("B", "C"): 0.4}


def test_who_speaks_at_once_cannot_share_a_name():
    assert rivals("ABC", SPEECH, AT_ONCE, "auto") == [(0, 2)]
    assert rivals("ABC", SPEECH, AT_ONCE, "never") == [(0, 1), (0, 2), (1, 2)]
    assert rivals("ABC", SPEECH, AT_ONCE, "always") == []
    assert rivals("CBA", SPEECH, AT_ONCE, "auto") == [(0, 2)]


def test_two_per_cent_of_the_shorter_or_half_a_second_is_hardly_at_once():
    assert allowed_together([(0.0, 100.0)], [(0.0, 50.0)]) == 1.0
    assert allowed_together([(0.0, 100.0)], [(0.0, 5.0)]) == 0.5


def test_purity_is_a_share_of_seconds():
    assert purity(np.array([1, 1, 0]), np.array([3.0, 4.0, 3.0]), 1) == 0.7
