import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spk.common.errors import InputError
from spk.manifests.formats.build import make_table
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.splits.select import describe, overlap_share, segment_durations, select_segments


def with_dropped(table, **rules):
    dropped = {}
    return select_segments(table, dropped=dropped, **rules), [*dropped.items()]


ROUNDING = 1e-6  # overlap shares are rounded to 6 decimals

# Annotated by hand: a is talked over by b from 2 to 4 s, by c from 3 to 5 s.
MEETING = [("a", 0, 10), ("b", 2, 4), ("c", 3, 5), ("a", 10, 12), ("b", 20, 21)]


def _table(turns: list[tuple[str, float, float]], session: str = "m") -> pd.DataFrame:
    rows = [
        (f"{session}{i}", f"{session}.flac", float(start), float(end), name, session)
        for i, (name, start, end) in enumerate(turns)
    ]
    return pd.DataFrame(rows, columns=["segment_id", "audio", "start", "end", "speaker", "session"])


def test_overlap_counts_others_once():
    assert overlap_share(_table(MEETING)) == pytest.approx([0.3, 1, 1, 0, 0], abs=ROUNDING)


def test_overlap_stays_within_the_session():
    both = pd.concat([_table([("a", 0, 2)], "m"), _table([("b", 1, 3)], "n")])
    assert overlap_share(both).tolist() == [0, 0]


def test_a_speaker_does_not_overlap_himself():
    assert overlap_share(_table([("a", 0, 4), ("a", 1, 2), ("a", 3, 6)])).tolist() == [0, 0, 0]


def test_overlap_of_nothing_is_nothing():
    assert overlap_share(_table([])).shape == (0,)


def _covered(segment: pd.Series, others: pd.DataFrame) -> float:
    """Measure the union by counting ticks of a quarter second."""
    ticks = np.arange(segment.start, segment.end, 0.25) + 0.125
    inside = [((others.start < tick) & (tick < others.end)).any() for tick in ticks]
    return float(np.mean(inside))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.integers(1, 12)),
        min_size=1,
        max_size=14,
    )
)
def test_overlap_is_what_counting_ticks_gives(turns):
    table = _table([(name, start / 4, (start + length) / 4) for name, start, length in turns])
    expected = [
        _covered(row, table[table["speaker"] != row["speaker"]]) for _, row in table.iterrows()
    ]
    assert overlap_share(table) == pytest.approx(expected, abs=ROUNDING)


def test_a_duration_of_one_and_a_half_seconds_is_kept():
    # 35.8939 + 1.5 - 35.8939 is 1.4999999999999929 in float64.
    table = _table([("a", 35.8939, 35.8939 + 1.5), ("a", 40, 41.4999)])
    assert segment_durations(table).tolist() == [1.5, 1.4999]
    kept, dropped = with_dropped(table, min_seconds=1.5)
    assert kept["segment_id"].tolist() == ["m0"]
    assert dropped == [("min_seconds 1.5", ["m1"])]


def test_overlap_is_computed_before_anything_is_dropped():
    kept, dropped = with_dropped(_table(MEETING), min_seconds=5, max_overlap=0.3)
    assert kept["segment_id"].tolist() == ["m0"]
    assert kept["overlap"].tolist() == pytest.approx([0.3], abs=ROUNDING)
    assert dropped == [
        ("min_seconds 5", ["m1", "m2", "m3", "m4"]),
        ("max_overlap 0.3", []),
    ]


def test_selecting_twice_keeps_the_overlap_of_all_turns():
    once = select_segments(_table(MEETING), min_seconds=2)
    twice, dropped = with_dropped(once.iloc[[0]], max_overlap=0.5)
    assert twice["overlap"].tolist() == pytest.approx([0.3], abs=ROUNDING)
    assert dropped == [("max_overlap 0.5", [])]


def test_speakers_are_counted_after_the_other_rules():
    kept, dropped = with_dropped(_table(MEETING), min_seconds=1.5, min_segments=2)
    assert set(kept["speaker"]) == {"a"}
    assert dropped == [("min_seconds 1.5", ["m4"]), ("min_segments 2", ["m1", "m2"])]


def test_rules_are_reported_in_their_order_and_drop_each_segment_once():
    table = pd.concat([_table(MEETING, "m"), _table(MEETING, "n")])
    kept, dropped = with_dropped(
        table, sessions=["m"], min_seconds=1.5, max_seconds=9, max_overlap=0.5, min_segments=1
    )
    assert [rule for rule, _ in dropped] == [
        "sessions",
        "min_seconds 1.5",
        "max_seconds 9",
        "max_overlap 0.5",
    ]
    gone = [name for _, ids in dropped for name in ids]
    assert sorted([*gone, *kept["segment_id"]]) == sorted(table["segment_id"])


