import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spk.common.errors import InputError
from spk.manifests.formats.build import make_table
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.splits.leakage import leakage_report
from spk.manifests.splits.roll_call import roll_call_mask
from spk.manifests.splits.select import select_segments
from spk.manifests.splits.split import METHODS, split_table
from spk.manifests.table import check_table


def with_record(table, *method, **parameters):
    made = split_table(table, *method, **parameters)
    return made, made.attrs["split"]


PURGED = ["chronological", "blocked-k", "leave-one-session-out", "enrol", "roll-call"]


def _table(turns: list[tuple[str, float, float]], session: str = "m") -> pd.DataFrame:
    rows = [
        (f"{session}{i}", f"{session}.flac", float(start), float(end), name, session)
        for i, (name, start, end) in enumerate(turns)
    ]
    return pd.DataFrame(rows, columns=["segment_id", "audio", "start", "end", "speaker", "session"])


def _two_sessions() -> pd.DataFrame:
    """Return two sessions of the same three speakers: roll call, then 24 turns with overlap."""
    call = [(name, 2.0 * i, 2.0 * i + 1) for i, name in enumerate("abc")]
    talk = [("abc"[i % 3], 10 + 4 * i, 14.2 + 4 * i) for i in range(24)]
    return pd.concat([_table(call + talk, "m"), _table(call + talk, "n")], ignore_index=True)


def _parameters(method: str) -> dict[str, object]:
    return {"session": "n"} if method == "leave-one-session-out" else {}


# What holds for every method

TURNS = st.lists(
    st.tuples(
        st.sampled_from("mn"), st.sampled_from("abc"), st.integers(0, 400), st.integers(1, 20)
    ),
    min_size=1,
    max_size=30,
    unique=True,
)


def _drawn(turns: list[tuple[str, str, int, int]]) -> pd.DataFrame:
    """Return the turns after a roll call of everybody in two sessions, and one turn long after.

    So all methods run: there is something to learn from and something to test in each session.
    """
    rows = [
        (f"{m}-{p}-{s}-{d}", f"{m}.flac", s / 2, (s + d) / 2, p, m)
        for m, p, s, d in [(m, p, 3 * i, 1) for m in "mn" for i, p in enumerate("abc")]
        + [(m, p, 20 + s, d) for m, p, s, d in [*turns, ("m", "a", 500, 2), ("n", "a", 500, 2)]]
    ]
    return pd.DataFrame(rows, columns=["segment_id", "audio", "start", "end", "speaker", "session"])


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(TURNS, st.sampled_from([0.0, 2.0, 7.5]))
@pytest.mark.parametrize("method", PURGED)
def test_no_two_splits_come_nearer_than_the_gap(method, turns, gap):
    made = split_table(_drawn(turns), method, gap=gap, **_parameters(method))
    parts = {name: made[made["split"] == name] for name in ("train", "valid", "test")}
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        for _, a in parts[one].iterrows():
            same = parts[other][parts[other]["audio"] == a["audio"]]
            assert (np.maximum(same["start"] - a["end"], a["start"] - same["end"]) > gap).all()


@settings(max_examples=12, deadline=None)
@given(TURNS)
@pytest.mark.parametrize("method", PURGED)
def test_every_segment_has_one_split_and_the_record_counts_them(method, turns):
    table = _drawn(turns)
    made, record = with_record(table, method, **_parameters(method))
    assert made["segment_id"].tolist() == table["segment_id"].tolist()
    assert made["split"].isin(["train", "valid", "test", ""]).all()
    assert sum(record["counts"].values()) == len(table)
    assert sum(record["purged"].values()) == record["counts"]["purged"]
    check_table(made)
    json.dumps(record)


@settings(max_examples=12, deadline=None)
@given(TURNS, st.randoms(use_true_random=False))
@pytest.mark.parametrize("method", PURGED)
def test_the_order_of_rows_changes_no_segments_split(method, turns, random):
    table = _drawn(turns)
    order = list(range(len(table)))
    random.shuffle(order)
    parameters = _parameters(method)
    made = split_table(table, method, **parameters).set_index("segment_id")["split"]
    mixed = split_table(table.iloc[order], method, **parameters).set_index("segment_id")["split"]
    assert mixed.sort_index().equals(made.sort_index())


def test_the_order_of_rows_changes_nothing_in_a_random_draw():
    table = _two_sessions()
    made = split_table(table, "random").set_index("segment_id")["split"]
    mixed = split_table(table.iloc[::-1], "random").set_index("segment_id")["split"]
    assert mixed.sort_index().equals(made.sort_index())


@pytest.mark.parametrize("method", METHODS)
def test_two_splits_are_one_split(method):
    once, record = with_record(_two_sessions(), method, **_parameters(method))
    twice, again = with_record(once, method, **_parameters(method))
    assert twice.equals(once)
    assert again == record


