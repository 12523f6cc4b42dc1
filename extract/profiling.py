"""Profile a run: stages timed on their device, written as a text page and a Chrome trace."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.counts import counted
from ..common.cpus import available_cores
from ..common.files import atomic_write

if TYPE_CHECKING:
    import torch

    from .encoder.encoder import Encoder
    from .pipeline.runner import ExtractionRun


STAGES = ("decode", "transfer", "CNN", "layers", "pooling", "writing")
WAITS = ("wait for audio", "wait for writer", "wait for device")


@dataclass(frozen=True)
class TimedStage:
    """One stage of work: `start` and `end` in s since the run began, in one `row` of the trace."""

    stage: str
    row: str
    start: float
    end: float


class Profile:
    """The timed stages of a run's threads and device; any thread may add to it.

    `begun` (in `time.perf_counter`) is another process's if their stages are to be merged.
    """

    def __init__(self, begun: float | None = None) -> None:
        self.begun = time.perf_counter() if begun is None else begun
        self.stages: list[TimedStage] = []  # appending to a list is atomic
        self.timer: _DeviceTimer | None = None  # of a GPU, while one is recorded

    def now(self) -> float:
        """Return s since the run began."""
        return time.perf_counter() - self.begun

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the enclosed block as a stage of this thread."""
        start = self.now()
        try:
            yield
        finally:
            row = threading.current_thread().name
            self.stages.append(TimedStage(name, row, start, self.now()))

    def seconds(self) -> dict[tuple[str, str], float]:
        """Return (row, stage) -> s of that stage, excluding stages nested in it."""
        rows: dict[str, list[TimedStage]] = defaultdict(list)
        for span in self.stages:
            rows[span.row].append(span)
        total: dict[tuple[str, str], float] = defaultdict(float)
        for row, spans in rows.items():
            for stage, own in _own_time(spans):
                total[row, stage] += own
        return dict(total)

    def shares(self) -> dict[str, float]:
        """Return stage -> its share of the total time of `STAGES`."""
        busy = dict.fromkeys(STAGES, 0.0)
        for (_, stage), seconds in self.seconds().items():
            if stage in busy:
                busy[stage] += seconds
        whole = sum(busy.values()) or 1.0
        return {stage: seconds / whole for stage, seconds in busy.items()}

    def page(self, facts: Mapping[str, str]) -> str:
        """Return one page of text: facts of the run, each row's stages, and the busiest row."""
        wall = max((span.end for span in self.stages), default=0.0)
        lines = [f"{name}: {value}" for name, value in facts.items()]
        wide = max((len(span.row) for span in self.stages), default=0) + 2
        lines += ["", f"{'row':<{wide}}{'stage':<18}{'seconds':>9}{'of the run':>12}"]
        busy: dict[str, float] = defaultdict(float)
        for (row, stage), seconds in sorted(self.seconds().items()):
            lines.append(f"{row:<{wide}}{stage:<18}{seconds:>9.2f}{seconds / (wall or 1):>12.1%}")
            busy[row] += seconds if stage not in WAITS else 0.0
        if busy:
            row = max(busy, key=lambda name: busy[name])
            lines += ["", f"busiest row: {row}, {busy[row] / (wall or 1):.1%} of {wall:.2f} s"]
        return "\n".join(lines) + "\n"

    def trace(self) -> str:
        """Return the stages as a Chrome trace (JSON; open it in chrome://tracing or Perfetto)."""
        rows = {row: i for i, row in enumerate(sorted({span.row for span in self.stages}))}
        names = [
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": i, "args": {"name": row}}
            for row, i in rows.items()
        ]
        events = [
            {
                "name": span.stage,
                "ph": "X",
                "pid": 0,
                "tid": rows[span.row],
                "ts": span.start * 1e6,
                "dur": (span.end - span.start) * 1e6,
            }
            for span in self.stages
        ]
        return json.dumps({"traceEvents": names + events})


def _own_time(spans: Sequence[TimedStage]) -> Iterator[tuple[str, float]]:
    """Yield (stage, s) of the stages of one row, each excluding those nested in it."""
    open_spans: list[TimedStage] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        while open_spans and open_spans[-1].end <= span.start:
            open_spans.pop()
        length = span.end - span.start
        yield span.stage, length
        if open_spans:
            yield open_spans[-1].stage, -length
        open_spans.append(span)


class _DeviceTimer:
    """The stages of a GPU, timed by CUDA events, since the host only queues its work."""

    def __init__(self, profile: Profile, device: torch.device) -> None:
        import torch

        self._profile, self._device = profile, device
        self._events: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()
        torch.cuda.synchronize(device)
        self._zero = profile.now(), self._event()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the enclosed block as a stage of the device."""
        self.read()
        start = self._event()
        yield
        self._events.append((name, start, self._event()))

    def read(self) -> None:
        """Record the stages that the device has finished, and release their events."""
        begun, zero = self._zero
        while self._events and self._events[0][2].query():
            name, *pair = self._events.popleft()
            start, end = (begun + zero.elapsed_time(event) / 1e3 for event in pair)
            self._profile.stages.append(TimedStage(name, str(self._device), start, end))

    def _event(self) -> torch.cuda.Event:
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


_profile: ContextVar[Profile | None] = ContextVar("_profile", default=None)


def current_profile() -> Profile | None:
    """Return the profile that the current context records into, if any."""
    return _profile.get()


@contextmanager
def recording(profile: Profile | None) -> Iterator[None]:
    """Record stages into `profile` while open; threads take part through a copy of the context."""
    token = _profile.set(profile)
    try:
        yield
    finally:
        _profile.reset(token)


@contextmanager
def recording_device(device: torch.device) -> Iterator[None]:
    """Record the stages of this GPU while open; waits for it on leaving."""
    profile = _profile.get()
    if profile is None or device.type != "cuda":
        yield
        return
    import torch

    profile.timer = _DeviceTimer(profile, device)
    try:
        yield
        torch.cuda.synchronize(device)
        profile.timer.read()
    finally:
        profile.timer = None


def stage(name: str) -> AbstractContextManager[None]:
    """Return a context manager that times a stage of this thread; a no-op without a profile."""
    profile = _profile.get()
    return nullcontext() if profile is None else profile.stage(name)


def device_stage(name: str) -> AbstractContextManager[None]:
    """Return a context manager that times a stage of the device; on a CPU, of this thread."""
    profile = _profile.get()
    if profile is None:
        return nullcontext()
    return profile.stage(name) if profile.timer is None else profile.timer.stage(name)


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write_profile(path: str, profile: Profile, job: ExtractionRun, encoder: Encoder) -> None:
    """Write a text page to `path` and a Chrome trace to `path`.trace.json."""
    provenance = encoder.provenance()
    speed = job.seconds / (job.wall or 1)
    facts = {
        "segments": f"{job.new:,}",
        "audio": f"{job.seconds:,.1f} s in {job.wall:,.2f} s, {speed:,.1f} times real time",
        "encoder": f"{provenance['encoder']}, {provenance['compute_dtype']} on {job.devices}",
        "batches": f"{job.batch_seconds:g} s, {job.padding:.2%} of it padding",
        "memory": f"{peak_memory() / 1e9:.2f} GB at most (main memory of the first process)",
        "processor": f"{counted(available_cores(), 'core')}, load {os.getloadavg()[0]:.1f}",
    }
    atomic_write(Path(path), profile.page(facts).encode())
    atomic_write(Path(f"{path}.trace.json"), profile.trace().encode())
