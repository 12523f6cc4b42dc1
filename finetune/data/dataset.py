"""Batches of waveforms for a task's segments: read, sorted by length, batched by seconds, shuffled.

Which segments share a batch depends only on the table and the settings; each epoch merely shuffles
the batches. What an epoch does to a segment (crop, augmentation) is drawn from the seed, the epoch
and the segment's id. An epoch is therefore the same in any process and after any interruption.
Unusable segments are left out, each with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ...common.audio.decoding import read_header
from ...common.errors import InputError
from ...common.signals import ignore_sigint
from ...extract.audio import (
    Audio,
    ReadOptions,
    Rejected,
    Segment,
    check_recordings,
    check_recordings_exist,
    read_segment,
    segments_of,
)
from ...extract.pipeline.batching import make_batches, read_batches
from ...manifests.splits.tasks import Task
from ..config import FinetuneConfig
from .augment import Augmenter, draw_channel, rng_of

if TYPE_CHECKING:
    import pandas as pd

    from ...extract.encoder.loading import LoadedEncoder
    from ..model.encoder import PartlyFrozenEncoder


MOST_CACHED = 4 << 30  # bytes of decoded samples to keep in memory; the rest is read each time
THREADS = 2  # decoding threads of the first pass
READ_AT_ONCE = 60.0  # s


@dataclass(frozen=True)
class BatchIndex:
    """A batch to be made: the indices of its segments, in an epoch; `number` identifies it."""

    epoch: int
    number: int
    places: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch: mono float32 waveforms and their codes (n,) int64 (-1: unknown)."""

    ask: BatchIndex
    waveforms: list[np.ndarray]
    codes: torch.Tensor

    @property
    def samples(self) -> int:
        """Number of samples, including padding."""
        return len(self.waveforms) * max(map(len, self.waveforms))


