"""Run an extraction on several machines, as Ray tasks.

Units are cut from the whole table; a task encodes one with the encoder that its process has loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.engine.folders import check_machines, working_folder
from ...common.engine.ray_engine import run_units
from ...common.engine.ray_session import unit_resources
from ...common.engine.work import Job, Unit
from ..audio import Segment, group_by_span
from ..options import ExtractOptions
from ..store.writer import StoreWriter
from .batching import make_batches, padding, unfinished_batches
from .runner import DECODERS, Progress
from .unit_run import UnitRun
from .units import cut_units

if TYPE_CHECKING:
    from ..encoder.encoder import Encoder

ALONE = (
    ", or run each machine by itself with --shard i/n into a store of its own, then spk-store merge"
)
ENVIRONMENT = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "HF_HUB_OFFLINE")  # passed on to tasks


class RayRun(UnitRun):
    """A run on the machines of a Ray cluster."""

    def __init__(
        self,
        encoder: Encoder,
        layers: Sequence[int],
        options: ExtractOptions,
        writer: StoreWriter,
        log: Callable[[str], object],
    ) -> None:
        super().__init__([str(encoder.device)], encoder, layers, options, writer, log)
        self._unit_of: dict[str, int] = {}  # first segment_id of a batch -> index of its unit
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
        """Have units of batches encoded, and commit their shards."""
        grouped = groupby(batches, lambda batch: self._unit_of[batch[0].segment_id])
        units = [self.unit(unit) for _, unit in grouped]
        if not units or stop():
            return bool(units)
        stopped, failed = run_units(
            self._options.ray_address, partial(self._describe, units, progress), stop, self._tell
        )
        self._finish(failed)
        return stopped

    def _describe(self, units: Sequence[Unit], progress: Progress, ray: object) -> Job:
        folder = self._working_folder(units)
        self._check_folders(ray, units, folder)
        resources = unit_resources(ray, gpus=self._on_gpu, cores=DECODERS, option="--device")
        device = "cuda:0" if self._on_gpu else "cpu"
        environment = environment_of_tasks()
        spec = replace(self.spec(device), folder=folder, environment=environment)
        return self.job(spec, units, progress, resources)

    @property
    def _on_gpu(self) -> bool:
        return str(self._encoder.device).startswith("cuda")

    def _working_folder(self, units: Sequence[Unit]) -> str:
        """Return the folder that relative paths start from; "" if there are none."""
        paths = {str(self._store.path), *recordings_of(units)}
        if os.path.isdir(self._options.encoder):
            paths.add(self._options.encoder)
        return "" if all(map(os.path.isabs, paths)) else os.getcwd()

    def _check_folders(self, ray: object, units: Sequence[Unit], folder: str) -> None:
        """Raise `InputError` if a machine does not see the store, the audio or the encoder."""
        paths = [os.path.abspath(path) for path in recordings_of(units)]
        encoder = os.path.abspath(self._options.encoder)
        inputs = [(f"the audio {path}", path) for path in dict.fromkeys((paths[0], paths[-1]))]
        inputs += working_folder(folder)
        inputs.append((f"the encoder {encoder}", os.path.join(encoder, "config.json")))
        shards = Path(os.path.abspath(self._store.path), "shards")
        check_machines(ray, shards, inputs, packages=("spk-toolkit",), otherwise=ALONE)


def recordings_of(units: Sequence[Unit]) -> list[str]:
    """Return the paths of the units' recordings, sorted."""
    return sorted({s.path for unit in units for batch in unit.payload for s in batch})


def environment_of_tasks() -> dict[str, str]:
    """Return the environment variables of this process that are passed on to tasks."""
    return {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
