"""Batches are complete, limited, repeatable; waveforms depend on seed, epoch and segment alone."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from spk.common.errors import InputError
from spk.extract.audio import ReadOptions, Segment
from spk.finetune.config import FinetuneConfig
from spk.finetune.data.dataset import (
    BatchIndex,
    BatchSampler,
    SegmentDataset,
    batch_indices,
    load_samples,
    make_loader,
)

RATE = 16000
SECONDS = [0.5, 0.9, 0.3, 1.1, 0.7, 0.4, 1.0, 0.6, 0.8]
LOUD = {"speed_prob": 0.5, "noise_prob": 0.5, "gain_prob": 0.5, "reverb_prob": 0.5}


def made(batch_seconds=2.0, shuffled=True, part=(0, 1), **settings):
    config = FinetuneConfig(batch_seconds=batch_seconds, **settings)
    return BatchSampler(SECONDS, config, shuffled=shuffled, part=part)


def asked(batches, epoch):
    batches.set_epoch(epoch)
    return list(batches)


def data_set(segments, held=None, **settings):
    codes = np.arange(len(segments)) % 3
    return SegmentDataset(segments, codes, ReadOptions(), held or {}, FinetuneConfig(**settings))


def samples(dataset, epoch=0, places=range(9)):
    return dataset[BatchIndex(epoch, 0, tuple(places))].waveforms


def recorded(segment, channel=0):
    first, stop = round(segment.start * RATE), round(segment.end * RATE)
    return soundfile.read(segment.path, dtype="float32")[0][first:stop, channel]


def same(found, expected):
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


@given(
    st.lists(st.integers(1, 40).map(lambda tenths: tenths / 10), min_size=1, max_size=40),
    st.floats(0.5, 12),
    st.none() | st.integers(1, 6),
)
def test_batches_hold_each_segment_once_and_keep_both_limits(seconds, batch_seconds, batch_size):
    batches = batch_indices(seconds, batch_seconds, batch_size)
    assert sorted(place for batch in batches for place in batch) == [*range(len(seconds))]
    for batch in batches:
        longest = max(seconds[place] for place in batch)
        assert len(batch) == 1 or longest * len(batch) <= batch_seconds
        assert batch_size is None or len(batch) <= batch_size


def test_batches_are_cut_from_long_to_short():
    assert batch_indices([1, 3, 2, 1, 1], 4.0, None) == [(1,), (2, 0), (3, 4)]
    assert batch_indices([1, 1, 1, 1], 9.0, 2) == [(0, 1), (2, 3)]


def test_a_segment_alone_at_the_end_is_joined():
    assert batch_indices([1] * 4, 3.0, None) == [(0, 1), (2, 3)]
    assert batch_indices([1] * 3, 2.0, None) == [(0, 1), (2,)]  # two are not torn apart
    assert batch_indices([9, 1], 9.0, None) == [(0,), (1,)]
    assert batch_indices([1], 9.0, None) == [(0,)]


def test_an_epoch_holds_every_segment_once_in_the_same_batches():
    batches = made()
    first = asked(batches, 0)
    assert len(first) == len(batches) > 3
    for epoch in (0, 1, 5):
        found = asked(batches, epoch)
        assert sorted(p for ask in found for p in ask.places) == [*range(9)]
        assert {ask.epoch for ask in found} == {epoch}
        assert {ask.number: ask.places for ask in found} == {a.number: a.places for a in first}


def test_the_order_is_that_of_seed_and_epoch():
    orders = [[ask.number for ask in asked(made(), epoch)] for epoch in range(6)]
    assert orders == [[ask.number for ask in asked(made(), epoch)] for epoch in range(6)]
    assert len({*map(tuple, orders)}) > 3
    assert orders != [[ask.number for ask in asked(made(seed=7), epoch)] for epoch in range(6)]


def test_without_shuffling_every_epoch_goes_from_long_to_short():
    batches = made(shuffled=False)
    for epoch in (0, 1):
        assert [ask.number for ask in asked(batches, epoch)] == [*range(len(batches))]


def test_the_first_epoch_begins_with_the_largest_batch_padding_counted():
    for seed in range(5):
        sizes = [
            len(ask.places) * max(SECONDS[p] for p in ask.places)
            for ask in asked(made(seed=seed), 0)
        ]
        assert sizes[0] == max(sizes)
    firsts = {asked(made(), epoch)[0].number for epoch in range(1, 9)}
    assert len(firsts) > 1


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_parts_of_several_ranks_have_equal_numbers_and_cover_all(ranks):
    for epoch in (0, 1):
        parts = [asked(made(part=(rank, ranks)), epoch) for rank in range(ranks)]
        lengths = {len(part) for part in parts}
        assert lengths == {len(made(part=(0, ranks)))} == {-(-len(made()) // ranks)}
        numbers = [ask.number for part in parts for ask in part]
        assert {*numbers} == {*range(len(made()))}
        assert len(numbers) - len({*numbers}) < ranks  # no more twice than must be


def test_more_ranks_than_batches_still_get_one_each():
    parts = [asked(made(batch_seconds=40.0, part=(rank, 3)), 0) for rank in range(3)]
    assert [len(part) for part in parts] == [1, 1, 1]


def test_samples_and_codes_are_those_of_the_places(segments):
    batch = data_set(segments)[BatchIndex(0, 4, (3, 0))]
    assert batch.ask == BatchIndex(0, 4, (3, 0))
    assert same(batch.waveforms, [recorded(segments[3]), recorded(segments[0])])
    assert batch.codes.tolist() == [0, 0]
    assert batch.codes.dtype.is_signed
    assert batch.samples == 2 * round(1.1 * RATE)


def test_what_is_held_is_read_once_and_the_rest_each_time(segments, tmp_path):
    damaged = dataclasses.replace(segments[0], segment_id="lost", path=str(tmp_path / "no.wav"))
    held, rejected = load_samples([*segments, damaged], ReadOptions())
    assert {*held} == {s.segment_id for s in segments}
    assert rejected["lost"].code == "unreadable"
    some, _ = load_samples(segments, ReadOptions(), most=150_000)
    assert 0 < len(some) < 9
    assert sum(row.nbytes for row in some.values()) <= 150_000
    expected = [recorded(segment) for segment in segments]
    for kept in (held, some, {}):
        assert same(samples(data_set(segments, kept)), expected)
    gone = [dataclasses.replace(segment, path="gone.wav") for segment in segments]
    assert same(samples(data_set(gone, held)), expected)
    with pytest.raises(InputError, match="s0: unreadable: .*gone.wav.* put the recording back"):
        samples(data_set(gone))


def test_crops_have_their_length_and_lie_in_the_segment(segments):
    dataset = data_set(segments, crop_seconds=0.6).training()
    assert dataset.seconds == pytest.approx([min(s, 0.6) for s in SECONDS])
    for row, segment in zip(samples(dataset), segments, strict=True):
        whole = recorded(segment)
        assert len(row) == min(len(whole), round(0.6 * RATE))
        starts = np.flatnonzero(whole == row[0])
        assert any(np.array_equal(whole[i : i + len(row)], row) for i in starts)


def test_a_crop_is_long_enough_for_the_front_end(segments):
    rows = samples(data_set(segments, crop_seconds=0.001).training())
    assert {len(row) for row in rows} == {ReadOptions().shortest}


def test_what_a_segment_becomes_depends_on_seed_epoch_and_id_alone(segments):
    settings = {"crop_seconds": 0.5, **LOUD}
    dataset = data_set(segments, **settings).training()
    first, second = samples(dataset, 0), samples(dataset, 1)
    again = data_set(segments, **settings).training()
    assert same(samples(again, 1, range(8, -1, -1))[::-1], second)  # in any order
    assert same(samples(again, 0), first)
    assert not same(first, second)
    assert not same(samples(data_set(segments, seed=1, **settings).training()), first)
    renamed = [dataclasses.replace(s, segment_id=f"x{s.segment_id}") for s in segments]
    assert not same(samples(data_set(renamed, **settings).training()), first)


def test_what_is_scored_is_never_altered(segments):
    dataset = data_set(segments, crop_seconds=0.5, channel_prob=1.0, **LOUD)
    expected = [recorded(segment) for segment in segments]
    assert not same(samples(dataset.training()), expected)
    assert same(samples(dataset), expected)
    assert dataset.seconds == pytest.approx(SECONDS)


def test_a_random_channel_is_one_of_the_recordings(segments):
    held, _ = load_samples(segments, ReadOptions())
    dataset = data_set(segments, held, channel_prob=1.0).training()
    seen = set()
    for epoch in range(3):
        for row, segment in zip(samples(dataset, epoch), segments, strict=True):
            seen |= {c for c in (0, 1) if np.array_equal(row, recorded(segment, c))}
    assert seen == {0, 1}


def test_a_silent_channel_gives_way_to_the_runs_own(tmp_path):
    path, rng = str(tmp_path / "r.wav"), np.random.default_rng(1)
    both = np.stack([0.1 * rng.standard_normal(RATE), np.zeros(RATE)], axis=1)
    soundfile.write(path, both, RATE, subtype="FLOAT")
    dataset = data_set([Segment("s", path, 0.0, 1.0)], channel_prob=1.0).training()
    for epoch in range(6):
        assert np.array_equal(samples(dataset, epoch, (0,))[0], both[:, 0].astype(np.float32))


def test_one_that_speed_makes_too_short_stays_as_it_was(segments):
    short = dataclasses.replace(segments[0], end=segments[0].start + 410 / RATE)
    dataset = data_set([short], speed_prob=1.0, speed_factors="2").training()
    assert np.array_equal(samples(dataset, 0, (0,))[0], recorded(short))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on one core
def test_other_processes_give_the_same_bytes(segments):
    settings = {"batch_seconds": 2.0, "crop_seconds": 0.6, **LOUD}
    epochs = []
    for workers in (0, 2):
        config = FinetuneConfig(workers=workers, **settings)
        loader = make_loader(
            data_set(segments, **settings).training(), config, shuffled=True, epoch=1
        )
        epochs.append([*loader])
    for here, there in zip(*epochs, strict=True):
        assert here.ask == there.ask
        assert here.ask.epoch == 1
        assert here.codes.tolist() == there.codes.tolist()
        assert same(here.waveforms, there.waveforms)


class Interrupting(SegmentDataset):
    """Ctrl-C comes in the middle of each batch."""

    def __getitem__(self, ask):
        os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(ask)


def test_ctrl_c_is_the_training_process_own_affair(segments):
    dataset = Interrupting(segments, np.zeros(9), ReadOptions(), {}, FinetuneConfig())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        found = [*make_loader(dataset, FinetuneConfig(workers=1, batch_seconds=2.0))]
    finally:
        signal.signal(signal.SIGINT, before)
    assert sorted(place for batch in found for place in batch.ask.places) == [*range(9)]
