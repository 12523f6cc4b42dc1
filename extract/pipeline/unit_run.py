"""The main process of a run that an engine does in units, on one machine or several.

It checks what the store has, sends the rest in units, and commits what workers have written
(`unit_worker`): it alone holds the store's lock, and a commit renames a shard. A unit is published
once, whatever happened to the processes that worked on it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ...common.engine.running import count_lost_tries
from ...common.engine.work import Done, FailedUnit, Job, Resources, Unit, tell_failed
from ..audio import Segment
from ..options import ExtractOptions
from ..profiling import current_profile
from ..store.layout import fingerprint
from ..store.writer import StoreWriter
from .runner import ExtractionRun, Progress
from .unit_worker import UnitResult, UnitSpec, WorkerSpec, extract_unit
from .units import extraction_unit, unit_mark

if TYPE_CHECKING:
    from ..encoder.encoder import Encoder

SAME_BUG = 3  # units that may fail by a bug before any yields rows; one more ends the run


class UnitRun(ExtractionRun):
    """A run whose batches are encoded in units, by other processes.

    Its batches fit each of the devices `names` of one machine, such as ``cuda:0``.
    """

    def __init__(
        self,
        names: Sequence[str],
        encoder: Encoder,
        layers: Sequence[int],
        options: ExtractOptions,
        writer: StoreWriter,
        log: Callable[[str], object],
    ) -> None:
        from ..encoder.device import shared_batch_seconds

        super().__init__(encoder, layers, options, writer, log)
        fitting = shared_batch_seconds(names, encoder.provenance()["compute_dtype"])
        self.batch_seconds = options.batch_seconds or fitting
        self._names, self.devices = tuple(names), ", ".join(names)
        self._store, self._layers = writer, tuple(layers)
        self._key = fingerprint(writer.config)
        self._notes = set[str]()

    def job(
        self,
        shared: Any,
        units: Iterable[Unit],
        progress: Progress,
        resources: Resources | None = None,
    ) -> Job:
        """Return the description of the job, for an engine."""
        publish = partial(self._publish, progress)
        resources = resources or Resources()
        return Job(extract_unit, shared, units, publish, self._discard, resources)

    def unit(self, batches: Iterable[Sequence[Segment]]) -> Unit:
        """Return the unit for batches that are still to be encoded."""
        return extraction_unit([list(batch) for batch in batches], self._key)

    def spec(
        self, device: str, *, name: str = "", workers: int | None = None, threads: int = 1
    ) -> UnitSpec:
        """Return what a worker process on a device needs; messages call the device `name`."""
        options, profile = self._options, current_profile()
        workers = options.workers if workers is None else workers
        worker = WorkerSpec(
            name,
            replace(options, device=device, workers=workers, batch_seconds=self.batch_seconds),
            self._layers,
            self._encoder.provenance(),
            str(self._store.path),
            self._store.config,
            self._store.versions,
            threads,
            profile.begun if profile else None,
        )
        return UnitSpec(pickle.dumps(worker), worker.store)

    def _publish(self, progress: Progress, unit: Unit, done: Done) -> None:
        """Commit what a unit has written; raise what a run on one device would have raised."""
        result: UnitResult = done.value
        for shard in result.shards:
            self._store.publish(shard)
        self._count(unit, result)
        for note in dict.fromkeys(result.notes):
            if note not in self._notes:
                self._notes.add(note)
                self._tell(note)
        done.get()
        if done.trace:
            self._fail(unit, done.trace)
        progress(sum(segment.duration for batch in unit.payload for segment in batch))

    def _count(self, unit: Unit, result: UnitResult) -> None:
        self.again += count_lost_tries(self._store.path, unit_mark(unit.payload))
        self.new += result.new
        self.shared += result.shared
        self.seconds += result.seconds
        if profile := current_profile():
            profile.stages += result.stages

    def _fail(self, unit: Unit, trace: str) -> None:
        """Report a unit that met a bug; end the run if all units have so far."""
        reason = trace.splitlines()[-1]
        self.failed.append(FailedUnit(unit, reason))
        if not self.new and len(self.failed) > SAME_BUG:
            raise RuntimeError(reason) from RuntimeError(f"in a worker:\n{trace}")
        self._tell(f"failed: {unit.name}\n{trace}")

    def _finish(self, given_up: Sequence[FailedUnit]) -> None:
        """List once more the units that met a bug, after those that the engine has given up."""
        tell_failed(self.failed, self._tell)
        self.failed += given_up

    def _discard(self, done: Done) -> None:
        for shard in done.value.shards:
            with suppress(OSError):
                (self._store.path / "shards" / shard.temporary).unlink()
