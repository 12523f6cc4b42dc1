"""Run an extraction on several devices of one machine, with one process per device.

The parent cuts the batches and hands the next one to whichever worker asks; a worker decodes,
encodes and writes shards under temporary names. The parent, which holds the store's lock, renames
them, which commits them. Rows therefore never pass between processes, and the workers of a killed
parent cannot commit: their temporary files are removed by themselves, once they notice that the
parent is gone, or by the next writer.

Each worker has its own pipe and shares nothing with other workers, so a killed worker leaves no
lock behind. If a worker ends early, the run ends: the others finish their batch and write their
rows, and the parent commits them.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from ...common.errors import InputError
from ...common.signals import sigint_blocked, stop_after_batch
from ..audio import Segment
from ..options import ExtractOptions
from ..profiling import Profile, TimedStage, current_profile, recording
from ..store.shard_writer import ShardWriter
from ..store.writer import StoreWriter
from .runner import BackgroundWriter, ExtractionRun, Progress, count_workers

if TYPE_CHECKING:
    from ..encoder.encoder import Encoder


PATIENCE = 0.2  # s between the parent's checks whether to stop


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker receives when it starts; `begun` is the start time of its profile."""

    name: str
    options: ExtractOptions
    layers: tuple[int, ...]
    provenance: dict[str, Any]
    store: str
    config: dict[str, Any]
    versions: dict[str, Any]
    threads: int
    begun: float | None


@dataclass
class _Worker:
    name: str
    process: BaseProcess
    line: Connection
    encoded: tuple[int, float, int] = field(default=(0, 0.0, 0))  # segments, s of audio, shared


class MultiDeviceRun(ExtractionRun):
    """A run on several devices, with `names` such as ``cuda:0``."""

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
        self._store = writer
        self._layers, self._tell, self._names = tuple(layers), log, tuple(names)
        fitting = shared_batch_seconds(names, encoder.provenance()["compute_dtype"])
        self.batch_seconds = options.batch_seconds or fitting
        self.devices = ", ".join(names)

    def encode(
        self, batches: Iterable[Sequence[Segment]], stop: Callable[[], bool], progress: Progress
    ) -> bool:
        """Distribute batches to the workers, and commit the shards they write."""
        waiting = list(batches)
        with BackgroundWriter() as writing, self._started(len(waiting)) as workers:
            stopped, problem = self._heard(workers, iter(waiting), stop, writing, progress)
        if problem and not stop():
            problem.tell()
        return stopped

    def _heard(
        self,
        workers: list[_Worker],
        left: Iterator[Sequence[Segment]],
        stop: Callable[[], bool],
        writing: BackgroundWriter,
        progress: Progress,
    ) -> tuple[bool, _Ended | None]:
        """Handle messages until all workers have ended; return whether stopped, and any failure."""
        stopped, problem, everyone = False, None, list(workers)
        while workers:
            for line in wait([worker.line for worker in workers], PATIENCE):
                worker = next(worker for worker in workers if worker.line is line)
                try:
                    if not self._handle_message(worker, left, writing, progress):
                        workers.remove(worker)
                except _Ended as ended:
                    workers.remove(worker)
                    problem = problem or ended
                self.new = sum(worker.encoded[0] for worker in everyone)
                self.seconds = sum(worker.encoded[1] for worker in everyone)
                self.shared = sum(worker.encoded[2] for worker in everyone)
            if not stopped and (stop() or problem):
                stopped = True
                for worker in workers:
                    worker.process.terminate()  # SIGTERM: each ends after its batch
        return stopped, problem

    def _handle_message(
        self,
        worker: _Worker,
        left: Iterator[Sequence[Segment]],
        writing: BackgroundWriter,
        progress: Progress,
    ) -> bool:
        """Handle one message of a worker; return whether the worker continues."""
        try:
            kind, said = worker.line.recv()
            if kind == "next":
                worker.line.send(next(left, None))
        except (EOFError, OSError):
            worker.process.join()
            raise _Ended(_killed(worker)) from None
        if kind == "shard":
            writing.put(partial(self._store.publish, said))
        elif kind == "progress":
            seconds, worker.encoded = said
            progress(seconds)
        elif kind == "told":
            self._tell(f"{worker.name}: {said}")
        elif kind == "profile" and (profile := current_profile()):
            profile.stages += said
        elif kind == "failed":
            raise _Ended(*said)
        return bool(kind != "ended")

    @contextmanager
    def _started(self, most: int) -> Iterator[list[_Worker]]:
        """Start at most `most` workers; all have ended on leaving."""
        context, workers = get_context("spawn"), []
        posts = list(self._posts())[:most]
        resource_tracker.ensure_running()  # starting it unblocks the signal, so it comes first
        try:
            with sigint_blocked():  # a terminal sends Ctrl-C to the parent too
                for post in posts:
                    ours, theirs = context.Pipe()
                    process = context.Process(target=worker_main, args=(post, theirs), daemon=True)
                    process.start()
                    theirs.close()  # so that the pipe closes when the worker ends
                    workers.append(_Worker(post.name, process, ours))
            yield list(workers)
        finally:
            for worker in workers:
                worker.line.close()
                worker.process.kill()
                worker.process.join()

    def _posts(self) -> Iterator[WorkerSpec]:
        from ..encoder.device import threads_each

        count, profile = len(self._names), current_profile()
        for place, device in enumerate(self._names):
            twice = self._names.count(device) > 1
            yield WorkerSpec(
                f"{device} ({place + 1})" if twice else device,
                replace(self._options, device=device, workers=count_workers(self._options, count)),
                self._layers,
                self._encoder.provenance(),
                str(self._store.path),
                self._store.config,
                self._store.versions,
                threads_each(count),
                profile.begun if profile else None,
            )