def test_another_seed_draws_other_rows():
    table = _two_sessions()
    one, other = (split_table(table, "random", seed=seed)["split"] for seed in (1, 2))
    assert not one.equals(other)


# What is refused


@pytest.mark.parametrize(
    ("method", "parameters", "told"),
    [
        ("chronologic", {}, "method: is 'chronologic', expected one of chronological, blocked-k"),
        ("enrol", {"folds": 3}, "folds: is not a parameter of enrol, expected some of seconds"),
        ("leave-one-session-out", {}, "session: is not given, expected it for leave-one"),
        ("leave-one-session-out", {"session": "x"}, "session: 'x' is not in the table"),
        ("leave-one-session-out", {"session": "n", "unknown": "x"}, "unknown: is 'x'"),
        ("chronological", {"test_share": 0.0}, "test_share: is 0, expected > 0 and < 1"),
        ("chronological", {"valid_share": 1.0}, "valid_share: is 1, expected >= 0 and < 1"),
        ("chronological", {"valid_share": float("nan")}, "valid_share: is nan"),
        ("chronological", {"gap": -1.0}, "gap: is -1 s, expected >= 0"),
        ("chronological", {"gap": float("nan")}, "gap: is nan s"),
        ("blocked-k", {"folds": 2}, "folds: is 2, expected >= 3"),
        ("blocked-k", {"fold": 5}, "fold: is 5, expected 0 to 4"),
        ("enrol", {"seconds": 0.0}, "seconds: is 0 s, expected > 0"),
        ("random", {"within": "series"}, "within: is 'series', expected 'session' or 'corpus'"),
        ("random", {"seed": -1}, "seed: is -1, expected 0 to 4294967295"),
    ],
)
def test_what_cannot_be_meant_is_refused(method, parameters, told):
    with pytest.raises(InputError, match=told):
        split_table(_two_sessions(), method, **parameters)


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_table_is_refused(method):
    with pytest.raises(InputError, match="table: holds 0 segments"):
        split_table(_table([]), method, **_parameters(method))


def test_cut_files_cannot_be_split_by_time():
    table = _two_sessions()
    table["audio"] = table["segment_id"] + ".wav"
    with pytest.raises(InputError, match="2 sessions lie in several audio files"):
        split_table(table)


# Real meetings


def _real(real_data, folder: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    table = make_table(read_rttm(real_data / folder))
    return table, select_segments(table, min_seconds=1.5, keep_roll_call=True)


@pytest.mark.parametrize("folder", ["aishell4/rttm", "meetings/TextGrid"])
def test_chronological_loses_no_speaker_of_the_real_meetings(real_data, folder):
    for table in _real(real_data, folder):
        _, record = with_record(table)
        assert record["untrained"] == record["untested"] == []
        assert record["counts"]["purged"] < 0.2 * len(table)


@pytest.mark.parametrize("method", ["chronological", "blocked-k", "enrol", "roll-call"])
def test_the_roll_call_of_the_real_meetings_is_never_test(real_data, method):
    for folder in ("aishell4/rttm", "meetings/TextGrid"):
        for table in _real(real_data, folder):
            made = split_table(table, method)
            assert not (roll_call_mask(table) & (made["split"] == "test")).any()


def test_one_real_meeting_of_a_series_is_left_out(real_data):
    reading = read_rttm(real_data / "meetings/TextGrid")
    table = make_table(reading, scope="series")
    made, record = with_record(table, "leave-one-session-out", session="20990101_S_R001S02C01")
    assert record["untrained"] == []
    assert set(made["session"][made["split"] == "test"]) == {"20990101_S_R001S02C01"}
    assert record["purged"]["roll call"] == 5


def test_a_real_stranger_is_known_by_the_identity_file(real_data):
    reading = read_rttm(real_data / "meetings/TextGrid")
    table = make_table(reading, identity=real_data / "meetings/people.csv")
    with pytest.raises(InputError, match="1 of 6 speakers is in no other session"):
        split_table(table, "leave-one-session-out", session="20990102_M_R002S02C01")


def test_one_cut_through_the_session_would_lose_speakers(real_data):
    _, table = _real(real_data, "aishell4/rttm")
    late = table[table.groupby("session")["start"].rank(pct=True) > 0.8]
    assert table["speaker"].nunique() - late["speaker"].nunique() >= 5


def test_purged_splits_of_the_real_meetings_leak_nothing(real_data):
    for folder in ("aishell4/rttm", "meetings/TextGrid"):
        for method in ("chronological", "blocked-k", "enrol", "roll-call"):
            report = leakage_report(split_table(_real(real_data, folder)[1], method))
            found = report[["within_0.5", "within_2", "shared", "identical"]]
            assert (found.to_numpy() == 0).all()
