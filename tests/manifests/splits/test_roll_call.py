import pandas as pd
import pytest

from spk.common.errors import InputError
from spk.manifests.formats.build import make_table
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.splits.roll_call import roll_call_mask
from spk.manifests.splits.split import METHODS, split_table


def _table(turns: list[tuple[str, float, float]], session: str = "m") -> pd.DataFrame:
    rows = [
        (f"{session}{i}", f"{session}.flac", start, end, f"{session}_{name}", session)
        for i, (name, start, end) in enumerate(turns)
    ]
    return pd.DataFrame(rows, columns=["segment_id", "audio", "start", "end", "speaker", "session"])


def test_the_roll_call_ends_where_somebody_speaks_again():
    turns = [("c", 5, 6), ("a", 1, 2), ("b", 3, 4), ("a", 7, 20), ("d", 21, 22)]
    assert roll_call_mask(_table(turns)).tolist() == [True, True, True, False, False]


def test_somebody_who_speaks_twice_does_not_end_it():
    turns = [("a", 1, 3), ("a", 3, 4), ("b", 4, 6), ("a", 6, 7), ("c", 8, 9), ("b", 10, 12)]
    assert roll_call_mask(_table(turns)).tolist() == [True] * 5 + [False]


@pytest.mark.parametrize("place", [0, 2])
def test_a_long_turn_is_none_of_it(place):
    """Before the answers it introduces them; after the first it ends them."""
    turns = [("b", 30, 32), ("a", 32, 34), ("c", 43, 45)]
    turns.insert(place, ("c", 10.0, 29.9) if place == 0 else ("c", 34.0, 42.1))
    expected = [True] * 4
    expected[place] = False
    if place:
        expected[place + 1] = False
    assert roll_call_mask(_table(turns)).tolist() == expected


def test_who_speaks_first_long_after_the_answers_did_not_answer():
    turns = [("a", 1, 3), ("b", 3, 5), ("c", 15.1, 17), ("d", 18, 19)]
    assert roll_call_mask(_table(turns)).tolist() == [True, True, False, False]


def test_a_turn_on_two_channels_is_one_answer():
    table = _table([("a", 1, 3), ("b", 4, 6), ("a", 6, 8)])
    both = pd.concat([table, table.assign(segment_id=table["segment_id"] + "-2")])
    assert roll_call_mask(both).tolist() == [True, True, False] * 2


def test_one_speaker_alone_is_no_roll_call():
    assert not roll_call_mask(_table([("a", 1, 2), ("a", 3, 12), ("b", 12, 15)])).any()


def test_a_late_first_turn_is_no_roll_call():
    turns = [("a", 1, 2), ("b", 3, 4), ("c", 96, 97)]
    assert roll_call_mask(_table(turns)).tolist() == [True, True, False]


def test_each_session_has_its_own_roll_call():
    first = _table([("a", 1, 2), ("b", 3, 4), ("a", 5, 6)], "m")
    second = _table([("b", 0, 2), ("a", 3, 4), ("b", 5, 6)], "n")
    both = pd.concat([first, second]).sample(frac=1, random_state=0)
    assert set(both["segment_id"][roll_call_mask(both)]) == {"m0", "m1", "n0", "n1"}


def test_files_cut_out_of_a_session_tell_no_roll_call():
    table = _table([("a", 0, 2), ("b", 0, 3), ("a", 0, 4)])
    with pytest.raises(InputError, match="1 session lies in several audio files, first 'm' in 3"):
        roll_call_mask(table.assign(audio=table["segment_id"]))


def test_an_empty_table_has_no_roll_call():
    assert roll_call_mask(_table([])).shape == (0,)


def test_every_speaker_of_the_real_meetings_answers_once_in_the_first_95_seconds(real_data):
    for folder in ("aishell4/rttm", "meetings/TextGrid"):
        table = make_table(read_rttm(real_data / folder))
        called = table[roll_call_mask(table)]
        assert called["speaker"].is_unique
        assert set(called["speaker"]) == set(table["speaker"])
        assert called["end"].max() < 95


def test_everybody_is_found_where_each_speaks_twice_in_the_real_roll_calls(real_data):
    table = make_table(read_rttm(real_data / "aishell4/rttm"))
    called = table[roll_call_mask(table)]
    again = called.assign(start=called["end"] - 0.2, end=called["end"] - 0.1)
    again["segment_id"] += "-again"
    twice = pd.concat([table, again])
    mask = roll_call_mask(twice)
    assert set(called["segment_id"]) <= set(twice["segment_id"][mask])
    assert (twice["end"] - twice["start"])[mask].max() < 8
    last = called.groupby("session")["end"].max()
    assert (twice["start"][mask] <= twice["session"][mask].map(last)).all()


@pytest.mark.parametrize("method", METHODS)
def test_no_method_tests_a_roll_call(method, real_data):
    table = make_table(read_rttm(real_data / "meetings/TextGrid"), scope="series")
    table = table[table["end"] - table["start"] >= 1.5].reset_index(drop=True)
    options = {"session": table["session"].iloc[0]}  # of a series, whose speakers come again
    given = options if method == "leave-one-session-out" else {}
    made = split_table(table, method=method, **given)
    opening = roll_call_mask(table)
    assert opening.any()
    tested = made["split"].to_numpy() == "test"
    assert tested.any()
    assert not tested[opening].any()
