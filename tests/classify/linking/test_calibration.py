import numpy as np
import pytest
from scipy.stats import norm

from spk.classify.linking.calibration import (
    CERTAIN,
    SHARED,
    Rivals,
    ScoreModel,
    calibrate_pairs,
    prior,
)
from spk.classify.linking.labels import Labels
from spk.classify.linking.pairs import UNKNOWN, make_pairs, measure_separation

MODEL = ScoreModel(0.6, 0.1, 0.0, 0.15, 0.1)


def labels_of(people, noise=0.5, dim=60, seed=0):
    """Return labels of {(session, id): person} with drawn voices."""
    rng = np.random.default_rng(seed)
    voices = {person: rng.normal(size=dim) for person in sorted({*people.values()})}
    keys = sorted(people)
    vectors = np.stack([voices[people[key]] + noise * rng.normal(size=dim) for key in keys])
    halves = vectors[:, None] + noise * rng.normal(size=(len(keys), 2, dim))
    sessions, speakers = np.array(keys).T
    series = np.array([session[:15] if "_R" in session else "" for session in sessions])
    seconds = np.full(len(keys), 30.0)
    return Labels(sessions, speakers, series, seconds, vectors, halves, np.zeros(len(keys)))


def meetings(names, people="ABCD"):
    return {(name, f"00{k}-M"): who for name in names for k, who in enumerate(people, start=1)}


def test_the_log_ratio_is_that_of_two_normal_distributions():
    scores = np.array([-0.1, 0.2, 0.5])
    expected = norm.logpdf(scores, 0.6, 0.1) - norm.logpdf(scores, 0.0, 0.15)
    assert MODEL.log_ratio(scores) == pytest.approx(expected)


@pytest.mark.parametrize("deviations", [(0.1, 0.3), (0.3, 0.1), (0.2, 0.2)])
def test_a_better_score_never_means_less(deviations):
    model = ScoreModel(0.6, deviations[0], 0.0, deviations[1], 0.1)
    assert (np.diff(model.log_ratio(np.linspace(-1, 1, 201))) >= 0).all()


def test_a_label_is_at_most_one_label_of_another_session():
    labels = labels_of(meetings(("a", "b")))
    pairs = make_pairs(labels, {})
    odds = Rivals(labels, pairs).less(np.full(len(pairs.scores), 1.0))
    # one against three others of either session: e / (1 + 6 e), before e
    assert odds == pytest.approx(1.0 - np.log1p(6 * np.e))


def test_known_pairs_are_learnt_from_as_they_are():
    people = meetings([f"m{k}" for k in range(6)])
    labels = labels_of(people, noise=1.5)  # so that scores alone would not tell
    pairs = make_pairs(labels, people)
    model = calibrate_pairs(labels, pairs, 0.99).model
    same = pairs.truth == 1
    assert (pairs.truth != UNKNOWN).all()
    assert model.different == pytest.approx(pairs.scores[~same].mean())
    assert model.different_deviation == pytest.approx(pairs.scores[~same].std())
    # two made-up pairs beside the 60
    assert model.same == pytest.approx(pairs.scores[same].mean(), abs=0.03)


def test_without_anything_known_the_two_heaps_are_found():
    people = meetings([f"m{k}" for k in range(8)])
    labels = labels_of(people, noise=0.3)
    unknown, certain = make_pairs(labels, {}), make_pairs(labels, people)
    learnt, true = (calibrate_pairs(labels, pairs, 0.0).model for pairs in (unknown, certain))
    assert learnt.same == pytest.approx(true.same, abs=0.01)
    assert learnt.different == pytest.approx(true.different, abs=0.01)
    assert learnt.shared > 0.9


def test_before_anything_is_heard_ids_of_a_series_and_shared_people_decide():
    names = ("20990101_S_R001S01C01", "20990101_S_R001S02C01", "20990102_S_R002S01C01")
    pairs = make_pairs(labels_of(meetings(names)), {})
    chances = 1 / (1 + np.exp(-prior(pairs, 0.99, 0.2)))
    assert chances[pairs.same_id] == pytest.approx(0.99)
    assert chances[pairs.in_series & ~pairs.same_id] == pytest.approx(0.01 / 3)
    assert chances[~pairs.in_series] == pytest.approx(0.2 / 4)
    assert prior(pairs, 0.0, 0.2) == pytest.approx(np.log(0.05 / 0.95))


def test_separation_is_measured_on_what_is_known_best():
    names = [f"20990101_S_R001S0{k}C01" for k in (1, 2, 3)]
    people = meetings(names)
    labels = labels_of(people)
    for persons, same_id, of in (
        (people, 0.99, "known people"),
        ({}, 0.99, "ids of a series"),
        ({}, 0.0, "halves of a session"),
    ):
        measured = measure_separation(labels, make_pairs(labels, persons), same_id)
        assert (measured.of, measured.same, measured.different) == (of, 12, 36)
        assert measured.eer == pytest.approx(0, abs=0.02)


def test_caution_reckons_with_people_who_were_not_found():
    people = {**meetings(("m1", "m2")), **meetings(("m3", "m4"), "EFGH")}
    people = {label: f"{label[0]}-{who}" for label, who in people.items()}  # nobody is there twice
    labels = labels_of(people, noise=1.5, dim=12)
    learnt = calibrate_pairs(labels, make_pairs(labels, {}), 0.0)
    assert learnt.model.shared < SHARED
    inner = learnt.cautious > -CERTAIN  # where both are cut off
    assert inner.sum() > 20
    assert (learnt.cautious[inner] > learnt.log_odds[inner]).all()


def test_where_ids_say_nothing_the_names_of_series_say_nothing_either():
    series = [f"20990101_S_R001S0{k}C01" for k in range(1, 6)]
    models = []
    for names in (series, [f"m{k}" for k in range(1, 6)]):
        labels = labels_of(meetings(names))
        models.append(calibrate_pairs(labels, make_pairs(labels, {}), 0.0).model)
    assert models[0] == models[1]
    assert models[0].shared > 0.9
