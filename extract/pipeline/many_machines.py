"""Run an extraction on several machines, as tasks of Ray.

The driver cuts the table into units, asks the store which segments are there, and sends the rest.
A task decodes, encodes and writes the shards of its unit under temporary names into the store's
folder, on disk when it returns their names; the driver, which holds the store's lock, renames them,
which commits them. Rows never pass through the driver, and a task that outlives its driver commits
nothing: the next writer removes its files.
"""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.engine.folders import check_machines
from ...common.engine.ray_engine import run_units
from ...common.engine.ray_session import unit_resources
from ...common.engine.running import count_lost_tries, under_way
from ...common.engine.work import FailedUnit, Job, Unit
from ...common.errors import InputError
from ..audio import Segment, group_by_span
from ..options import ExtractOptions
from ..store.layout import fingerprint
from ..store.reader import FeatureStore
from ..store.same_audio import AudioIndex
from ..store.shard_writer import ShardWriter, UnnamedShard
from ..store.writer import StoreWriter
from .batching import make_batches, padding, unfinished_batches
from .multi_device import WorkerSpec, load_for
from .runner import DECODERS, ExtractionRun, Progress
from .units import Batches, cut_units, extraction_unit, unit_mark, unit_name

if TYPE_CHECKING:
    from ..encoder.encoder import Encoder

UNIT_ROWS = 1 << 14  # segments of a shard at most; 256 MB come first where rows are large
ALONE = (
    ", or run each machine by itself with --shard i/n into a store of its own, then spk-store merge"
)
ENVIRONMENT = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "HF_HUB_OFFLINE")  # what tasks take over


@dataclass(frozen=True)
class UnitSpec:
    """What every unit needs: the worker's post, pickled, the store, and environment variables."""

    post: bytes
    store: str
    environment: dict[str, str]


@dataclass(frozen=True)
class UnitResult:
    """What a task returns: its shards' names, its counts, and what went wrong."""

    shards: tuple[UnnamedShard, ...] = ()
    new: int = 0
    seconds: float = 0.0  # of audio encoded
    shared: int = 0
    notes: tuple[str, ...] = ()
    problem: str = ""  # what the user can repair
    trace: str = ""  # of a bug


