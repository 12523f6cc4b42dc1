"""Encode a unit of batches in an engine's worker process, into shards without final names.

A process loads the encoder once. For each unit it writes shards under temporary names into the
store's folder, and returns their names when they are on disk; the process that holds the store's
lock renames them (`unit_run`). Rows never pass between processes, and a worker that outlives its
run commits nothing: the next writer removes its files.
"""

from __future__ import annotations

import os
import pickle
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.engine.folders import work_in
from ...common.engine.running import under_way
from ...common.engine.work import Done
from ...common.errors import InputError
from ..options import ExtractOptions
from ..profiling import Profile, TimedStage, recording, recording_device
from ..store.reader import FeatureStore
from ..store.same_audio import AudioIndex
from ..store.shard_writer import ShardWriter, UnnamedShard
from .runner import ExtractionRun
from .units import Batches, unit_mark, unit_name

if TYPE_CHECKING:
    from ..encoder.encoder import Encoder

UNIT_ROWS = 1 << 14  # most segments of a shard; with large rows, 256 MB is reached first


@dataclass(frozen=True)
class WorkerSpec:
    """What a process needs to work on units.

    `device` is its name in messages, "" if it has none; `begun` is the start of the run's
    profile, if there is one.
    """

    device: str
    options: ExtractOptions
    layers: tuple[int, ...]
    provenance: dict[str, Any]
    store: str
    config: dict[str, Any]
    versions: dict[str, Any]
    threads: int
    begun: float | None = None


@dataclass(frozen=True)
class UnitSpec:
    """What is sent with every unit: a pickled `WorkerSpec`, the store, environment variables.

    `folder` is the base of relative paths, if a process starts in another folder.
    """

    worker: bytes
    store: str
    folder: str = ""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UnitResult:
    """A unit's result: its shards' names, counts, lines for the user, and timed stages."""

    shards: tuple[UnnamedShard, ...] = ()
    new: int = 0
    seconds: float = 0.0  # of audio encoded
    shared: int = 0
    wall: float = 0.0  # s of work, without loading the encoder
    notes: tuple[str, ...] = ()
    stages: tuple[TimedStage, ...] = ()


def extract_unit(
    spec: UnitSpec, batches: Batches, stop: Callable[[], bool] = lambda: False
) -> Done:
    """Encode a unit's batches; after a `stop` or a bug, the `UnitResult` covers those done."""
    os.environ.update(spec.environment)
    try:
        work_in(spec.folder)
    except InputError as problem:
        return Done(UnitResult(), problem=str(problem))
    with under_way(Path(spec.store), unit_mark(batches), unit_name(batches)):
        try:
            return _worker(spec.worker).encode_unit(batches, stop)
        except InputError as problem:
            return Done(UnitResult(), problem=str(problem))
        except Exception:
            return Done(UnitResult(), trace=traceback.format_exc())


@lru_cache(maxsize=1)
def _worker(pickled: bytes) -> UnitWorker:
    """Return a process's `UnitWorker`, made once."""
    return UnitWorker(pickle.loads(pickled))  # noqa: S301 (of this run's own first process)


class UnitWorker(ExtractionRun):
    """A process's own run over units, one at a time.

    Between units it keeps what it has learnt about the device's memory, and the memory itself,
    which would otherwise be cleared for every unit.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        from ..encoder.device import keep_freed_memory

        self._spec, self._notes = spec, list[str]()
        index = AudioIndex(FeatureStore.open(spec.store))
        writer, encoder = self._writer_to([]), load_for(spec)
        super().__init__(encoder, spec.layers, spec.options, writer, self._note, index)
        self._memory = ExitStack()  # open until the process ends
        self._memory.enter_context(keep_freed_memory(encoder.device))

    def encode_unit(self, batches: Batches, stop: Callable[[], bool]) -> Done:
        """Encode a unit; return its `UnitResult`, including what was encoded before a problem."""
        begun, shards = time.perf_counter(), list[UnnamedShard]()
        self._writer, self._notes = self._writer_to(shards), []
        self.new, self.shared, self.seconds = 0, 0, 0.0
        profile = None if self._spec.begun is None else Profile(self._spec.begun)
        done = Done()
        try:
            with recording(profile):
                try:
                    self.encode(batches, stop, lambda seconds: None)
                finally:  # an error does not lose rows already encoded
                    self._writer.commit()
        except InputError as problem:
            done = Done(problem=str(problem))
        except Exception:
            done = Done(trace=traceback.format_exc())
        result = UnitResult(
            tuple(shards),
            self.new,
            self.seconds,
            self.shared,
            time.perf_counter() - begun,
            tuple(self._notes),
            tuple(self._named(stage) for stage in profile.stages) if profile else (),
        )
        return replace(done, value=result)

    def _session(self) -> AbstractContextManager[None]:
        return recording_device(self._encoder.device)

    def _writer_to(self, shards: list[UnnamedShard]) -> ShardWriter:
        from ..encoder.device import convert

        return ShardWriter(
            self._spec.store,
            self._spec.config,
            shards.append,
            versions=self._spec.versions,
            commit_rows=UNIT_ROWS,
            commit_seconds=float("inf"),
            convert=convert,
        )

    def _note(self, line: str) -> None:
        self._notes.append(f"{self._spec.device}: {line}" if self._spec.device else line)

    def _named(self, stage: TimedStage) -> TimedStage:
        return replace(stage, row=f"{self._spec.device} {stage.row}")


def load_for(spec: WorkerSpec) -> Encoder:
    """Return the encoder of a process, on its device.

    Raises
    ------
    InputError
        It is not the encoder that the run began with.
    """
    from ..encoder.device import set_threads_and_device
    from ..encoder.encoder import load_encoder

    options = spec.options
    set_threads_and_device(options.device, spec.threads)
    encoder = load_encoder(
        options.encoder,
        revision=options.revision,
        normalize=options.normalize,
        device=options.device,
        dtype=options.dtype,
    )
    if encoder.provenance() != spec.provenance:
        raise InputError(
            f"{options.encoder}: the encoder on {spec.device or 'a worker of Ray'} differs from "
            "the one that the run began with, expected the same on every device; name a revision, "
            "or pass "
            "--dtype"
        )
    return encoder
