"""A task's segments become batches of waveforms: read, sorted by length, cut by seconds, shuffled.

Which segments share a batch depends on the table and the settings alone; each epoch only shuffles
the batches. What an epoch does to a segment (crop, augmentation) is drawn from the seed, the epoch
and the segment's id. So an epoch is the same whoever reads it, in whatever process, after whatever
interruption. Segments that cannot be used are left out, each with its reason.
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


HELD = 4 << 30  # bytes of decoded samples that are kept in memory; what is beyond is read each time
THREADS = 2  # that decode in the first reading
READ_AT_ONCE = 60.0  # s


@dataclass(frozen=True)
class BatchIndex:
    """One batch to be made: the places of its segments, at an epoch; `number` names the batch."""

    epoch: int
    number: int
    places: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """Segments of one batch: mono float32 waveforms, and their codes (n,) int64 (-1: unknown)."""

    ask: BatchIndex
    waveforms: list[np.ndarray]
    codes: torch.Tensor

    @property
    def samples(self) -> int:
        """Samples of the batch, padding counted."""
        return len(self.waveforms) * max(map(len, self.waveforms))


class BatchSampler(Sampler[BatchIndex]):
    """The batches of a split, in the order of an epoch.

    Parameters
    ----------
    seconds : (n,) s
        Length of each segment, as it will be read.
    shuffled : bool
        Training: another order each epoch. The first begins with the largest batch, so that one
        that is too large for the device shows at once.
    part : (rank, ranks)
        Of a run on several devices: each takes every `ranks`-th batch, and all the same number, for
        which some are taken twice.
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
        """Choose the epoch (from 0) whose order is given next."""
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
    """Return places of segments, from long to short, cut so that longest x number fits.

    A segment alone at the end is joined by one of the batch before, if that has others left.
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
    """The segments of one split; ``dataset[ask]`` reads (and in training alters) a batch.

    Parameters
    ----------
    codes : (n,) int64
        Of the segments; -1 where the label is not in train.
    held : {segment_id: samples}
        Samples in memory; what is not there is read each time.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        codes: np.ndarray,
        reading: ReadOptions,
        held: Mapping[str, np.ndarray],
        config: FinetuneConfig,
    ) -> None:
        self.segments, self.codes = list(segments), np.asarray(codes)
        self._reading, self._held, self._config = reading, held, config
        self._augmenter: Augmenter | None = None

    def training(self) -> SegmentDataset:
        """Return the same segments, cropped and augmented as the settings say."""
        dataset = SegmentDataset(self.segments, self.codes, self._reading, self._held, self._config)
        dataset._augmenter = Augmenter(self._config, self._reading.rate)
        return dataset

    @property
    def seconds(self) -> list[float]:
        """Length of each segment as it is read, in s (speed aside)."""
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
        """Return a segment's samples as this epoch has them."""
        rng = rng_of(self._config.seed, epoch, segment.segment_id)
        samples = self._crop(self._any_channel(segment, rng), rng)
        altered = augmenter(samples, rng)
        # A faster one may be too short for the front end.
        return altered if len(altered) >= self._reading.shortest else samples

    def _read(self, segment: Segment, channel: str | None = None) -> np.ndarray:
        if channel is None and segment.segment_id in self._held:
            return self._held[segment.segment_id]
        reading = replace(self._reading, channel=channel or self._reading.channel)
        try:
            return read_segment(segment, reading).samples
        except Rejected as found:
            raise InputError(
                f"{segment.segment_id}: {found.code}: {found.message}, expected what was there "
                "when the run began; put the recording back"
            ) from None

    def _any_channel(self, segment: Segment, rng: np.random.Generator) -> np.ndarray:
        fixed = segment.channel or not self._config.channel_prob
        channel = draw_channel(self._config, 1 if fixed else _channels(segment.path), rng)
        if segment.channel:  # the speaker is on that one
            channel = None
        try:
            return self._read(segment, channel)
        except InputError:
            if channel is None:
                raise
            return self._read(segment)  # another microphone may have been silent

    def _crop(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        seconds = self._config.crop_seconds
        if seconds is None:
            return samples
        most = max(round(seconds * self._reading.rate), self._reading.shortest)
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
    """Return the loader of a split's batches, beginning at an epoch."""
    batches = BatchSampler(dataset.seconds, config, shuffled=shuffled, part=part)
    batches.set_epoch(epoch)
    return DataLoader(
        dataset,
        sampler=batches,  # of whole batches: batch_size None asks the data set for each
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=config.workers,
        worker_init_fn=_ignore_sigint,
        # Else each new iterator takes a number from the generator that dropout draws from.
        generator=torch.Generator(),
        persistent_workers=config.workers > 0,
    )


def _ignore_sigint(_number: int) -> None:
    ignore_sigint()  # the process that trains ends it


def _as_it_is(batch: Any) -> Any:
    return batch


def load_samples(
    segments: Sequence[Segment], reading: ReadOptions, most: int = HELD
) -> tuple[dict[str, np.ndarray], dict[str, Rejected]]:
    """Read every segment once; return the samples of the first `most` bytes, and the rejected.

    Raises
    ------
    InputError
        A recording's rate or channels are not what the run was told.
    """
    held: dict[str, np.ndarray] = {}
    rejected: dict[str, Rejected] = {}
    size = 0
    for read in read_batches(make_batches(segments, READ_AT_ONCE), reading, workers=THREADS):
        for segment, found in read:
            if not isinstance(found, Audio):
                rejected[segment.segment_id] = found
            elif size + found.nbytes <= most:
                held[segment.segment_id] = found.samples
                size += found.nbytes
    return held, rejected


def reading_of(parts: LoadedEncoder | PartlyFrozenEncoder, config: FinetuneConfig) -> ReadOptions:
    """Return how segments are read; refuse a `sample_rate` that is not the encoder's."""
    if config.sample_rate not in (None, parts.rate):
        raise InputError(
            f"--sample-rate: value is {config.sample_rate} Hz, expected {parts.rate} Hz, the "
            "encoder's; leave it out (recordings of another rate: --resample)"
        )
    return ReadOptions(parts.rate, config.channel, config.resample, parts.front.shortest)


def data_sets(
    task: Task, table: pd.DataFrame, reading: ReadOptions, config: FinetuneConfig
) -> tuple[dict[str, SegmentDataset], dict[str, str]]:
    """Return each split's usable segments, and why others are not."""
    segments = segments_of(table, config.audio_root)
    chosen = [segments[i] for part in task.rows.values() for i in part]
    check_recordings_exist(chosen, config.audio_root)
    check_recordings(chosen, reading)
    held, rejected = load_samples(chosen, reading)
    sets = {}
    for split, rows in task.rows.items():
        good = np.array([segments[i].segment_id not in rejected for i in rows], dtype=bool)
        kept = [segments[i] for i in rows[good]]
        sets[split] = SegmentDataset(kept, task.codes[split][good], reading, held, config)
    return sets, {name: _why(found) for name, found in rejected.items()}


def _why(found: Rejected) -> str:
    return f"{found.code}: {found.message}"


def why_untrainable(task: Task, sets: dict[str, SegmentDataset]) -> str:
    """Return why a task cannot be trained once the rejected segments are gone."""
    for split, found in sets.items():
        if not len(found):
            return f"no {split} segments: all {len(task.rows[split])} were rejected"
    if (sets["valid"].codes < 0).all():
        return "no validation segment of a speaker in train"
    left = len(set(sets["train"].codes.tolist()))
    return "" if left >= 2 else f"{left} speaker in train, the others' segments were rejected"
