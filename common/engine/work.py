"""The description of a job in units, shared by all engines.

A unit has a key, which covers its inputs, and a payload for the job's function. The function leaves
its output on disk under temporary names and returns what is needed to publish it; only the process
that owns the job publishes, once per unit. A unit is done when it is published: whatever happens to
the processes, the same command checks what is published and runs the rest. A unit may therefore run
twice, and the second result is discarded.

An engine tries a unit a limited number of times, starts an overdue one again, and returns the units
that failed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ..counts import counted
from ..errors import InputError

RETRIES = 3  # further tries of a unit whose process or machine died
OVERDUE = 10.0  # a unit is overdue after this many times the median of the finished units
FLOOR = 60.0  # s; no unit is overdue earlier


@dataclass(frozen=True)
class Unit:
    """A part of a job: its key, its name in messages, and what the job's function receives."""

    key: str
    name: str
    payload: Any


@dataclass(frozen=True)
class Resources:
    """What a unit occupies while it runs."""

    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True)
class FailedUnit:
    """A unit that was given up, and the reason, in one line."""

    unit: Unit
    reason: str


def tell_failed(failed: Iterable[FailedUnit], log: Callable[[str], object]) -> None:
    """Log the units that were given up, a line each."""
    for given_up in failed:
        log(f"failed: {given_up.unit.name} ({given_up.reason})")


class UnitsFailedError(InputError):
    """Some units were given up, the others are published; the same command tries them again."""

    def __init__(self, where: object, failed: Sequence[FailedUnit], units: int) -> None:
        first = failed[0]
        super().__init__(
            f"{where}: {counted(len(failed), 'unit', of=units)} failed, first {first.unit.name} "
            f"({first.reason}), expected all; run the same command to try again"
        )


@dataclass(frozen=True)
class Done:
    """A unit's result, with the user's problem or the bug that kept it from being complete."""

    value: Any = None
    problem: str = ""
    trace: str = ""  # of a bug

    @classmethod
    def by(cls, function: Callable[..., Any], *arguments: Any) -> Done:
        """Call a function in the process where its unit runs."""
        try:
            return cls(function(*arguments))
        except InputError as problem:
            return cls(problem=str(problem))

    def get(self) -> Any:
        """Return the result, or raise what a run in this process would have raised."""
        if self.problem:
            raise InputError(self.problem)
        return self.value


@dataclass(frozen=True)
class Job:
    """Units that one function processes.

    Parameters
    ----------
    function
        Called with `shared` and a unit's payload, in another process; its result must be small.
    shared
        What all units need.
    publish
        Called with a unit and its result, once for each unit, in the process that owns the job.
    discard
        Called with the result of a unit that was published already.
    retries
        Further tries of a unit whose process or machine died.
    overdue, floor
        A unit that takes `overdue` times the median, and at least `floor` s, is started again.
    calls
        Number of units after which a process ends, to free what it holds; 0: no limit.
    """

    function: Callable[[Any, Any], Any]
    shared: Any
    units: Iterable[Unit]
    publish: Callable[[Unit, Any], object]
    discard: Callable[[Any], object] = lambda result: None
    resources: Resources = field(default_factory=Resources)
    retries: int = RETRIES
    overdue: float = OVERDUE
    floor: float = FLOOR
    calls: int = 0


def unit_key(*inputs: Any) -> str:
    """Return a key that covers the inputs, which must be serialisable as JSON.

    Examples
    --------
    >>> unit_key("fingerprint", ["s1", "s2"]) == unit_key("fingerprint", ["s1", "s2"])
    True
    >>> unit_key("fingerprint", ["s1"]) == unit_key("other", ["s1"])
    False
    """
    return hashlib.sha256(json.dumps(inputs, ensure_ascii=False).encode()).hexdigest()[:16]


def overdue_after(took: Collection[float], job: Job) -> float:
    """Return after how many s a unit is overdue, given the times of finished units (s).

    Until a unit has finished, none is overdue.

    Examples
    --------
    >>> job = Job(print, None, [], print)
    >>> [overdue_after(took, job) for took in ([], [1.0, 2.0, 3.0], [30.0])]
    [inf, 60.0, 300.0]
    """
    return max(job.floor, job.overdue * median(took)) if took else float("inf")
