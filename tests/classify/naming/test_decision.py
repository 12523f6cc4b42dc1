import numpy as np
import pandas as pd
import pytest

from spk.classify.naming.clusters import evidence
from spk.classify.naming.decision import COLUMNS, name_clusters
from spk.classify.naming.options import NamingOptions

EACH = 4  # turns of 3 s of each cluster


def meeting(*clusters, each=EACH):
    """Return turns in which clusters speak one after the other, `each` times for 3 s."""
    rows = [
        ("new", name, 3.2 * (turn * len(clusters) + place))
        for turn in range(each)
        for place, name in enumerate(clusters)
    ]
    table = pd.DataFrame(rows, columns=["session", "cluster", "start"])
    return table.assign(end=table["start"] + 3.0, channel="", text="")


@pytest.fixture
def named(voices, vectors_of):
    """Return a function that names a meeting, given who is heard in each cluster's segments."""

    def name(turns, people, **options):
        segments = evidence(turns)
        places = segments.groupby("cluster").cumcount()
        heard = [
            people[cluster] if isinstance(people[cluster], str) else people[cluster][place]
            for cluster, place in zip(segments["cluster"], places, strict=True)
        ]
        vectors = vectors_of(heard)
        return name_clusters(voices, turns, segments, vectors, NamingOptions(**options))

    return name


def names(found):
    return dict(zip(found.clusters["cluster"], found.clusters["name"], strict=True))


def reasons(found):
    return dict(zip(found.clusters["cluster"], found.clusters["reason"], strict=True))


def test_clusters_get_their_persons_names_and_a_stranger_none(named):
    found = named(meeting("0", "1", "2"), {"0": "Bo", "1": "Ann", "2": "a stranger"})
    assert names(found) == {"0": "Bo", "1": "Ann", "2": "unknown_1"}
    assert reasons(found) == {"0": "", "1": "", "2": "stranger"}
    assert found.clusters["probability"].min() > 0.8
    assert not found.clusters["doubtful"].any()
    assert list(found.clusters.columns[: len(COLUMNS)]) == list(COLUMNS)
    assert found.clusters["seconds"].tolist() == pytest.approx([12.0] * 3)
    turns = found.turns.set_index("cluster")["name"]
    assert turns["1"].tolist() == ["Ann"] * EACH


def test_two_clusters_that_do_not_speak_at_once_share_a_name(named):
    turns, people = meeting("0", "1", "2"), {"0": "Bo", "1": "Bo", "2": "Ann"}
    assert names(named(turns, people)) == {"0": "Bo", "1": "Bo", "2": "Ann"}
    alone = named(turns, people, same_name="never")
    assert sorted(names(alone).values()) == ["Ann", "Bo", "unknown_1"]
    lost = alone.clusters[alone.clusters["reason"] == "conflict"]
    assert len(lost) == 1
    assert lost["second"].tolist() == ["Bo"]
    assert lost["doubtful"].all()


def test_of_two_clusters_that_speak_at_once_the_likelier_has_the_name(named):
    turns = meeting("0", "1", "2")
    both = turns[turns["cluster"] == "0"].assign(cluster="1", start=lambda rows: rows["end"] - 1)
    turns = pd.concat([turns, both.assign(end=both["start"] + 1)])
    people = {"0": "Bo", "1": ["Bo", "Bo", "Bo", "a stranger"] * 3, "2": "Ann"}
    found = named(turns, people, threshold=0.1)
    assert names(found) == {"0": "Bo", "1": "unknown_1", "2": "Ann"}
    assert reasons(found) == {"0": "", "1": "conflict", "2": ""}
    assert names(named(turns, people, threshold=0.1, same_name="always"))["1"] == "Bo"


def test_the_next_best_name_is_told_as_a_conflict(named):
    turns, people = meeting("0", "1"), {"0": "Bo", "1": ["Bo", "a stranger"] * 2}
    found = named(turns, people, same_name="never", threshold=1e-12, min_purity=0)
    row = found.clusters.set_index("cluster").loc["1"]
    assert names(found)["0"] == "Bo"
    assert row["name"] not in ("Bo", "unknown_1")
    assert (row["second"], row["reason"], row["doubtful"]) == ("Bo", "conflict", True)
    assert row["margin"] < 0


def test_a_cluster_of_several_voices_has_no_name_and_says_mixed(named):
    turns, people = meeting("0", "1", each=10), {"0": ["Bo", "Ann"] * 5, "1": "Cem"}
    found = named(turns, people)
    row = found.clusters.set_index("cluster").loc["0"]
    assert (row["name"], row["reason"], row["doubtful"]) == ("unknown_1", "mixed", True)
    assert np.isnan(row["probability"])
    assert names(found)["1"] == "Cem"
    by_itself = found.evidence[found.evidence["cluster"] == "0"]["best"]
    assert by_itself.tolist() == ["Bo", "Ann"] * 5


