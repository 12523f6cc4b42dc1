import numpy as np
import pytest

from spk.classify.linking.labels import room_of

PEOPLE, ROOM, DIM = 1.0, 2.0, 4000  # deviations; many features, so that moments are near


def sessions_of(sizes, room=ROOM, same_people=False, seed=0):
    """Return vectors and sessions of drawn people in drawn rooms."""
    rng = np.random.default_rng(seed)
    fixed = PEOPLE * rng.normal(size=(max(sizes), DIM))
    parts = []
    for size in sizes:
        people = fixed[:size] if same_people else PEOPLE * rng.normal(size=(size, DIM))
        parts.append(people + room * rng.normal(size=DIM))
    return np.concatenate(parts), np.repeat([f"s{k}" for k in range(len(sizes))], sizes)


def test_the_rooms_share_is_what_session_means_vary_beyond_their_people():
    vectors, sessions = sessions_of([4] * 30)
    _, shares = room_of(vectors, sessions)
    assert shares == pytest.approx(ROOM**2 / (ROOM**2 + PEOPLE**2 / 4), rel=0.01)


def test_without_rooms_nearly_nothing_is_taken_out():
    _, shares = room_of(*sessions_of([4] * 30, room=0.0))
    assert shares.max() < 0.02


def test_of_a_session_of_one_label_less_is_taken_out_than_of_one_of_many():
    vectors, sessions = sessions_of([1, *[5] * 20])
    _, shares = room_of(vectors, sessions)
    assert shares[0] == pytest.approx(ROOM**2 / (ROOM**2 + PEOPLE**2), rel=0.05)
    assert shares[0] < shares[-1] < 1


def test_what_is_left_is_nearer_to_the_people():
    vectors, sessions = sessions_of([4] * 20, same_people=True)
    rooms, _ = room_of(vectors, sessions)
    left = (vectors - rooms).reshape(20, 4, DIM)
    apart = np.square(left - left.mean(axis=0)).mean()
    assert apart < 0.05 * ROOM**2
