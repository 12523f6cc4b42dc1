"""Run a job's units as Ray tasks, with limited retries; overdue units are started again.

Tasks rather than actors: a task whose process or machine dies runs again elsewhere, while an actor
would lose its unit. Only as many units are sent as fit on the machines present, so that a unit's
time runs from when it was sent, and memory here does not grow with the number of units. A task's
process is reused for the next one, with whatever its function has loaded, unless the job says
otherwise or a bug may have corrupted its state.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property, wraps
from typing import Any

from ..log import debug
from .processes import DIED
from .ray_session import count_slots, one_line, ray_session
from .work import Done, FailedUnit, Job, Unit, overdue_after, tell_failed

PATIENCE = 0.2  # s between checks whether to stop
MACHINES_EVERY = 5.0  # s between checks of which machines are there
CANCELLED = 10.0  # s for cancelled tasks to end
RECENT = 1000  # last finished units, whose median decides which are overdue
COUNT_EVERY = 1.0  # s between counts of overdue units


def run_units(
    address: str | None,
    describe: Callable[[Any], Job],
    stop: Callable[[], bool],
    log: Callable[[str], object],
) -> tuple[bool, list[FailedUnit]]:
    """Join or start Ray and run a job there; return which units failed, at the end.

    Parameters
    ----------
    address
        Of a cluster's head; None: a Ray of this machine alone.
    describe
        Called with the module `ray`, connected; it checks the machines and returns the job.
    stop
        As in `run_on_ray`, whose result is returned.
    """
    begun = False
    try:
        with ray_session(address) as ray:
            job, begun = describe(ray), True
            stopped, failed = run_on_ray(ray, job, stop)
    except Exception as problem:
        if begun or not stop():
            raise
        debug("ended by the signal that Ray has received too", problem=problem)
        return True, []
    tell_failed(failed, log)
    return stopped, failed


def run_on_ray(ray: Any, job: Job, stop: Callable[[], bool]) -> tuple[bool, list[FailedUnit]]:
    """Run the units of a job; return whether `stop` ended it early, and the units that failed.

    When this returns, or raises what `publish` raises, no unit is running. A signal that ends the
    job may also have reached Ray's processes: what fails after it does not count as a failure.
    """
    run = _Run(ray, job)
    try:
        while run.send():
            if stop():
                return True, run.failed
            failed = run.receive()
            if failed and not stop():
                run.failed.append(failed)
            run.send_overdue()
    except (ray.exceptions.RayError, OSError, RuntimeError):
        if not stop():
            raise
        return True, run.failed
    finally:
        run.end()
    return False, run.failed


class _Run:
    """A job in progress: units waiting, units sent (possibly more than once), units failed."""

    def __init__(self, ray: Any, job: Job) -> None:
        self._ray, self._job = ray, job
        self._remote = ray.remote(
            num_cpus=job.resources.cpus,
            num_gpus=job.resources.gpus,
            max_calls=job.calls,
            max_retries=job.retries,
        )(_in_sound_processes(job.function))
        self._waiting = iter(job.units)
        self._next = next(self._waiting, None)
        self._published = set[str]()  # keys of published units of which a copy is still running
        self._took = deque[float](maxlen=RECENT)  # s of each of the last finished units
        self._limit, self._counted = float("inf"), -math.inf
        self._slots, self._looked = 0, -MACHINES_EVERY
        self.flying: dict[Any, tuple[Unit, float]] = {}  # reference -> unit, when it was sent
        self.failed: list[FailedUnit] = []

    @cached_property
    def _shared(self) -> Any:
        return self._ray.put(self._job.shared)

    def send(self) -> bool:
        """Send as many of the waiting units as fit; return whether any is not published yet."""
        now = time.monotonic()
        if now - self._looked >= MACHINES_EVERY:
            self._slots, self._looked = max(1, count_slots(self._ray, self._job.resources)), now
        while self._next is not None and self._count_busy(now) < self._slots:
            self._send(self._next)
            self._next = next(self._waiting, None)
        return self._next is not None or any(
            unit.key not in self._published for unit, _ in self.flying.values()
        )

    def receive(self) -> FailedUnit | None:
        """Wait a moment for a unit, and publish or discard it; return it if it failed."""
        ready, _ = self._ray.wait(list(self.flying), num_returns=1, timeout=PATIENCE)
        for reference in ready:
            unit, since = self.flying.pop(reference)
            again, others = unit.key in self._published, self._copies(unit)
            try:
                result = self._ray.get(reference)
            except self._ray.exceptions.RayError as problem:
                debug(f"a try of {unit.name} failed", problem=problem)
                # otherwise another copy has done it, or still may
                if not again and not others:
                    return FailedUnit(unit, self._why(problem))
            else:
                if again:
                    self._job.discard(result)
                else:
                    self._took.append(time.monotonic() - since)
                    self._published.add(unit.key)
                    self._job.publish(unit, result)
            if not others:
                self._published.discard(unit.key)
        return None

    def send_overdue(self) -> None:
        """Start overdue units again; whichever copy finishes first is published.

        The other copies are not ended at once: their processes may only be slow to load, and would
        otherwise never get to work.
        """
        now = time.monotonic()
        if now - self._counted >= COUNT_EVERY:
            self._limit, self._counted = overdue_after(self._took, self._job), now
        limit = self._limit
        late = {unit.key: unit for unit, since in self.flying.values() if now - since > limit}
        for unit in late.values():
            copies = self._copies(unit)
            recent = any(now - self.flying[copy][1] <= limit for copy in copies)
            if unit.key in self._published:
                last = limit * self._job.overdue
                self._cancel([copy for copy in copies if now - self.flying[copy][1] > last])
            elif not recent and len(copies) <= self._job.retries:
                self._send(unit)

    def end(self) -> None:
        """End the processes of all units, and wait until they have ended."""
        left = list(self.flying)
        self._cancel(left)
        if left:
            with suppress(Exception):
                self._ray.wait(left, num_returns=len(left), timeout=CANCELLED, fetch_local=False)

    def _cancel(self, references: Iterable[Any]) -> None:
        """Cancel units; on machines that can be reached, their processes end at once."""
        for reference in references:
            unit, _ = self.flying.pop(reference)
            if not self._copies(unit):
                self._published.discard(unit.key)
            with suppress(Exception):  # a Ray that has ended runs nothing
                self._ray.cancel(reference, force=True)

    def _send(self, unit: Unit) -> None:
        self.flying[self._remote.remote(self._shared, unit.payload)] = unit, time.monotonic()

    def _count_busy(self, now: float) -> int:
        """Count the copies that occupy a slot; an overdue one may be on a lost machine."""
        return sum(now - since <= self._limit for _, since in self.flying.values())

    def _copies(self, unit: Unit) -> list[Any]:
        return [ref for ref, (other, _) in self.flying.items() if other.key == unit.key]

    def _why(self, problem: Exception) -> str:
        """Return the reason, in one line, why a unit was given up."""
        died = self._ray.exceptions
        if isinstance(problem, (died.WorkerCrashedError, died.NodeDiedError)):
            return DIED.format(self._job.retries + 1)
        if isinstance(problem, died.OutOfMemoryError):
            return "its process outgrew the machine's memory in each try"
        return one_line(problem)


def _in_sound_processes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a job's function so that no unit runs in a process that a bug may have corrupted.

    Such a process exits instead, and Ray runs the unit in another one.
    """
    bugs: list[str] = []  # per process: each has its own copy of the function

    @wraps(function)
    def run(shared: Any, payload: Any) -> Any:
        if bugs:
            os._exit(1)
        done = function(shared, payload)
        if isinstance(done, Done) and done.trace:
            bugs.append(done.trace)
        return done

    return run