def test_a_cluster_less_pure_than_asked_is_mixed(named):
    people = {"0": ["Bo"] * 8 + ["Ann", "Ann"], "1": "Cem"}
    turns = meeting("0", "1", each=10)
    found = named(turns, people, threshold=1e-6, min_purity=0.81)
    row = found.clusters.set_index("cluster").loc["0"]
    assert (row["reason"], row["purity"]) == ("mixed", pytest.approx(0.8))
    assert names(named(turns, people, threshold=1e-6, min_purity=0.79))["0"] == "Bo"


def test_a_short_cluster_has_no_name_and_says_so(named):
    turns = meeting("0", "1")
    turns = turns[(turns["cluster"] == "0") | (turns["start"] < 4)]
    people = {"0": "Bo", "1": "Ann"}
    found = named(turns, people)
    assert (names(found)["1"], reasons(found)["1"]) == ("unknown_1", "short")
    assert found.clusters.set_index("cluster").loc["1", "second"] == "Ann"
    assert names(named(turns, people, min_seconds=2))["1"] == "Ann"


def test_a_cluster_without_any_speech_of_its_own_is_short(named):
    turns = meeting("0")
    over = turns.assign(cluster="1", end=turns["start"] + 0.5)
    found = named(pd.concat([turns, over]), {"0": "Bo"})
    row = found.clusters.set_index("cluster").loc["1"]
    assert (row["reason"], row["seconds"], row["doubtful"]) == ("short", 0.0, True)


def test_strangers_are_numbered_by_how_long_they_speak(named):
    turns = pd.concat([meeting("0", "1"), meeting("1").assign(start=50.0, end=53.0)])
    found = named(turns, {"0": "a stranger", "1": "another stranger"})
    assert names(found) == {"1": "unknown_1", "0": "unknown_2"}


def test_who_was_not_there_has_no_cluster(named):
    turns, people = meeting("0", "1"), {"0": "Bo", "1": "Ann"}
    assert names(named(turns, people, present="Ann, Cem")) == {"0": "unknown_1", "1": "Ann"}
    assert set(named(turns, people, present=["Ann"]).clusters["second"]) <= {"", "Ann"}


def test_a_threshold_that_nobody_reaches_names_nobody(named):
    found = named(meeting("0", "1"), {"0": "Bo", "1": "Ann"}, threshold=1.0)
    assert set(names(found).values()) == {"unknown_1", "unknown_2"}


def test_names_do_not_depend_on_labels_or_the_order_of_turns(voices, vectors_of):
    turns = meeting("0", "1", "2")
    people = {"0": "Bo", "1": "a stranger", "2": "Ann"}
    segments = evidence(turns)
    X = vectors_of([people[cluster] for cluster in segments["cluster"]])
    first = name_clusters(voices, turns, segments, X).clusters.set_index("cluster")
    order = np.random.default_rng(0).permutation(len(segments))
    other = {"0": "z", "1": "y", "2": "x"}
    mixed = segments.iloc[order].reset_index(drop=True).replace({"cluster": other})
    swapped = turns.sample(frac=1, random_state=1).replace({"cluster": other})
    second = name_clusters(voices, swapped, mixed, X[order]).clusters.set_index("cluster")
    assert second.loc[["z", "y", "x"], "name"].tolist() == first["name"].tolist()
    assert np.allclose(second.loc[["z", "y", "x"], "probability"], first["probability"])


def test_sessions_are_named_apart(named):
    two = pd.concat([meeting("0"), meeting("0").assign(session="later")])
    found = named(two, {"0": "Bo"})
    assert found.names == {("later", "0"): "Bo", ("new", "0"): "Bo"}


def test_without_calibration_scores_decide_and_no_probability_is_shown(table, store, vectors_of):
    from spk.classify.naming.enrolment import enrol

    few = enrol(table[table["session"] == "s1"], store, layer=1, log=lambda line: None)
    turns = meeting("0", "1")
    segments = evidence(turns)
    heard = ["Bo" if cluster == "0" else "a stranger" for cluster in segments["cluster"]]
    found = name_clusters(few, turns, segments, vectors_of(heard))
    assert names(found) == {"0": "Bo", "1": "unknown_1"}
    assert found.clusters["probability"].isna().all()
    assert found.threshold == few.calibration.threshold_score