class BatchSampler(Sampler[BatchIndex]):
    """Yields the batches of a split, in the order of an epoch.

    Parameters
    ----------
    seconds : (n,) s
        Length of each segment, as it will be read.
    shuffled : bool
        Whether each epoch has another order (for training). The first epoch begins with the
        largest batch, so that a lack of memory shows at once.
    part : (rank, ranks)
        On several devices, each takes every `ranks`-th batch; some batches are taken twice, so that
        all take the same number.
    """

    def __init__(
        self,
        seconds: Sequence[float],
        config: FinetuneConfig,
        *,
        shuffled: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__()
        self._batches = batch_indices(seconds, config.batch_seconds, config.batch_size)
        self._seed, self._shuffled, self._part = config.seed, shuffled, part
        sizes = [len(batch) * max(seconds[i] for i in batch) for batch in self._batches]
        self._largest = int(np.argmax(sizes))
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch (from 0) of the next iteration."""
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._batches) / self._part[1])

    def __iter__(self) -> Iterator[BatchIndex]:
        order = np.arange(len(self._batches))
        if self._shuffled:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(order)
            if self._epoch == 0:
                order = np.append(self._largest, order[order != self._largest])
        rank, ranks = self._part
        for number in np.resize(order, len(self) * ranks)[rank::ranks]:
            yield BatchIndex(self._epoch, int(number), self._batches[number])


def batch_indices(
    seconds: Sequence[float], batch_seconds: float, batch_size: int | None
) -> list[tuple[int, ...]]:
    """Batch the indices of segments, from long to short, so that longest x number fits.

    A last batch of one segment gets another from the batch before, if that has some to spare.
    """
    batches: list[list[int]] = []
    longest = 0.0
    for place in sorted(range(len(seconds)), key=lambda i: (-seconds[i], i)):
        full = bool(batches) and len(batches[-1]) == batch_size
        if not batches or full or longest * (len(batches[-1]) + 1) > batch_seconds:
            batches.append([])
            longest = seconds[place]
        batches[-1].append(place)
    if len(batches) > 1 and len(batches[-1]) == 1 and len(batches[-2]) > 2:
        batches[-1].insert(0, batches[-2].pop())
    return [tuple(batch) for batch in batches]


class SegmentDataset(Dataset[Batch]):
    """The segments of one split; ``dataset[ask]`` reads (and for training augments) a batch.

    Parameters
    ----------
    codes : (n,) int64
        Codes of the segments; -1 if the label is not in train.
    cached : {segment_id: samples}
        Samples in memory; other segments are read each time.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        codes: np.ndarray,
        read_options: ReadOptions,
        cached: Mapping[str, np.ndarray],
        config: FinetuneConfig,
    ) -> None:
        self.segments, self.codes = list(segments), np.asarray(codes)
        self._read_options, self._cached, self._config = read_options, cached, config
        self._augmenter: Augmenter | None = None

    def training(self) -> SegmentDataset:
        """Return the same segments with cropping and augmentation, as the settings say."""
        dataset = SegmentDataset(
            self.segments, self.codes, self._read_options, self._cached, self._config
        )
        dataset._augmenter = Augmenter(self._config, self._read_options.rate)
        return dataset

    @property
    def seconds(self) -> list[float]:
        """Length of each segment as read, in s (before a change of speed)."""
        most = self._config.crop_seconds if self._augmenter else None
        return [min(s.duration, most) if most else s.duration for s in self.segments]

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, ask: BatchIndex) -> Batch:
        chosen = [self.segments[place] for place in ask.places]
        if self._augmenter is None:
            waveforms = [self._read(segment) for segment in chosen]
        else:
            waveforms = [self._alter(segment, ask.epoch, self._augmenter) for segment in chosen]
        return Batch(ask, waveforms, torch.from_numpy(self.codes[list(ask.places)]))

    def _alter(self, segment: Segment, epoch: int, augmenter: Augmenter) -> np.ndarray:
        """Return a segment's samples, cropped and augmented for an epoch."""
        rng = rng_of(self._config.seed, epoch, segment.segment_id)
        samples = self._crop(self._any_channel(segment, rng), rng)
        altered = augmenter(samples, rng)
        # A sped-up segment may be too short for the front end.
        return altered if len(altered) >= self._read_options.shortest else samples

    def _read(self, segment: Segment, channel: str | None = None) -> np.ndarray:
        if channel is None and segment.segment_id in self._cached:
            return self._cached[segment.segment_id]
        read_options = replace(self._read_options, channel=channel or self._read_options.channel)
        try:
            return read_segment(segment, read_options).samples
        except Rejected as rejection:
            raise InputError(
                f"{segment.segment_id}: {rejection.code}: {rejection.message}, expected what was "
                "there when the run began; put the recording back"
            ) from None

    def _any_channel(self, segment: Segment, rng: np.random.Generator) -> np.ndarray:
        fixed = segment.channel or not self._config.channel_prob
        channel = draw_channel(self._config, 1 if fixed else _channels(segment.path), rng)
        if segment.channel:  # the speaker's own channel
            channel = None
        try:
            return self._read(segment, channel)
        except InputError:
            if channel is None:
                raise
            return self._read(segment)  # the other microphone may have been silent

    def _crop(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        seconds = self._config.crop_seconds
        if seconds is None:
            return samples
        most = max(round(seconds * self._read_options.rate), self._read_options.shortest)
        start = int(rng.integers(0, max(len(samples) - most, 0) + 1))
        return samples[start : start + most]


@cache
def _channels(path: str) -> int:
    return read_header(path).channels


def make_loader(
    dataset: SegmentDataset,
    config: FinetuneConfig,
    *,
    shuffled: bool = False,
    epoch: int = 0,
    part: tuple[int, int] = (0, 1),
) -> DataLoader[Batch]:
    """Return the loader of a split's batches, starting at an epoch."""
    batches = BatchSampler(dataset.seconds, config, shuffled=shuffled, part=part)
    batches.set_epoch(epoch)
    return DataLoader(
        dataset,
        sampler=batches,  # yields whole batches, hence batch_size None
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=config.workers,
        worker_init_fn=_ignore_sigint,
        # Otherwise each new iterator would draw from the generator that dropout uses.
        generator=torch.Generator(),
        persistent_workers=config.workers > 0,
    )


def _ignore_sigint(_number: int) -> None:
    ignore_sigint()  # the process that trains ends it


def _as_it_is(batch: Any) -> Any:
    return batch


def load_samples(
    segments: Sequence[Segment], read_options: ReadOptions, most: int = MOST_CACHED
) -> tuple[dict[str, np.ndarray], dict[str, Rejected]]:
    """Read every segment once; return up to `most` bytes of samples, and the rejected segments.

    Raises
    ------
    InputError
        A recording's rate or channels do not match the options.
    """
    cached: dict[str, np.ndarray] = {}
    rejected: dict[str, Rejected] = {}
    size = 0
    for read in read_batches(make_batches(segments, READ_AT_ONCE), read_options, workers=THREADS):
        for segment, result in read:
            if not isinstance(result, Audio):
                rejected[segment.segment_id] = result
            elif size + result.nbytes <= most:
                cached[segment.segment_id] = result.samples
                size += result.nbytes
    return cached, rejected


def encoder_read_options(
    parts: LoadedEncoder | PartlyFrozenEncoder, config: FinetuneConfig
) -> ReadOptions:
    """Return the options for reading segments; refuse a `sample_rate` other than the encoder's."""
    if config.sample_rate not in (None, parts.rate):
        raise InputError(
            f"--sample-rate: value is {config.sample_rate} Hz, expected {parts.rate} Hz, the "
            "encoder's; leave it out (recordings of another rate: --resample)"
        )
    return ReadOptions(parts.rate, config.channel, config.resample, parts.front.shortest)


def data_sets(
    task: Task, table: pd.DataFrame, read_options: ReadOptions, config: FinetuneConfig
) -> tuple[dict[str, SegmentDataset], dict[str, str]]:
    """Return each split's usable segments, and {segment id: why not} for the others."""
    segments = segments_of(table, config.audio_root)
    chosen = [segments[i] for part in task.rows.values() for i in part]
    check_recordings_exist(chosen, config.audio_root)
    check_recordings(chosen, read_options)
    cached, rejected = load_samples(chosen, read_options)
    sets = {}
    for split, rows in task.rows.items():
        good = np.array([segments[i].segment_id not in rejected for i in rows], dtype=bool)
        usable = [segments[i] for i in rows[good]]
        sets[split] = SegmentDataset(usable, task.codes[split][good], read_options, cached, config)
    return sets, {name: _why(rejection) for name, rejection in rejected.items()}


def _why(rejection: Rejected) -> str:
    return f"{rejection.code}: {rejection.message}"


def why_untrainable(task: Task, sets: dict[str, SegmentDataset]) -> str:
    """Return why a task cannot be trained without its rejected segments, or ""."""
    for split, dataset in sets.items():
        if not len(dataset):
            return f"no {split} segments: all {len(task.rows[split])} were rejected"
    if (sets["valid"].codes < 0).all():
        return "no validation segment of a speaker in train"
    left = len(set(sets["train"].codes.tolist()))
    return "" if left >= 2 else f"{left} speaker in train, the others' segments were rejected"
