"""Order, batches, shards, and reading ahead."""

import threading
from functools import partial

import numpy as np
import pytest
import soundfile

from spk.common.errors import InputError
from spk.extract.audio import Audio, ReadOptions, Segment
from spk.extract.pipeline import batching as room
from spk.extract.pipeline.batching import (
    make_batches,
    padding,
    read_batches,
    sort_segments,
    take_part,
    unfinished_batches,
)


def of(*durations):
    return [Segment(f"s{i}", "a.wav", 0.0, d) for i, d in enumerate(durations)]


@pytest.fixture
def recording(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 32000)
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    return str(tmp_path / "a.wav")


def test_a_run_that_goes_on_keeps_the_batches_of_the_whole_table():
    segments = of(*(2.0,) * 9)
    ids = [segment.segment_id for segment in segments]
    whole = make_batches(segments, 6.0)

    def left(done, passed=()):
        return unfinished_batches(
            segments,
            {ids[k] for k in done},
            {ids[k] for k in passed},
            partial(make_batches, batch_seconds=6.0),
        )

    assert left(done=()) == whole
    assert left(done=range(3, 6)) == [whole[0], whole[2]]
    assert left(done=range(3), passed=[4]) == [[segments[3], segments[5]], whole[2]]
    assert left(done=range(6), passed=[6, 7, 8]) == []
    assert left(done=range(9)) == []


def test_what_is_left_of_torn_batches_is_cut_anew():
    segments = of(*(2.0,) * 9)
    done = {segment.segment_id for segment in segments[::2]}
    cut = partial(make_batches, batch_seconds=6.0)
    assert unfinished_batches(segments, done, set(), cut) == [
        segments[1::2][:3],
        segments[1::2][3:],
    ]


def test_segments_go_from_long_to_short_and_ties_by_place():
    segments = [
        Segment("c", "b.wav", 5.0, 6.0),
        Segment("d", "a.wav", 7.0, 8.0),
        Segment("a", "z.wav", 0.0, 3.0),
        Segment("b", "a.wav", 2.0, 3.0),
    ]
    assert [s.segment_id for s in sort_segments(segments)] == ["a", "b", "d", "c"]
    assert sort_segments(segments[::-1]) == sort_segments(segments)


def test_batches_hold_no_more_than_their_seconds_with_padding():
    segments = of(9.0, 5.0, 4.0, 4.0, 3.0, 1.0, 1.0, 0.5)
    found = make_batches(segments, 10.0)
    assert [[s.duration for s in batch] for batch in found] == [
        [9.0],
        [5.0, 4.0],
        [4.0, 3.0],
        [1.0, 1.0, 0.5],
    ]
    assert [s for batch in found for s in batch] == segments


def test_batches_of_unsorted_segments_count_their_longest():
    found = make_batches(of(1.0, 1.0, 6.0, 6.0), 12.0)
    assert [len(batch) for batch in found] == [2, 2]


def test_a_segment_longer_than_a_batch_is_alone():
    assert [len(batch) for batch in make_batches(of(90.0, 80.0, 1.0), 60.0)] == [1, 1, 1]


def test_padding_is_the_share_that_is_no_audio():
    assert padding([of(4.0, 2.0), of(1.0, 1.0)]) == pytest.approx(2 / 10)
    assert padding([]) == 0.0


def test_shards_are_disjoint_complete_and_of_like_size():
    segments = of(*range(11, 0, -1))
    parts = [take_part(segments, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(s.segment_id for part in parts for s in part) == sorted(
        s.segment_id for s in segments
    )
    assert [len(part) for part in parts] == [4, 4, 3]
    assert take_part(segments, "1/1") == segments


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", ""])
def test_a_shard_that_is_none_is_refused(shard):
    with pytest.raises(InputError, match="expected i/n with i from 1 to n"):
        take_part(of(1.0), shard)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_with_what_was_found(recording, workers):
    asked = [
        [Segment(f"{i}-{k}", recording, i / 10, i / 10 + 0.1) for k in range(2)] for i in range(8)
    ]
    asked.append([Segment("late", recording, 1.5, 2.5)])
    found = list(read_batches(asked, ReadOptions(), workers=workers))
    assert [[segment for segment, _ in batch] for batch in found] == asked
    whole, _ = soundfile.read(recording, dtype="float32")
    for batch in found[:-1]:
        for segment, audio in batch:
            first = round(segment.start * 16000)
            assert isinstance(audio, Audio)
            np.testing.assert_array_equal(audio.samples, whole[first : first + 1600])
    assert found[-1][0][1].code == "past-end"
    assert "ends at 2.0000 s" in found[-1][0][1].message


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_user_must_repair_ends_the_reading(recording, workers):
    asked = [[Segment("s", recording, 0.0, 1.0)]]
    with pytest.raises(InputError, match="sample rate is 16000 Hz, expected 8000 Hz"):
        list(read_batches(asked, ReadOptions(rate=8000), workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_reading_names_the_segment(recording, workers):
    asked = [[Segment("the-one", recording, "soon", 1.0)]]  # a start that is no number
    with pytest.raises(RuntimeError, match="the-one: reading"):
        list(read_batches(asked, ReadOptions(), workers=workers))


def test_reading_left_early_leaves_no_thread_behind(recording):
    asked = [[Segment(f"s{i}", recording, 0.0, 1.0)] for i in range(50)]
    reading = read_batches(asked, ReadOptions(), workers=2)
    next(reading)
    assert any(thread.name.startswith("decode") for thread in threading.enumerate())
    reading.close()
    assert not any(thread.name.startswith("decode") for thread in threading.enumerate())


def test_only_a_few_batches_are_read_ahead(recording, monkeypatch):
    monkeypatch.setattr(room, "AHEAD", 2)
    given = []

    def batches():
        for i in range(10):
            given.append(i)
            yield [Segment(f"s{i}", recording, 0.0, 1.0)]

    reading = read_batches(batches(), ReadOptions(), workers=1)
    next(reading)
    assert given == [0, 1, 2]
    reading.close()
