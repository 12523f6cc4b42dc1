import pandas as pd
import pytest

from spk.common.errors import InputError
from spk.manifests.formats.build import make_table
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.splits.roll_call import roll_call_mask


def _table(turns: list[tuple[str, float, float]], session: str = "m") -> pd.DataFrame:
    rows = [
        (f"{session}{i}", f"{session}.flac", start, end, f"{session}_{name}", session)
        for i, (name, start, end) in enumerate(turns)
    ]
    return pd.DataFrame(rows, columns=["segment_id", "audio", "start", "end", "speaker", "session"])


def test_the_roll_call_ends_where_somebody_speaks_again():
    turns = [("c", 5, 6), ("a", 1, 2), ("b", 3, 4), ("a", 7, 20), ("d", 21, 22)]
    assert roll_call_mask(_table(turns)).tolist() == [True, True, True, False, False]


def test_one_speaker_alone_is_no_roll_call():
    assert not roll_call_mask(_table([("a", 1, 2), ("a", 3, 9), ("b", 9, 12)])).any()


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
    with pytest.raises(InputError, match="1 sessions lie in several audio files, first 'm' in 3"):
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
