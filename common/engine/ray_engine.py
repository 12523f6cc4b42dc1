"""Run a job's units as Ray tasks: finite retries, overdue units sent again, failed ones returned.

Tasks, as a task whose process or machine dies is run again elsewhere; actors would lose the unit
they hold. As many units are sent as fit on the machines that are there, so that a unit's time runs
from when it was sent. The process of a task is kept for the next one, with whatever its function
has loaded, unless the job says otherwise.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ..log import debug
from .ray_session import count_slots, one_line, ray_session
from .work import FailedUnit, Job, Unit, overdue_after

PATIENCE = 0.2  # s between looks whether to stop
MACHINES_EVERY = 5.0  # s between looks which machines are there
CANCELLED = 10.0  # s that cancelled tasks have to end


def run_units(
    address: str | None,
    describe: Callable[[Any], Job],
    stop: Callable[[], bool],
    log: Callable[[str], object],
) -> tuple[bool, list[FailedUnit]]:
    """Join or start a Ray and run a job there; tell which units failed, at the end.

    Parameters
    ----------
    address
        Of a cluster's head; None: a Ray of this machine.
    describe
        Called with the module `ray`, joined; it checks the machines and returns the job.
    stop
        As in `run_on_ray`, whose results are returned.
    """
    with ray_session(address) as ray:
        stopped, failed = run_on_ray(ray, describe(ray), stop)
    for given_up in failed:
        log(f"failed: {given_up.unit.name} ({given_up.reason})")
    return stopped, failed


def run_on_ray(ray: Any, job: Job, stop: Callable[[], bool]) -> tuple[bool, list[FailedUnit]]:
    """Run the units of a job; return whether `stop` ended it early, and the units that failed.

    When this returns, or raises what `publish` raises, no unit is running.
    """
    run = _Run(ray, job)
    try:
        while run.going:
            if stop():
                return True, run.failed
            run.send()
            run.receive()
            run.send_overdue()
    finally:
        run.cancel(run.flying)
    return False, run.failed


class _Run:
    """A job on its way: units waiting, units sent (each maybe more than once), units failed."""

    def __init__(self, ray: Any, job: Job) -> None:
        self._ray, self._job = ray, job
        self._remote = ray.remote(
            num_cpus=job.resources.cpus,
            num_gpus=job.resources.gpus,
            max_calls=job.calls,
            max_retries=job.retries,
        )(job.function)
        self._shared = ray.put(job.shared)
        self._waiting = deque(job.units)
        self._published = set[str]()  # keys
        self._took: list[float] = []  # s of each finished unit
        self._slots, self._looked = 0, -MACHINES_EVERY
        self.flying: dict[Any, tuple[Unit, float]] = {}  # reference -> unit, when it was sent
        self.failed: list[FailedUnit] = []

    @property
    def going(self) -> bool:
        """Whether a unit is neither published nor given up."""
        return bool(self._waiting) or any(
            unit.key not in self._published for unit, _ in self.flying.values()
        )

    def send(self) -> None:
        """Send as many of the waiting units as fit."""
        now = time.monotonic()
        if now - self._looked >= MACHINES_EVERY:
            self._slots, self._looked = max(1, count_slots(self._ray, self._job.resources)), now
        while self._waiting and len(self.flying) < self._slots:
            self._send(self._waiting.popleft())

    def receive(self) -> None:
        """Wait a moment for a unit, and publish it, discard it or note its failure."""
        ready, _ = self._ray.wait(list(self.flying), num_returns=1, timeout=PATIENCE)
        for reference in ready:
            unit, since = self.flying.pop(reference)
            try:
                result = self._ray.get(reference)
            except self._ray.exceptions.RayError as problem:
                # otherwise another copy has done it, or still may
                debug(f"a try of {unit.name} failed", problem=problem)
                if unit.key not in self._published and not self._copies(unit):
                    self.failed.append(FailedUnit(unit, self._why(problem)))
                continue
            if unit.key in self._published:
                self._job.discard(result)
                continue
            self._took.append(time.monotonic() - since)
            self._published.add(unit.key)
            self._job.publish(unit, result)

    def send_overdue(self) -> None:
        """Send units again that are overdue; whichever copy ends first is published.

        The other ones are not ended at once: their processes may only be slow to load, and would
        never come to work.
        """
        limit, now = overdue_after(self._took, self._job), time.monotonic()
        late = {unit.key: unit for unit, since in self.flying.values() if now - since > limit}
        for unit in late.values():
            copies = self._copies(unit)
            recent = any(now - self.flying[copy][1] <= limit for copy in copies)
            if unit.key in self._published:
                last = limit * self._job.overdue
                self.cancel([copy for copy in copies if now - self.flying[copy][1] > last])
            elif not recent and len(copies) <= self._job.retries:
                self._send(unit)

    def cancel(self, references: Any) -> None:
        """End the processes of units, and wait for their end."""
        left = list(references)
        for reference in left:
            self._ray.cancel(reference, force=True)
            self.flying.pop(reference, None)
        if left:
            self._ray.wait(left, num_returns=len(left), timeout=CANCELLED, fetch_local=False)

    def _send(self, unit: Unit) -> None:
        self.flying[self._remote.remote(self._shared, unit.payload)] = unit, time.monotonic()

    def _copies(self, unit: Unit) -> list[Any]:
        return [ref for ref, (other, _) in self.flying.items() if other.key == unit.key]

    def _why(self, problem: Exception) -> str:
        """Return in one line why a unit was given up."""
        died = self._ray.exceptions
        if isinstance(problem, (died.WorkerCrashedError, died.NodeDiedError)):
            return f"its process died in each of {self._job.retries + 1} tries"
        if isinstance(problem, died.OutOfMemoryError):
            return "its process outgrew the machine's memory in each try"
        return one_line(problem)
