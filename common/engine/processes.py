"""Run a job's units in processes of this machine, by joblib; publish each as it finishes.

When one of its processes dies, of lack of memory for example, joblib gives up everything in
progress. Published units stay; the rest is started again, in parallel as long as that makes
progress, and then one by one, so that the units that kill their process are identified and the
others are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..log import debug
from ..signals import ignore_sigint_in_children
from .work import FailedUnit, Job, Unit

DIED = "its process died in each of {} tries"


def run_in_processes(job: Job, processes: int) -> list[FailedUnit]:
    """Run the units of a job in `processes` processes, or in this one; return those that failed.

    This process publishes the units, in the order in which they finish. In a process of its own,
    the job's function has one thread for linear algebra.

    Raises
    ------
    Exception
        What the job's function or `publish` raises, which ends the job.
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
    """Return a function that runs a unit alone, and returns it if it killed every process."""
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
    """Publish units and remove them from `left`, until none is left or a process dies."""
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
