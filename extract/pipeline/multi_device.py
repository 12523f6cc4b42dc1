"""Run an extraction on several devices of one machine, with one process per device.

The batches are those of a single device: from the whole table, sorted by length. A unit is the next
few batches, enough for some seconds (`UNIT_SECONDS`), so that a killed process loses little;
towards the end units get smaller, so that all devices finish together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from ...common.engine.devices import run_on_devices
from ...common.engine.work import Done, Unit
from ..audio import Segment
from .batching import AHEAD
from .runner import Progress, count_workers
from .unit_run import UnitRun
from .unit_worker import UnitSpec

UNIT_SECONDS = 30.0  # approximate s per unit
LEAST_SECONDS = 2.0  # s; smaller units, at the end, would cost more than they balance
FIRST = AHEAD + 1  # batches of a unit while a device's speed is unknown


class MultiDeviceRun(UnitRun):
    """A run on several devices of this machine."""

    _speed = 0.0  # batches per second of one process, from the last unit

    def encode(
        self, batches: Iterable[Sequence[Segment]], stop: Callable[[], bool], progress: Progress
    ) -> bool:
        """Have the devices' processes encode the batches, and commit their shards."""
        left = deque(batches)
        job = self.job(self._specs(len(left)), self._units(left), progress)
        stopped, failed = run_on_devices(job, stop, self._tell)
        self._finish(failed)
        return stopped

    def _specs(self, most: int) -> dict[str, UnitSpec]:
        """Return, by device name, what the processes of at most `most` devices need."""
        from ..encoder.device import threads_each

        count = len(self._names)
        settings = {
            "workers": count_workers(self._options, count),
            "threads": threads_each(count),
        }
        specs = {}
        for place, device in enumerate(self._names[:most]):
            twice = self._names.count(device) > 1
            name = f"{device} ({place + 1})" if twice else device
            specs[name] = self.spec(device, name=name, **settings)
        return specs

    def _units(self, batches: deque[Sequence[Segment]]) -> Iterator[Unit]:
        """Yield units, each made when a device becomes free."""
        while batches:
            count = unit_size(len(batches), len(self._names), self._speed)
            yield self.unit(batches.popleft() for _ in range(count))

    def _publish(self, progress: Progress, unit: Unit, done: Done) -> None:
        if not (done.trace or done.problem):
            self._speed = len(unit.payload) / done.value.wall
        super()._publish(progress, unit, done)


def unit_size(batches: int, devices: int, speed: float) -> int:
    """Return how many of the remaining batches the next unit has.

    At most half of a device's share, so that the rest can balance differences between units.

    Parameters
    ----------
    speed
        Batches per second of one device; 0 if not known yet.

    Examples
    --------
    >>> [unit_size(batches, 2, 1.0) for batches in (1000, 100, 20, 5, 1)]
    [30, 25, 5, 2, 1]
    >>> unit_size(1000, 2, 0.0), unit_size(8, 2, 0.0)
    (4, 2)
    """
    most = UNIT_SECONDS * speed if speed else FIRST
    share = max(batches / (2 * devices), LEAST_SECONDS * speed)
    return min(batches, max(1, int(min(most, share))))
