"""What a number format costs in names."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spk.extract.accuracy import Naming, paired_interval
from spk.extract.audio import Segment


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
    found = Naming(segments, names).right(rows)
    order = np.argsort([s.start for s in segments])
    model = make_pipeline(StandardScaler(), RidgeClassifier())
    expected = cross_val_predict(model, rows[order], speakers[order], cv=KFold(3))
    np.testing.assert_array_equal(found, expected == speakers[order])
    assert 0 < found.mean() < 1


def test_sessions_are_named_apart():
    (one, names), (other, more) = meeting(18, "A"), meeting(18, "B")
    naming = Naming([*one, *other], names | more)
    speakers = [int((names | more)[s.segment_id][1]) for s in [*one, *other]]
    rows = np.eye(3)[speakers]
    rows[18:] = rows[18:, [1, 2, 0]]  # another room: speaker 0 of B looks as 1 of A does
    assert naming.right(rows).all()


def test_too_few_segments_are_told():
    segments, names = meeting(21)
    naming = Naming(segments, names)
    assert not naming.enough
    assert "21 of 21 segments can be named, too few to compare, expected at least 30" in naming.told
    alone = dict.fromkeys(names, ("S", "the one"))
    assert "0 of 21 segments can be named" in Naming(segments, alone).told


def test_a_layer_is_compared_in_both_formats():
    segments, names = meeting(36)
    speakers = [int(names[s.segment_id][1]) for s in segments]
    naming = Naming(segments, names)
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
