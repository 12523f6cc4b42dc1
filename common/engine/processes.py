"""Run a job's units in processes of this machine, by joblib: each published as it comes.

joblib gives up all that is under way when one of its processes dies, for want of memory, say. What
was published stays, and the rest is begun again: side by side as long as that leads on, then each
by itself, so that the units that kill their process are named and the others are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..log import debug
from ..signals import ignore_sigint_in_children
from .work import FailedUnit, Job, Unit

DIED = "its process died in each of {} tries"


def run_in_processes(job: Job, processes: int) -> list[FailedUnit]:
    """Run the units of a job in so many processes, or in this one; return those that failed.

    Units are published by this process, in the order in which they finish. Their function has one
    thread for linear algebra in a process of its own.

    Raises
    ------
    Exception
        What a unit's function or `publish` raises, which ends the job.
    """
    units = list(job.units)
    if min(processes, len(units)) <= 1:
        for unit in units:
            job.publish(unit, job.function(job.shared, unit.payload))
        return []
    left = {unit.key: unit for unit in units}
    before = len(left) + 1
    while left and len(left) < before:
        before = len(left)
        _publish_some(job, left, processes)
    return [unit for unit in map(_alone(job, left), list(left.values())) if unit]


def _alone(job: Job, left: dict[str, Unit]) -> Callable[[Unit], FailedUnit | None]:
    """Return a function that tries a unit by itself, and returns it if it killed each process."""
    tries = job.retries + 1

    def run(unit: Unit) -> FailedUnit | None:
        for _ in range(tries):
            mine = {unit.key: left[unit.key]}
            _publish_some(job, mine, 1)
            if not mine:
                return None
        return FailedUnit(unit, DIED.format(tries))

    return run


def _publish_some(job: Job, left: dict[str, Unit], processes: int) -> None:
    """Publish units and remove them from `left`, until all are or a process dies."""
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    try:
        for unit, result in _results(job, list(left.values()), processes):
            del left[unit.key]
            job.publish(unit, result)
    except TerminatedWorkerError as problem:
        debug("a process died", problem=problem)


def _results(job: Job, units: Sequence[Unit], processes: int) -> Iterator[tuple[Unit, Any]]:
    from joblib import Parallel, delayed, parallel_config

    several = max(2, processes)  # with 1, joblib would run them in this process
    with parallel_config("loky", n_jobs=several, inner_max_num_threads=1):
        each = Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch=f"{processes}")
        with ignore_sigint_in_children():
            results = each(delayed(_named)(job.function, job.shared, unit) for unit in units)
        yield from results


def _named(function: Callable[[Any, Any], Any], shared: Any, unit: Unit) -> tuple[Unit, Any]:
    return unit, function(shared, unit.payload)
