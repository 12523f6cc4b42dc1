from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from spk.classify.naming.clusters import (
    evidence,
    merge,
    seconds_of,
    speech_of,
    subtract,
    together,
    turns_table,
)
from spk.common.errors import InputError
from spk.manifests.formats.turns import Turn


def turns(*rows, session="s"):
    columns = ["cluster", "start", "end"]
    return pd.DataFrame(rows, columns=columns).assign(session=session, channel="", text="")


def random_spans(rng, count):
    starts = rng.integers(0, 90, count)
    return [(int(a), int(a + d)) for a, d in zip(starts, rng.integers(1, 9, count), strict=True)]


def on_grid(spans):
    grid = np.zeros(100, dtype=bool)
    for start, end in spans:
        grid[start:end] = True
    return grid


@pytest.mark.parametrize("seed", range(20))
def test_spans_are_subtracted_as_on_a_grid(seed):
    rng = np.random.default_rng(seed)
    a, b = merge(random_spans(rng, 6)), merge(random_spans(rng, 6))
    left = subtract(a, b)
    assert (on_grid(left) == (on_grid(a) & ~on_grid(b))).all()
    assert seconds_of(left) == on_grid(left).sum()
    assert all(end < start for (_, end), (start, _) in pairwise(left))


def test_speech_of_others_is_cut_away_and_short_rests_are_no_evidence():
    rows = evidence(turns(("A", 0.0, 5.0), ("B", 3.0, 6.0), ("C", 6.5, 7.0)))
    spans = rows[["cluster", "start", "end"]].to_numpy().tolist()
    assert spans == [["A", 0.0, 3.0], ["B", 5.0, 6.0]]


def test_long_speech_is_divided_evenly():
    rows = evidence(turns(("A", 1.0, 26.0)))
    assert (rows["end"] - rows["start"]).tolist() == pytest.approx([25 / 3] * 3)


def test_a_clusters_own_overlap_is_not_anothers_speech():
    rows = evidence(turns(("A", 0.0, 4.0), ("A", 3.0, 6.0)))
    assert rows[["start", "end"]].to_numpy().tolist() == [[0.0, 6.0]]


def test_how_long_two_speak_at_once():
    speech = speech_of(turns(("A", 0.0, 4.0), ("B", 3.0, 6.0), ("C", 10.0, 11.0)))
    assert together(speech) == {("A", "B"): 1.0, ("A", "C"): 0.0, ("B", "C"): 0.0}


def test_sessions_have_clusters_of_their_own():
    rows = pd.concat([turns(("A", 0.0, 2.0)), turns(("B", 0.0, 2.0), session="t")])
    assert evidence(rows)[["session", "cluster"]].to_numpy().tolist() == [["s", "A"], ["t", "B"]]


def test_turns_are_in_order_of_time_and_none_are_refused():
    rows = [Turn("s", "A", 3.0, 4.0, 0, "x"), Turn("s", "B", 1.0, 2.0, 1, "x", "1", "hello")]
    table = turns_table(rows, "a.rttm")
    assert table["cluster"].tolist() == ["B", "A"]
    assert table[["channel", "text"]].to_numpy().tolist() == [["1", "hello"], ["", ""]]
    with pytest.raises(InputError, match="holds 0 turns"):
        turns_table([], "a.rttm")
