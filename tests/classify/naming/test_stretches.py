import numpy as np
import pytest

from spk.classify.naming.stretches import STRETCH, make_stretches, no_stretches


@pytest.fixture
def segments():
    rng = np.random.default_rng(1)
    persons = np.array(["A"] * 9 + ["B"] * 4)
    sessions = np.array(["x"] * 6 + ["y"] * 3 + ["x"] * 4)
    return rng.normal(size=(13, 3)), rng.uniform(1, 3, 13), persons, sessions


def test_sums_of_stretches_are_those_of_the_segments(segments):
    X, seconds, persons, _ = segments
    sums = make_stretches(*segments)
    for person in "AB":
        rows = persons == person
        mean = sums.of(sums.persons == person).mean()
        assert np.allclose(mean, np.average(X[rows], axis=0, weights=seconds[rows]))
    assert np.isclose(sums.seconds.sum(), seconds.sum())


def test_a_stretch_is_of_one_person_in_one_session(segments):
    sums = make_stretches(*segments)
    pairs = {*zip(sums.sessions.tolist(), sums.persons.tolist(), strict=True)}
    assert pairs == {("x", "A"), ("y", "A"), ("x", "B")}
    for session, person in pairs:
        rows = (segments[2] == person) & (segments[3] == session)
        mine = (sums.persons == person) & (sums.sessions == session)
        assert np.isclose(sums.seconds[mine].sum(), segments[1][rows].sum())


def test_a_rest_too_short_for_a_stretch_joins_the_one_before():
    names = np.array(["A"] * 5)
    seconds = np.array([2.6, 2.6, 2.6, 2.6, 2.0])
    sums = make_stretches(np.eye(5), seconds, names, names)
    assert sums.seconds.tolist() == pytest.approx([5.2, 7.2])
    assert STRETCH == 5.0


def test_a_session_shorter_than_a_stretch_is_one():
    names = np.array(["A"])
    assert make_stretches(np.ones((1, 2)), np.array([0.9]), names, names).seconds.tolist() == [0.9]


def test_nothing_and_something_is_something(segments):
    sums = make_stretches(*segments)
    both = no_stretches(3).plus(sums)
    assert both.sums.tolist() == sums.sums.tolist()
    assert both.names == ["A", "B"]
