import numpy as np
import pandas as pd
import pytest
from toy_meetings import CHANGED, STRANGER, toy_people, toy_store, toy_table, toy_vectors

from spk import classify
from spk.classify.linking import link_labels
from spk.common.errors import InputError


def pairs_of(rows):
    """Return the pairs of labels that are one person."""
    groups = rows.groupby("person")[["session", "speaker"]]
    members = [[*part.itertuples(index=False, name=None)] for _, part in groups]
    return {(a, b) for group in members for a in group for b in group if a < b}


def true_pairs(people):
    rows = [(*label, person) for label, person in people.items()]
    return pairs_of(pd.DataFrame(rows, columns=["session", "speaker", "person"]))


def linked(table, store, **options):
    lines = []
    links = link_labels(table, store, log=lines.append, **options)
    return links, "\n".join(lines)


def test_everybody_is_linked_through_rooms_that_outshout_the_voices(table, store, people):
    links, _ = linked(table, store)
    assert pairs_of(links.people) == true_pairs(people)
    assert list(links.people.columns) == ["session", "speaker", "person", "confidence"]
    assert links.people["confidence"].between(0.8, 0.9999).all()
    assert links.facts["layer"] == 1


def test_links_show_themselves_in_one_line(table, store):
    links, _ = linked(table, store)
    people = links.people["person"].nunique()
    assert repr(links) == (
        f"<Links {len(links.people)} labels of {people} persons, {len(links.unsure)} unsure, "
        f"{len(links.pairs)} pairs scored>"
    )


def test_the_function_returns_the_people(table, store):
    frame = classify.link(table, store, log=lambda line: None)
    pd.testing.assert_frame_equal(frame, linked(table, store)[0].people)


def test_the_id_that_changes_hands_is_told_and_no_other(table, store):
    links, _ = linked(table, store)
    assert {*links.series["speaker"]} == {"001-M"}
    assert {*links.series["series"]} == {"20990102_M_R002"}
    odd = links.series[links.series["session"] == CHANGED[0]].iloc[0]
    assert (odd["agree"], odd["others"]) == (0, 2)
    assert 0.8 < odd["probability"] < 1
    assert links.series["agree"].tolist() == [1, 1, 0]


def test_no_person_has_two_labels_of_a_session_however_alike_they_are(table, people, tmp_path):
    twins = {label: "A" if label[1] in ("001-M", "002-M") else who for label, who in people.items()}
    store = toy_store(tmp_path / "store", table, toy_vectors(table, twins))
    rows, _ = linked(table, store, min_confidence=0.0)
    assert not rows.people.duplicated(["session", "person"]).any()
    assert len(rows.people) == len(people)


def test_those_who_are_known_keep_their_names_and_lend_them(table, store, people, named):
    labels = [("20990101_S_R001S01C01", "001-M"), ("20990102_M_R002S01C01", "002-M")]
    links, lines = linked(table, store, identity=named(labels))
    rows = links.people.set_index(["session", "speaker"])
    for session, speaker in labels:
        assert rows.loc[(session, speaker), "confidence"] == 1.0
        series = session[:15]
        assert {rows.loc[(f"{series}S0{k}C01", speaker), "person"] for k in (1, 2, 3)} == {
            people[session, speaker]
        }
    assert f"2 of {len(people)} labels are known" in lines
    assert "person_1" in {*links.people["person"]}


def test_a_known_persons_name_is_given_to_nobody_else(table, store, people, tmp_path):
    path = tmp_path / "known.csv"
    path.write_text("session,speaker,person\n20990101_S_R001S01C01,001-M,person_1\n")
    links, _ = linked(table, store, identity=path)
    first = links.people[links.people["person"] == "person_1"]
    assert {*first["speaker"]} == {"001-M"}
    assert {*first["session"].str[:15]} == {"20990101_S_R001"}


def test_what_is_known_is_obeyed_whatever_is_heard(table, store, tmp_path):
    path = tmp_path / "known.csv"
    labels = [("20990101_S_R001S01C01", "001-M"), ("20990101_S_R001S02C01", "001-M")]
    path.write_text(
        "session,speaker,person\n"
        + "".join(f"{s},{k},{who}\n" for (s, k), who in zip(labels, ("Ann", "Bo"), strict=True))
    )
    links, _ = linked(table, store, identity=path)
    rows = links.people.set_index(["session", "speaker"])["person"]
    assert [rows[label] for label in labels] == ["Ann", "Bo"]
    assert ("20990101_S_R001", "001-M") in {
        *zip(links.series["series"], links.series["speaker"], strict=True)
    }


def test_one_person_as_two_labels_of_a_session_is_refused(table, store, tmp_path):
    path = tmp_path / "known.csv"
    rows = [f"20990101_S_R001S01C01,{k},Ann\n" for k in ("001-M", "002-M")]
    path.write_text("session,speaker,person\n" + "".join(rows))
    with pytest.raises(InputError, match="'Ann' is '001-M' and '002-M' of session"):
        linked(table, store, identity=path)


def test_a_file_that_names_nobody_of_the_table_is_refused(table, store, tmp_path):
    path = tmp_path / "known.csv"
    path.write_text("session,speaker,person\n19990101_S_R001S01C01,001-M,Ann\n")
    with pytest.raises(InputError, match=r"nobody of the table, found .*'19990101_S_R001S01C01'"):
        linked(table, store, identity=path)


