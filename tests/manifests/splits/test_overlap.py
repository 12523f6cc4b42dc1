import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spk.common.errors import InputError
from spk.manifests.splits.overlap import (
    RECORDING,
    SPEAKER,
    check_timeline,
    count_neighbours,
    has_common_clock,
    overlap_timeline,
)

ROUNDING = 1e-9  # s; sums of times below 1e3 s in float64

TURNS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 30), st.integers(1, 9)),
    min_size=1,
    max_size=14,
    unique=True,
)


def _table(turns: list[tuple[int, int, int, int]]) -> pd.DataFrame:
    rows = [
        (f"i{i}", f"m{m}.flac", start / 4, (start + length) / 4, f"p{p}", f"m{m}")
        for i, (m, p, start, length) in enumerate(turns)
    ]
    return pd.DataFrame(rows, columns=["segment_id", "audio", "start", "end", "speaker", "session"])


def _distance(a: pd.Series, b: pd.Series) -> float:
    return max(a.start - b.end, b.start - a.end)


@settings(max_examples=60, deadline=None)
@given(TURNS, st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([RECORDING, SPEAKER]))
def test_neighbours_are_those_that_a_double_loop_finds(turns, gap, by):
    table = _table(turns)
    asked = np.arange(len(table)) % 2 == 0
    near = count_neighbours(table, asked, ~asked, by=by, gap=gap)
    shared = count_neighbours(table, asked, ~asked, by=by)
    for i, row in enumerate(np.flatnonzero(asked)):
        a = table.iloc[row]
        others = [b for _, b in table[~asked].iterrows() if all(a[name] == b[name] for name in by)]
        assert near[i] == sum(_distance(a, b) <= gap for b in others)
        assert shared[i] == sum(_distance(a, b) < 0 for b in others)


def test_touching_segments_are_near_but_share_no_audio():
    table = _table([(0, 0, 0, 4), (0, 1, 4, 4)])
    first = np.array([True, False])
    assert count_neighbours(table, first, ~first, by=RECORDING).tolist() == [0]
    assert count_neighbours(table, first, ~first, by=RECORDING, gap=0.0).tolist() == [1]
    assert count_neighbours(table, first, ~first, by=SPEAKER, gap=9.0).tolist() == [0]


def test_nobody_to_count_is_nobody_near():
    table = _table([(0, 0, 0, 4), (0, 1, 4, 4)])
    nobody = np.zeros(2, dtype=bool)
    assert count_neighbours(table, ~nobody, nobody, by=RECORDING, gap=1.0).tolist() == [0, 0]
    assert count_neighbours(table, nobody, ~nobody, by=RECORDING, gap=1.0).shape == (0,)


def test_stretches_count_people_not_turns():
    # One speaker's two overlapping turns from 0 to 2 s, another's from 1.5 to 3 s.
    swept = overlap_timeline(_table([(0, 0, 0, 6), (0, 0, 4, 4), (0, 1, 6, 6)]))
    assert swept.total(1, 1) == pytest.approx([3.0], abs=ROUNDING)
    assert swept.total(2, 1) == pytest.approx([0.5], abs=ROUNDING)
    assert swept.within(2) == pytest.approx([0.0, 0.5, 0.5], abs=ROUNDING)


def test_a_session_cut_into_files_has_no_timeline():
    table = _table([(0, 0, 0, 4), (0, 1, 4, 4)])
    assert has_common_clock(table)
    table["audio"] = ["a.wav", "b.wav"]
    assert not has_common_clock(table)
    with pytest.raises(InputError, match=r"1 session lies in several audio files, first 'm0' in 2"):
        check_timeline(table)
