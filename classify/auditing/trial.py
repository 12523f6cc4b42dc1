"""Would errors be found? Labels exchanged on purpose, in the very data that is audited.

Some turns that nothing is said against are given another speaker of their session, and all is
judged again. How many of them are proposed, with the right name, is the share of errors that an
audit of these data with this encoder finds. Where it is low, nothing is proposed.

What it cannot tell is how many of the first proposals are the recogniser's own mistakes: these
look like wrong labels. The share of planted errors among all that is proposed on trial takes every
earlier proposal for a mistake, so it is the least that may be true at this rate of errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...manifests.splits.tasks import Task
from ..metrics import wilson
from .held_out import Judged

RATE = 0.05  # of the turns are given another speaker
TRIALS = 3
CARRIES = 1 / 3  # of the planted errors: below that, nothing is claimed

Labels = dict[str, np.ndarray]  # codes of each task's training rows


@dataclass(frozen=True)
class Trial:
    """Planted errors, how many of them were proposed rightly, and all that was proposed."""

    planted: int
    right: int
    proposed: int

    @property
    def recall(self) -> tuple[float, float, float]:
        """Return the share of planted errors that are found, with its 95 % interval."""
        return _share(self.right, self.planted)

    @property
    def precision(self) -> tuple[float, float, float]:
        """Return the least share of proposals that are right, with its 95 % interval."""
        return _share(self.right, self.proposed)

    @property
    def carries(self) -> bool:
        """Return whether enough errors are found for proposals to be made."""
        return self.recall[0] >= CARRIES


def _share(count: int, of: int) -> tuple[float, float, float]:
    return (count / of, *wilson(count, of)) if of else (0.0, 0.0, 1.0)


def try_planted(
    tasks: Sequence[Task],
    clean: dict[str, np.ndarray],
    propose: Callable[[Labels], Sequence[tuple[Judged, np.ndarray]]],
    *,
    seed: int = 0,
) -> Trial:
    """Plant errors `TRIALS` times, and count what is proposed.

    Parameters
    ----------
    clean : {task: (n,) bool}
        Judged turns that may be given another speaker.
    propose : function of {task: codes}
        Judges the tasks with these labels; returns, per task, what was judged, and the proposed
        label of each turn, (n,) int, -1 for none.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros(3, int)
    for _ in range(TRIALS):
        drawn = {task.name: _plant(task, clean[task.name], rng) for task in tasks}
        labels = {name: codes for name, (codes, _) in drawn.items()}
        for (judged, names), task in zip(propose(labels), tasks, strict=True):
            place = np.searchsorted(task.rows["train"], judged.rows)
            planted = drawn[task.name][1][place]
            right = planted & (names == task.codes["train"][place])
            counts += (planted.sum(), right.sum(), (names >= 0).sum())
    return Trial(*map(int, counts))


def _plant(
    task: Task, clean: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return codes (m,) of the training rows, some of them wrong, and which are, (m,) bool."""
    place = np.searchsorted(task.rows["train"], task.rows["valid"][clean])
    count = min(len(place), max(1, round(RATE * len(task.rows["valid"]))))
    codes, planted = task.codes["train"].copy(), np.zeros(len(task.rows["train"]), bool)
    for row in rng.choice(place, count, replace=False):
        codes[row] = (codes[row] + rng.integers(1, len(task.labels))) % len(task.labels)
        planted[row] = True
    return codes, planted