def test_no_rule_drops_nothing():
    kept, dropped = with_dropped(_table(MEETING))
    assert dropped == []
    assert kept["segment_id"].tolist() == [f"m{i}" for i in range(5)]


def test_the_roll_call_is_spared_on_request():
    table = _table([("a", 0, 1), ("b", 1, 2), ("a", 2, 8), ("b", 8, 9)])
    assert len(select_segments(table, min_seconds=1.5)) == 1
    kept = select_segments(table, min_seconds=1.5, keep_roll_call=True)
    assert kept["segment_id"].tolist() == ["m0", "m1", "m2"]


def test_segments_in_files_of_their_own_are_selected_by_duration():
    table = _table(MEETING)
    table["audio"] = table["segment_id"] + ".wav"
    kept = select_segments(table, min_seconds=5)
    assert "overlap" not in kept
    with pytest.raises(InputError, match="first 'm' in 5, expected one"):
        select_segments(table, max_overlap=0.5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sessions": ["x"]}, "sessions: 1 are not in the table, first 'x'"),
        ({"min_seconds": -1}, "min_seconds: is -1 s, expected >= 0"),
        ({"min_seconds": 3, "max_seconds": 2}, "max_seconds: is 2 s, expected > 0 and >= 3"),
        ({"max_overlap": 1.5}, r"max_overlap: is 1.5, expected 0\.\.1"),
        ({"max_overlap": float("nan")}, "max_overlap: is nan"),
        ({"min_seconds": float("nan")}, "min_seconds: is nan"),
        ({"min_segments": -1}, "min_segments: is -1, expected >= 1"),
        ({"min_seconds": 99}, r"0 of 5 segments are left \(min_seconds 99 drops 5\)"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(options, told):
    with pytest.raises(InputError, match=told):
        select_segments(_table(MEETING), **options)


def test_describe_counts_per_session_and_in_all():
    told = describe(pd.concat([_table(MEETING, "n"), _table([("a", 0, 3)], "m")]))
    assert told["session"].tolist() == ["m", "n", "all"]
    assert told["speakers"].tolist() == [1, 3, 3]
    assert told["segments"].tolist() == [1, 5, 6]
    assert told["minutes"].tolist() == pytest.approx([3 / 60, 17 / 60, 20 / 60])
    # n: speech in 0-12 and 20-21 s, of which 2-5 s by several.
    assert told["overlap"].tolist() == pytest.approx([0, 3 / 13, 3 / 16])
    assert told["overlapped"].tolist() == pytest.approx([0, 3 / 5, 3 / 6])
    assert told["q50"].tolist() == [3, 2, 2]
    assert told["longest"].tolist() == [3, 10, 10]


def test_describe_leaves_overlap_open_where_times_cannot_be_compared():
    table = _table(MEETING)
    table["audio"] = table["segment_id"] + ".wav"
    told = describe(table)
    assert told["overlap"].isna().all()
    assert told["segments"].tolist() == [5, 5]


def test_overlap_of_real_meetings_is_what_the_corpus_is_known_for(real_data):
    table = make_table(read_rttm(real_data / "aishell4/rttm"))
    told = describe(table).iloc[:-1]
    assert len(told) == 19
    assert told["overlap"].between(0.01, 0.15).all()
    assert 0.05 < describe(table)["overlap"].iloc[-1] < 0.10  # 8 % in train
    assert told["q50"].between(1.5, 6).all()
    kept = select_segments(table, min_seconds=1.5)
    short = 1 - len(kept) / len(table)
    assert 0.27 < short < 0.40  # 27-35 % in the corpus


def test_selection_by_duration_is_that_of_the_reference_csv(real_data):
    reference = pd.read_csv(real_data / "aishell4/data_fixed.csv", dtype=str)
    counts = reference.groupby(reference["label"].str.rsplit("_", n=1).str[0]).size()
    table = make_table(read_rttm(real_data / "aishell4/rttm"))
    both = sorted(set(counts.index) & set(table["session"]))
    assert len(both) == 4
    kept = select_segments(table, sessions=both, min_seconds=1.5)
    assert kept.groupby("session").size().to_dict() == counts[both].to_dict()