class RayRun(ExtractionRun):
    """A run on the machines of a Ray."""

    def __init__(
        self,
        encoder: Encoder,
        layers: Sequence[int],
        options: ExtractOptions,
        writer: StoreWriter,
        log: Callable[[str], object],
    ) -> None:
        from ..encoder.device import shared_batch_seconds

        super().__init__(encoder, layers, options, writer, log)
        if self._on_gpu and options.batch_seconds is None:
            names, dtype = [str(encoder.device)], encoder.provenance()["compute_dtype"]
            self.batch_seconds = shared_batch_seconds(names, dtype)
        self._store, self._layers = writer, tuple(layers)
        self._unit_of: dict[str, int] = {}  # first segment_id of a batch -> place of its unit
        self._notes = set[str]()
        self.devices = "Ray"

    def plan(self, segments: Sequence[Segment]) -> list[list[Segment]]:
        """Return the batches of the `segments` that the store lacks, unit by unit."""
        options, writer = self._options, self._writer
        cut = partial(make_batches, batch_seconds=self.batch_seconds)
        passed = set() if options.retry_rejected else set(writer.rejections)
        segments = group_by_span(segments, self._reading.channel, writer.done | passed)
        planned: list[list[Segment]] = []
        for place, unit in enumerate(cut_units(segments, options.unit_minutes)):
            batches = unfinished_batches(unit, writer.done, passed, cut)
            self._unit_of |= {batch[0].segment_id: place for batch in batches}
            planned += batches
        self.padding = padding(planned)
        return planned

    def encode(
        self, batches: Iterable[Sequence[Segment]], stop: Callable[[], bool], progress: Progress
    ) -> bool:
        """Have the units of batches encoded, and commit their shards."""
        units = self._units(batches)
        if not units or stop():
            return bool(units)
        stopped, failed = run_units(
            self._options.ray_address, partial(self._job, units, progress), stop, self._tell
        )
        self.failed += failed
        return stopped

    def _job(self, units: Sequence[Unit], progress: Progress, ray: object) -> Job:
        self._check_folders(ray, units)
        resources = unit_resources(ray, gpus=self._on_gpu, cores=DECODERS, option="--device")
        publish = partial(self._publish, progress)
        return Job(extract_unit, self._spec(), units, publish, self._discard, resources)

    def _units(self, batches: Iterable[Sequence[Segment]]) -> list[Unit]:
        grouped = groupby(map(list, batches), lambda batch: self._unit_of[batch[0].segment_id])
        key = fingerprint(self._store.config)
        return [extraction_unit(list(unit), key) for _, unit in grouped]

    def _publish(self, progress: Progress, unit: Unit, result: UnitResult) -> None:
        """Commit what a unit has written; raise what a run on one device would have raised."""
        for shard in result.shards:
            self._store.publish(shard)
        self.again += count_lost_tries(self._store.path, unit_mark(unit.payload))
        self.new += result.new
        self.shared += result.shared
        self.seconds += result.seconds
        for note in result.notes:
            if note not in self._notes:
                self._notes.add(note)
                self._tell(note)
        if result.problem:
            raise InputError(result.problem)
        if result.trace:
            self.failed.append(FailedUnit(unit, result.trace.splitlines()[-1]))
            self._tell(f"failed: {unit.name}\n{result.trace}")
        progress(sum(segment.duration for batch in unit.payload for segment in batch))

    def _discard(self, result: UnitResult) -> None:
        for shard in result.shards:
            with suppress(OSError):
                (self._store.path / "shards" / shard.temporary).unlink()

    def _spec(self) -> UnitSpec:
        options = self._options
        if os.path.isdir(options.encoder):
            options = replace(options, encoder=os.path.abspath(options.encoder))
        options = replace(
            options,
            device="cuda:0" if self._on_gpu else "cpu",
            batch_seconds=self.batch_seconds,
        )
        post = WorkerSpec(
            "a worker of Ray",
            options,
            self._layers,
            self._encoder.provenance(),
            os.path.abspath(self._store.path),
            self._store.config,
            self._store.versions,
            threads=1,
            begun=None,
        )
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        return UnitSpec(pickle.dumps(post), str(post.store), environment)

    @property
    def _on_gpu(self) -> bool:
        return str(self._encoder.device).startswith("cuda")

    def _check_folders(self, ray: object, units: Sequence[Unit]) -> None:
        """Raise `InputError` where a machine does not see the store, the audio or the encoder."""
        paths = sorted({s.path for unit in units for batch in unit.payload for s in batch})
        encoder = os.path.abspath(self._options.encoder)
        inputs = [(f"the audio {path}", path) for path in dict.fromkeys((paths[0], paths[-1]))]
        inputs.append((f"the encoder {encoder}", os.path.join(encoder, "config.json")))
        folder = Path(os.path.abspath(self._store.path), "shards")
        check_machines(ray, folder, inputs, packages=("spk-toolkit",), otherwise=ALONE)


def extract_unit(spec: UnitSpec, batches: Batches) -> UnitResult:
    """Encode a unit's batches into shards without final names, in a process of Ray."""
    os.environ.update(spec.environment)
    with under_way(Path(spec.store), unit_mark(batches), unit_name(batches)):
        return _encode_unit(spec, batches)


def _encode_unit(spec: UnitSpec, batches: Batches) -> UnitResult:
    shards: list[UnnamedShard] = []
    notes: list[str] = []
    job, result = None, UnitResult()
    try:
        post, encoder, index = _station(spec.post)
        from ..encoder.device import convert

        writer = ShardWriter(
            post.store,
            post.config,
            shards.append,
            versions=post.versions,
            commit_rows=UNIT_ROWS,
            commit_seconds=float("inf"),
            convert=convert,
        )
        job = ExtractionRun(encoder, post.layers, post.options, writer, notes.append, index)
        try:
            job.encode(batches, lambda: False, lambda seconds: None)
        finally:  # an error does not lose the rows already encoded
            writer.commit()
    except InputError as problem:
        result = UnitResult(problem=str(problem))
    except Exception:
        result = UnitResult(trace=traceback.format_exc())
    counts = (job.new, job.seconds, job.shared) if job else (0, 0.0, 0)
    new, seconds, shared = counts
    return replace(
        result,
        shards=tuple(shards),
        new=new,
        seconds=seconds,
        shared=shared,
        notes=tuple(notes),
    )


@lru_cache(maxsize=1)
def _station(pickled: bytes) -> tuple[WorkerSpec, Encoder, AudioIndex]:
    """Return what a process loads once: its post, the encoder, and the samples in the store."""
    post: WorkerSpec = pickle.loads(pickled)  # noqa: S301 (of this run's own driver)
    return post, load_for(post), AudioIndex(FeatureStore.open(post.store))