def test_guesses_that_are_passed_for_known_are_told(table, store, people, named, tmp_path):
    """What link itself wrote would else confirm itself: all known, and the encoder perfect."""
    guesses = linked(table, store)[0].people
    guesses.to_csv(tmp_path / "people.csv", index=False)
    lines = linked(table, store, identity=tmp_path / "people.csv")[1]
    assert f"{len(guesses)} rows have a confidence below 1, as guesses from link have" in lines
    assert "guesses from link" not in linked(table, store, identity=named([*people]))[1]


def test_too_few_pairs_are_no_fault_of_the_encoder(people, tmp_path):
    names = (("20990101_S_R001S01C01", "001-M"), ("20990102_M_R002S01C01", "002-M"))
    two = {label: people[label] for label in names}
    table = toy_table(two)
    store = toy_store(tmp_path / "store", table, toy_vectors(table, two))
    links, lines = linked(table, store)
    assert "there are too few pairs to tell whether the encoder can link people" in lines
    assert links.unsure["reason"].tolist() == ["too few pairs"] * 2


def test_what_calibrated_the_confidence_is_said(table, store, people, named):
    known_labels = [label for label in people if label[1] in ("002-M", "003-M")]
    cases = (
        ({}, "ids of a series", "as if most were one person"),
        ({"same_id": 0.0}, "nothing", "confidence is uncalibrated"),
        ({"identity": named(known_labels)}, "known people", "on known people (12 pairs of one"),
    )
    for options, basis, line in cases:
        links, lines = linked(table, store, **options)
        assert links.facts["calibrated_on"] == basis
        assert line in lines
        assert ("uncalibrated" in lines) == (basis == "nothing")
        assert links.series.empty == (basis == "nothing")  # where ids say nothing, none is wrong


def test_a_weak_encoder_claims_nothing_and_says_so(table, people, tmp_path, named):
    vectors = toy_vectors(table, people, noise=(6.0,), room=1.0)
    store = toy_store(tmp_path / "store", table, vectors)
    label = ("20990101_S_R001S01C01", "001-M")
    links, lines = linked(table, store, identity=named([label]))
    assert "too weak to link people (d' below 3)" in lines
    assert links.people[["session", "speaker"]].to_numpy().tolist() == [[*label]]
    assert {*links.unsure["reason"]} == {"weak encoder"}
    assert (links.unsure["person"] == "").all()
    assert links.pairs["probability"].isna().all()
    assert not (links.pairs["linked"] == "yes").any()
    assert links.series.empty


def test_where_nobody_is_there_twice_nothing_stands_out(tmp_path):
    people = {label: "-".join(label) for label in toy_people(sessions=2)}
    table = toy_table(people)
    store = toy_store(tmp_path / "store", table, toy_vectors(table, people))
    links, lines = linked(table, store, same_id=0.0)
    assert "nobody is there twice, or the encoder cannot tell: nothing is claimed" in lines
    assert {*links.unsure["reason"]} == {"nobody stands out"}  # which is no fault of the encoder
    assert links.people.empty


def test_short_labels_are_left_out_and_listed(people, tmp_path):
    table = toy_table(people)
    brief = ("20990101_S_R001S01C01", "003-M")
    mine = (table["session"] == brief[0]) & table["speaker"].str.endswith(brief[1])
    table = table[~mine | (mine.cumsum() <= 1)].reset_index(drop=True)
    store = toy_store(tmp_path / "store", table, toy_vectors(table, people))
    links, _ = linked(table, store)
    row = links.unsure.set_index(["session", "speaker"]).loc[brief]
    assert (row["reason"], row["seconds"], row["person"]) == ("short", 2.5, "")
    assert brief not in {*zip(links.people["session"], links.people["speaker"], strict=True)}


def test_the_doubtful_are_left_out_by_the_confidence_that_is_asked_for(table, store):
    some, _ = linked(table, store, min_confidence=0.9999)
    every, _ = linked(table, store, min_confidence=0.0)
    assert {*some.unsure["reason"]} == {"doubtful"}
    assert (some.unsure["confidence"] < 0.9999).all()
    assert len(every.unsure) == 0
    assert {*every.series["speaker"]} == {"001-M"}
    assert len(some.people) + len(some.unsure) == len(every.people)


def test_the_order_of_rows_changes_nothing(table, store):
    shuffled = table.sample(frac=1, random_state=1).reset_index(drop=True)
    pd.testing.assert_frame_equal(linked(shuffled, store)[0].people, linked(table, store)[0].people)


def test_labels_of_every_scope_give_the_ids_that_identity_files_have(table, store):
    series = table["session"].str[:15] + "_" + table["speaker"].str[-5:]
    for speakers in (series, table["speaker"].str[-5:]):
        links, _ = linked(table.assign(speaker=speakers), store)
        pd.testing.assert_frame_equal(links.people, linked(table, store)[0].people)


def test_one_session_cannot_be_linked(table, store):
    alone = table[table["session"] == "20990101_S_R001S01C01"]
    with pytest.raises(InputError, match="holds 1 session, expected at least 2 to link; make one"):
        linked(alone, store)
    with pytest.raises(InputError, match="0 sessions have a label with at least 1000 s"):
        linked(table, store, min_seconds=1000.0)
    with pytest.raises(InputError, match=r"--layer: 7 is not in .* expected one of \[0, 1\]"):
        linked(table, store, layer=7)


def test_every_pair_of_different_sessions_is_listed_once(table, store, people):
    pairs = linked(table, store)[0].pairs
    sessions = np.array([session for session, _ in people])
    across = sum(a != b for k, a in enumerate(sessions) for b in sessions[:k])
    assert len(pairs) == across
    assert (pairs["session_a"] != pairs["session_b"]).all()
    assert {people[CHANGED]} == {STRANGER}