class _Ended(Exception):  # noqa: N818 (tells how a worker ended; `log` raises the failure)
    """A worker ended early: a message, and the worker's traceback if it is a bug."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.message, self.trace = message, trace

    def tell(self) -> None:
        """Raise the error that a run on one device would have raised."""
        if self.trace:
            raise RuntimeError(self.message) from RuntimeError(f"in a worker:\n{self.trace}")
        raise InputError(self.message)


def _killed(worker: _Worker) -> str:
    code = worker.process.exitcode or 0
    how = f"signal {-code}" if code < 0 else f"code {code}"
    return (
        f"{worker.name}: the process of this device ended early with {how}, expected it to work to "
        "the end; run the same command to go on (what was committed is there)"
    )


class WorkerConnection:
    """A worker's end of its pipe, shared by its threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def send(self, kind: str, said: Any = None) -> None:
        """Send a message to the parent; blocks while the parent is busy."""
        with self._lock:
            self._connection.send((kind, said))

    def batches(self) -> Iterator[Sequence[Segment]]:
        """Request batches until there are no more; for the main thread only."""
        while True:
            self.send("next")
            batch = self._connection.recv()
            if batch is None:
                return
            yield batch


def worker_main(post: WorkerSpec, connection: Connection) -> None:
    """Encode the batches that the parent hands out, in a separate process, until there are none."""
    line = WorkerConnection(connection)
    with stop_after_batch(
        lambda _: None, every=True
    ) as caught:  # the parent kills it where it must
        try:
            line.send(*_worked(post, line, caught))
        except (EOFError, OSError):  # the parent is gone
            sys.exit(1)


def _worked(post: WorkerSpec, line: WorkerConnection, caught: Sequence[int]) -> tuple[str, Any]:
    """Do a worker's part; return its final message."""
    try:
        stages = _encoded(post, line, lambda: bool(caught))
    except InputError as problem:
        return "failed", (str(problem),)
    except Exception as problem:
        return "failed", (str(problem) or repr(problem), traceback.format_exc())
    line.send("profile", stages)
    if caught:
        return "failed", (
            f"{post.name}: the process of this device was stopped by signal {caught[0]}, expected "
            "it to work to the end; run the same command to go on",
        )
    return "ended", None


def _encoded(
    post: WorkerSpec, line: WorkerConnection, stop: Callable[[], bool]
) -> list[TimedStage]:
    from ..encoder.device import convert

    encoder = load_for(post)
    profile = None if post.begun is None else Profile(post.begun)
    publish = partial(line.send, "shard")
    writer = ShardWriter(post.store, post.config, publish, versions=post.versions, convert=convert)
    job = ExtractionRun(encoder, post.layers, post.options, writer, partial(line.send, "told"))

    def progress(seconds: float) -> None:
        line.send("progress", (seconds, (job.new, job.seconds, job.shared)))

    try:
        with recording(profile):
            job.encode(line.batches(), stop, progress)
    finally:  # an error does not lose the rows already encoded
        writer.commit()
        progress(0.0)
    stages = profile.stages if profile else []
    return [replace(stage, row=f"{post.name} {stage.row}") for stage in stages]


def load_for(post: WorkerSpec) -> Encoder:
    """Return the encoder of a worker, on its device, in the process that works there.

    Raises
    ------
    InputError
        It is another than the run began with.
    """
    from ..encoder.device import set_threads_and_device
    from ..encoder.encoder import load_encoder

    options = post.options
    set_threads_and_device(options.device, post.threads)
    encoder = load_encoder(
        options.encoder,
        revision=options.revision,
        normalize=options.normalize,
        device=options.device,
        dtype=options.dtype,
    )
    if encoder.provenance() != post.provenance:
        raise InputError(
            f"{options.encoder}: the encoder on {post.name} is another than the run began with, "
            "expected the same on every device; name a revision, or pass --dtype"
        )
    return encoder
