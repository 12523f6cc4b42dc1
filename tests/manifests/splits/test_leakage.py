import numpy as np
import pandas as pd
import pytest

from spk.common.errors import InputError
from spk.manifests.formats.build import make_table
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.splits.leakage import leakage_report
from spk.manifests.splits.select import select_segments
from spk.manifests.splits.split import split_table

SHARES = ["within_0.5", "within_2", "within_10", "within_60", "shared", "identical"]


def _table(rows: list[tuple[str, str, float, float, str]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (f"i{i}", f"{session}.flac", float(start), float(end), name, session, part)
            for i, (session, name, start, end, part) in enumerate(rows)
        ],
        columns=["segment_id", "audio", "start", "end", "speaker", "session", "split"],
    )


MEETING = [
    ("m", "a", 100, 105, "test"),  # 1.5 s after a's training segment
    ("m", "a", 96, 98.5, "train"),
    ("m", "b", 200, 202, "test"),  # c's training segment runs into it; b's own is far
    ("m", "c", 201, 203, "train"),
    ("m", "b", 0, 5, "train"),
    ("m", "c", 300, 301, "test"),  # the same stretch as a's training segment
    ("m", "a", 300, 301, "train"),
    ("m", "c", 301.2, 302, "valid"),  # neither train nor test
    ("m", "c", 299, 299.9, ""),
    ("n", "a", 106, 107, "train"),  # another recording
]


def test_leaks_are_those_found_by_hand():
    report = leakage_report(_table(MEETING))
    assert report.columns.tolist() == ["session", "train", "test", *SHARES]
    assert report["session"].tolist() == ["m", "all"]
    assert report["train"].tolist() == [4, 5]
    assert report["test"].tolist() == [3, 3]
    expected = [0, 1 / 3, 1 / 3, 1 / 3, 2 / 3, 1 / 3]
    for row in range(2):
        assert report.loc[row, SHARES].tolist() == pytest.approx(expected)


def test_all_is_the_share_of_all_test_segments_not_the_mean_of_sessions():
    rows = [("m", "a", 0, 1, "train"), ("m", "a", 1.1, 2, "test")]
    rows += [("n", "a", 10 * i, 10 * i + 1, "test") for i in range(3)]
    report = leakage_report(_table(rows))
    assert report["within_0.5"].tolist() == pytest.approx([1, 0, 1 / 4])


def test_a_speaker_of_his_own_shares_no_audio_with_another():
    report = leakage_report(_table([("m", "a", 0, 5, "train"), ("m", "a", 4, 9, "test")]))
    assert report.loc[0, SHARES].tolist() == [1, 1, 1, 1, 0, 0]


def test_the_order_of_rows_changes_nothing():
    table = _table(MEETING)
    pd.testing.assert_frame_equal(leakage_report(table.iloc[::-1]), leakage_report(table))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.drop(columns="split"), "table: column 'split' is missing"),
        (lambda t: t[t["split"] != "test"], "table: 0 of 7 segments are test"),
        (lambda t: t.assign(audio=t["segment_id"]), "1 session lies in several audio files"),
    ],
)
def test_a_table_that_cannot_tell_is_refused(change, told):
    with pytest.raises(InputError, match=told):
        leakage_report(change(_table(MEETING)))


def _random(real_data) -> pd.DataFrame:
    """Return the 18 meetings that the known figures are of; the 19th is the reference's."""
    table = make_table(read_rttm(real_data / "aishell4/rttm"))
    table = table[table["session"] != "20200706_L_R001S01C01"]
    assert table["session"].nunique() == 18
    return split_table(select_segments(table, min_seconds=1.5), "random")


def test_random_splits_of_real_meetings_leak_as_much_as_is_known(real_data):
    report = leakage_report(_random(real_data)).iloc[-1]
    assert 0.51 <= report["within_0.5"] <= 0.64
    assert 0.14 <= report["shared"] <= 0.29
    assert report["within_60"] > 0.9


def test_the_leaks_of_a_real_meeting_are_what_a_double_loop_finds(real_data):
    table = _random(real_data)
    table = table[table["session"] == "20200709_L_R002S03C01"]
    train, near, shared = table[table["split"] == "train"], [], []
    for _, a in table[table["split"] == "test"].iterrows():
        distance = np.maximum(train["start"] - a["end"], a["start"] - train["end"])
        own = train["speaker"] == a["speaker"]
        near.append((distance[own] <= 0.5).any())
        shared.append((distance[~own] < 0).any())
    report = leakage_report(table).iloc[0]
    assert report["within_0.5"] == pytest.approx(np.mean(near))
    assert report["shared"] == pytest.approx(np.mean(shared))
