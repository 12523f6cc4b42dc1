import numpy as np
import pytest

from spk.classify.linking.clustering import confidence, pair_matrix, partition


def worth(clusters, odds):
    first, second = np.triu_indices(len(clusters), 1)
    together = clusters[first] == clusters[second]
    return odds[first, second][together].sum()


def partitions(n):
    """Yield every partition of n labels, as numbers of clusters."""
    if not n:
        yield []
        return
    for part in partitions(n - 1):
        yield from ([*part, number] for number in range(max(part, default=-1) + 2))


def best_by_trying(odds, sessions):
    """Return the greatest worth of all partitions that keep a session's labels apart."""
    return max(
        worth(np.array(clusters), odds)
        for clusters in partitions(len(sessions))
        if len({*zip(clusters, sessions, strict=True)}) == len(sessions)
    )


@pytest.mark.parametrize("seed", range(12))
def test_small_problems_are_solved_as_trying_everything_solves_them(seed):
    rng = np.random.default_rng(seed)
    sessions = np.array(["a", "a", "b", "b", "c", "c"])
    odds = rng.normal(-1, 3, (6, 6))
    odds = np.where(sessions[:, None] == sessions, -np.inf, odds + odds.T)
    clusters = partition(odds, sessions, np.full(6, ""))
    assert worth(clusters, odds) == pytest.approx(best_by_trying(odds, sessions))


@pytest.mark.parametrize("seed", range(5))
def test_no_cluster_has_two_labels_of_a_session(seed):
    rng = np.random.default_rng(seed)
    sessions = rng.integers(0, 8, 60).astype(str)
    odds = rng.normal(2, 3, (60, 60))  # everybody would like to be one
    clusters = partition(odds + odds.T, sessions, np.full(60, ""))
    assert len({*zip(clusters.tolist(), sessions.tolist(), strict=True)}) == 60


def test_known_people_are_together_or_apart_whatever_the_odds_say():
    sessions, persons = np.array(["a", "b", "c"]), np.array(["Ann", "Ann", "Bo"])
    odds = np.array([[0, -9.0, 9.0], [-9.0, 0, 9.0], [9.0, 9.0, 0]])
    assert partition(odds, sessions, persons).tolist() == [0, 0, 1]
    assert partition(odds, sessions, np.array(["", "", "Bo"])).tolist() == [0, 0, 0]


def test_a_label_alone_or_no_label_at_all_is_no_trouble():
    assert partition(np.zeros((1, 1)), np.array(["a"]), np.array([""])).tolist() == [0]


def test_confidence_is_a_softmax_over_persons_and_somebody_else():
    odds = pair_matrix(np.array([0, 0, 1]), np.array([1, 2, 2]), np.array([2.0, -1.0, 0.5]), 3)
    clusters = np.array([0, 0, 1])
    sure = confidence(odds, clusters)
    total = np.exp([2.0, -1.0, 0.0]).sum()  # of the first: the second, the third, somebody else
    assert sure[0] == pytest.approx(np.exp(2.0) / total)
    assert sure[2] == pytest.approx(1 / (1 + np.exp((-1.0 + 0.5) / 2)))


def test_more_labels_of_a_person_do_not_add_up_to_more_confidence():
    odds = np.full((4, 4), 1.0)
    few = confidence(odds[:2, :2].copy(), np.zeros(2, dtype=int))
    many = confidence(odds, np.zeros(4, dtype=int))
    assert many[0] == pytest.approx(few[0])
