"""What a number format costs in names."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spk.extract.audio import Segment
from spk.extract.verification import PrecisionProbe, paired_interval, sample_segments


def meeting(count, session="S"):
    """Return segments in a mixed order, and the names of three speakers who take turns."""
    order = np.random.default_rng(0).permutation(count).tolist()
    segments = [Segment(f"{session}{i:02d}", "a.wav", float(i), i + 1.0) for i in order]
    return segments, {s.segment_id: (session, f"{int(s.start) % 3}") for s in segments}


def test_segments_are_named_block_by_block_as_scikit_learn_does():
    segments, names = meeting(36)
    rng = np.random.default_rng(1)
    speakers = np.array([int(names[s.segment_id][1]) for s in segments])
    rows = np.eye(3, 8)[speakers] + rng.normal(size=(36, 8))
    found = PrecisionProbe(segments, names).right(rows)
    order = np.argsort([s.start for s in segments])
    model = make_pipeline(StandardScaler(), RidgeClassifier())
    expected = cross_val_predict(model, rows[order], speakers[order], cv=KFold(3))
    np.testing.assert_array_equal(found, expected == speakers[order])
    assert 0 < found.mean() < 1


def test_sessions_are_named_apart():
    (one, names), (other, more) = meeting(18, "A"), meeting(18, "B")
    naming = PrecisionProbe([*one, *other], names | more)
    speakers = [int((names | more)[s.segment_id][1]) for s in [*one, *other]]
    rows = np.eye(3)[speakers]
    rows[18:] = rows[18:, [1, 2, 0]]  # another room: speaker 0 of B looks as 1 of A does
    assert naming.right(rows).all()


def test_a_segment_without_a_name_is_not_looked_at():
    segments, names = meeting(48)
    hidden = {name: who for name, who in names.items() if int(name[1:]) % 4}
    shown = [s for s in segments if s.segment_id in hidden]
    rows = np.random.default_rng(2).normal(size=(48, 4))
    found = PrecisionProbe(segments, hidden)
    assert "36 of 48 segments named" in found.summary
    assert "without the split test" in found.summary
    places = [i for i, s in enumerate(segments) if s.segment_id in hidden]
    np.testing.assert_array_equal(
        found.right(rows), PrecisionProbe(shown, hidden).right(rows[places])
    )


def test_who_learns_has_none_of_the_time_that_is_named():
    """Two turns at once at each seam: the one that is held out is all that names its twin."""
    segments = [Segment(f"s{i:02d}", "a.wav", float(i), i + 1.0) for i in range(36)]
    segments[12] = Segment("s12", "a.wav", 11.5, 13.0)
    other = [*segments[:12], Segment("s12", "b.wav", 11.5, 13.0), *segments[13:]]
    names = {s.segment_id: ("S", f"{i % 2}") for i, s in enumerate(segments)}
    names |= {"s11": ("S", "twin"), "s12": ("S", "twin")}
    count = [len(PrecisionProbe(some, names).right(np.ones((36, 2)))) for some in (segments, other)]
    assert count == [34, 36]


def test_few_segments_are_drawn_from_few_sessions():
    meetings = [meeting(36, session) for session in "ABCDEFGH"]
    segments = [one for some, _ in meetings for one in some]
    names = {name: who for _, some in meetings for name, who in some.items()}
    del names["A00"]
    drawn = sample_segments(segments, 64, names)
    assert len({one.segment_id for one in drawn}) == 64
    assert len({names[one.segment_id][0] for one in drawn}) == 2
    assert PrecisionProbe(drawn, names).enough
    assert sample_segments(segments, 400, names)[-1].segment_id == "A00"
    assert len({one.segment_id[0] for one in sample_segments(segments, 64, None)}) == 8


def test_too_few_segments_are_told():
    segments, names = meeting(21)
    naming = PrecisionProbe(segments, names)
    assert not naming.enough
    too_few = "21 of 21 segments can be named, too few to compare, expected at least 30"
    assert too_few in naming.summary
    alone = dict.fromkeys(names, ("S", "the one"))
    assert "0 of 21 segments can be named" in PrecisionProbe(segments, alone).summary


def test_a_layer_is_compared_in_both_formats():
    segments, names = meeting(36)
    speakers = [int(names[s.segment_id][1]) for s in segments]
    naming = PrecisionProbe(segments, names)
    told = naming.compare(np.eye(3)[speakers], np.eye(3)[np.roll(speakers, 1)])
    assert told.startswith("accuracy 1.000, in float32 0.")
    assert "(difference +" in told


@pytest.mark.parametrize(("gains", "losses", "count"), [(5, 2, 50), (0, 0, 30), (0, 9, 40)])
def test_the_interval_is_that_of_agresti_and_min(gains, losses, count):
    one, other = np.zeros((2, count), bool)
    one[:gains], other[gains : gains + losses] = True, True
    gap, low, high = paired_interval(one, other)
    n, b, c = count + 2, gains + 0.5, losses + 0.5
    error = (((b + c) - (b - c) ** 2 / n) ** 0.5) / n
    assert gap == pytest.approx((gains - losses) / count)
    expected = (b - c) / n - 1.96 * error, (b - c) / n + 1.96 * error
    assert (low, high) == pytest.approx(expected, rel=1e-4)
    assert low < gap < high
