"""Run a job's units on this machine's devices, one process per device; publish each as it finishes.

Each process has its own pipe and shares nothing with the others, so that a killed one leaves
nothing locked. It receives a unit, and answers with what the job's function returns. A terminal or
``scancel`` sends Ctrl-C and SIGTERM to all processes; the workers leave them to this one, which
asks them to stop. Workers whose parent was killed end by themselves.

A unit whose process died is tried again, on another device if there is one. A device with nothing
left to do also starts a unit that is overdue on another.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from ..errors import InputError
from ..signals import signals_blocked
from .processes import DIED
from .work import Done, FailedUnit, Job, Unit, overdue_after, tell_failed

PATIENCE = 0.2  # s between checks whether to stop
ENDING = 5.0  # s for a process to end, and its exit code to be known, after it closed its pipe
RECENT = 1000  # last finished units, whose median decides which are overdue


def run_on_devices(
    job: Job, stop: Callable[[], bool], log: Callable[[str], object]
) -> tuple[bool, list[FailedUnit]]:
    """Run the units of a job; return which ones failed, at the end.

    Parameters
    ----------
    job
        `shared` maps each device's name to what the process there needs. `function` is called with
        a third argument, a function that tells whether to stop; a partial result that it then
        returns is published too. It returns problems as a `Done`: an exception ends its process, as
        a kill does. After a `Done` with a trace the process is replaced, as a bug may have
        corrupted its state.
    stop
        Called several times a second.
    log
        Receives a line for each process that died, and for each unit that failed.

    Returns
    -------
    tuple
        Whether `stop` ended the job early, and the units that failed.

    Raises
    ------
    InputError
        A process cannot start.
    Exception
        What `publish` raises. What the others have done by then is published, as on `stop`.
    """
    run, stopped = _Run(job, log), False
    try:
        while run.give() and not (stopped := stop()):
            run.receive()
        run.finish()
    except Exception:
        with suppress(Exception):  # the first problem is the one that is raised
            run.finish()
        raise
    finally:
        run.kill()
    tell_failed(run.failed, log)
    return stopped, run.failed


class _DiedError(Exception):
    """A process has ended by itself; the argument is its signal or exit code."""


class _Process:
    """A worker process, ready for units once it has `begun`."""

    def __init__(self, function: Callable[..., Any], shared: Any) -> None:
        context = get_context("spawn")
        self.line, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, function, shared), daemon=True)
        self.begun = False
        resource_tracker.ensure_running()  # starting it unblocks signals, so it comes first
        with signals_blocked():
            self._process.start()
        theirs.close()  # so that the pipe closes when the process ends

    def send(self, message: Unit | None) -> None:
        """Send a unit, or None to end after the current batch."""
        with suppress(OSError):  # it has died, as `receive` will report
            self.line.send(message)

    def receive(self) -> tuple[Any, ...]:
        """Return its answer, or nothing if it has only started; raises `_DiedError`."""
        try:
            done: tuple[Any, ...] = self.line.recv()
        except (EOFError, OSError):
            self._process.join(ENDING)
            self.kill()
            code = self._process.exitcode or 0
            raise _DiedError(f"signal {-code}" if code < 0 else f"code {code}") from None
        self.begun = True
        return done

    def kill(self) -> None:
        """End it at once."""
        self.line.close()
        self._process.kill()
        self._process.join()


@dataclass(eq=False)
class _Device:
    """A device, its process if any, and the unit in progress there, with its start time."""

    name: str
    process: _Process | None = None
    unit: Unit | None = None
    since: float = 0.0
    failed_starts: int = 0  # processes in a row that died before they were ready


class _Run:
    """A job in progress: units waiting, units running, units to retry, units failed."""

    def __init__(self, job: Job, log: Callable[[str], object]) -> None:
        self._job, self._tell = job, log
        self._devices = [_Device(name) for name in job.shared]
        self._waiting = iter(job.units)
        self._more = bool(self._devices)  # whether units may be waiting
        self._finishing = False
        self._again: list[Unit] = []
        self._died: dict[str, list[str]] = {}  # key of a unit -> devices whose process died on it
        self._published = set[str]()  # keys of published units of which a copy is still running
        self._took = deque[float](maxlen=RECENT)  # s of each of the last finished units
        self.failed: list[FailedUnit] = []

    def give(self) -> bool:
        """Give each free device a unit, if any is left; return whether any unit is not done."""
        for device in self._devices:
            if device.process is None and (self._more or self._again):
                job, device.since = self._job, time.monotonic()
                device.process = _Process(job.function, job.shared[device.name])
            elif device.process and device.process.begun and device.unit is None:
                device.unit, device.since = self._next(device), time.monotonic()
                if device.unit:
                    device.process.send(device.unit)
        return self._more or any(unit.key not in self._published for unit in self._open())

    def receive(self) -> None:
        """Wait a moment for answers from the processes, and publish what they have done."""
        running = [device for device in self._devices if device.process]
        lines = wait([device.process.line for device in running if device.process], PATIENCE)
        for device in running:
            if device.process and device.process.line in lines:
                try:
                    done = device.process.receive()
                except _DiedError as problem:
                    self._count_death(device, str(problem))
                else:
                    if done and device.unit:
                        self._publish(device, device.unit, *done)

    def finish(self) -> None:
        """Let all processes finish their current batch, and publish it; raise the first problem.

        A process that hangs is given as long as a unit may take.
        """
        self._finishing, self._more, problems = True, False, list[Exception]()
        self._again.clear()
        for device in self._devices:
            device.since = time.monotonic()
            if device.process:
                device.process.send(None)
        while (
            self.give() and {device.name for device in self._devices if device.unit} - self._stuck()
        ):
            try:
                self.receive()
            except Exception as problem:  # what the others have done is published all the same
                problems.append(problem)
        if problems:
            raise problems[0]

    def kill(self) -> None:
        """End all processes at once."""
        for device in self._devices:
            if device.process:
                device.process.kill()

    def _publish(self, device: _Device, unit: Unit, done: Any) -> None:
        """Publish what a device has done while it works on its next unit, or discard it."""
        device.unit, took = None, time.monotonic() - device.since
        if device.process and isinstance(done, Done) and done.trace:
            device.process.kill()
            device.process = None
        again = unit.key in self._published
        self._forget_unless_open(unit)
        if again:
            self._job.discard(done)
            return
        self._took.append(took)
        self.give()
        self._job.publish(unit, done)

    def _count_death(self, device: _Device, how: str) -> None:
        """After a process died, queue its unit again, or give it up."""
        text = f"{device.name}: the process of this device ended early with {how}"
        begun = bool(device.process and device.process.begun)
        unit, device.unit, device.process = device.unit, None, None
        device.failed_starts = 0 if begun else device.failed_starts + 1
        if not begun and (how.startswith("code") or device.failed_starts > self._job.retries):
            raise InputError(
                f"{text}, expected it to start; see what it says above, and run the same command "
                "to resume"
            )
        if unit is None or self._finishing:
            return
        if unit in self._open():
            return
        if unit.key in self._published:
            self._forget_unless_open(unit)
            return
        died = self._died.setdefault(unit.key, [])
        died.append(device.name)
        if len(died) > self._job.retries:
            self.failed.append(FailedUnit(unit, DIED.format(len(died))))
            del self._died[unit.key]
        else:
            self._again.append(unit)
            self._tell(f"{text}; tried again: {unit.name}")

    def _next(self, device: _Device) -> Unit | None:
        """Return the next unit for a free device, if there is one."""
        if self._finishing:
            return None
        for unit in self._again:
            died = self._died[unit.key]
            others = {other.name for other in self._devices if other.name not in died}
            if device.name in others or others <= self._stuck():
                self._again.remove(unit)
                return unit
        fresh = next(self._waiting, None)
        self._more = fresh is not None
        return fresh or self._overdue()

    def _overdue(self) -> Unit | None:
        """Return a unit that is overdue on one device and running on no other."""
        units, stuck = self._open(), self._stuck()
        late = [device.unit for device in self._devices if device.unit and device.name in stuck]
        alone = (unit for unit in late if units.count(unit) == 1)
        return next((unit for unit in alone if unit.key not in self._published), None)

    def _stuck(self) -> set[str]:
        """Return the devices whose unit, or whose process start, is overdue."""
        since = time.monotonic() - overdue_after(self._took, self._job)
        return {
            device.name
            for device in self._devices
            if device.process and (device.unit or not device.process.begun) and device.since < since
        }

    def _forget_unless_open(self, unit: Unit) -> None:
        """Remember a published unit while a copy of it is running; otherwise forget it."""
        if unit in self._open():
            self._published.add(unit.key)
        else:
            self._published.discard(unit.key)
            self._died.pop(unit.key, None)

    def _open(self) -> list[Unit]:
        """Return the running units, once per copy, and those to retry."""
        return [*(device.unit for device in self._devices if device.unit), *self._again]


def _work(line: Connection, function: Callable[..., Any], shared: Any) -> None:
    """Do units as they arrive, until there are no more or the parent closes its end of `line`.

    During a unit, only the request to stop or the parent's end can arrive.
    """
    try:
        line.send(())
        while (unit := line.recv()) is not None:
            line.send((function(shared, unit.payload, line.poll),))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        sys.exit(1)
