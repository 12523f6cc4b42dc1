"""Estimate whether errors would be found, by planting some in the audited data itself.

The suspects are removed, some other turns are given another speaker of their session, and
everything is judged again. The share of planted errors that is proposed with the right name is the
most that an audit with this encoder can find, since turns that are short or hard to tell are
spared. If it is low, nothing is proposed.

The trial cannot tell how many of the first proposals are the recogniser's own mistakes, which look
like wrong labels. Its precision counts all of them as mistakes, so it is a lower bound at this rate
of errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...manifests.splits.tasks import Task
from ..metrics import wilson
from .held_out import Judged

RATE = 0.05  # share of turns that are given another speaker
TRIALS = 3
CARRIES = 0.5  # share of planted errors to be found; below it, nothing is proposed

Labels = dict[str, np.ndarray]  # codes of each task's training rows


@dataclass(frozen=True)
class Trial:
    """Numbers of planted errors, of those proposed correctly, and of all proposals.

    `proposed` counts in each repetition the audit's own proposals and the trial's further ones.
    """

    planted: int
    right: int
    proposed: int

    @property
    def recall(self) -> tuple[float, float, float]:
        """Return the share of planted errors that is found, with its 95 % interval."""
        return _share(self.right, self.planted)

    @property
    def precision(self) -> tuple[float, float, float]:
        """Return a lower bound of the share of correct proposals, with its 95 % interval."""
        return _share(self.right, self.proposed)

    @property
    def carries(self) -> bool:
        """Return whether enough errors are found to make proposals."""
        return self.recall[0] >= CARRIES


def _share(count: int, of: int) -> tuple[float, float, float]:
    return (count / of, *wilson(count, of)) if of else (0.0, 0.0, 1.0)


def without(task: Task, suspect: np.ndarray) -> Task:
    """Return a task without the turns `suspect`, (n,) bool, in training or judgement."""
    gone = np.searchsorted(task.rows["train"], task.rows["valid"][suspect])
    cuts = [tuple(part[~np.isin(part, gone)] for part in cut) for cut in task.cuts]
    folded = tuple((learnt, held_out) for learnt, held_out in cuts if len(learnt) and len(held_out))
    judged = np.sort(np.concatenate([part for _, part in folded])) if folded else gone[:0]
    return replace(
        task,
        cuts=folded,
        rows={**task.rows, "valid": task.rows["train"][judged]},
        codes={**task.codes, "valid": task.codes["train"][judged]},
    )


def try_planted(
    tasks: Sequence[Task],
    eligible: dict[str, np.ndarray],
    propose: Callable[[Labels], Sequence[tuple[Judged, np.ndarray]]],
    *,
    before: int = 0,
    seed: int = 0,
) -> Trial:
    """Plant errors `TRIALS` times, and count the proposals.

    Parameters
    ----------
    tasks
        Without the suspects, as returned by `without`.
    eligible : {task: (n,) bool}
        Turns in ``rows["valid"]`` that may be given another speaker.
    propose : function of {task: codes}
        Judges the tasks with these labels; returns for each task what was judged, and the proposed
        label of each turn, (n,) int, -1 for none.
    before : int
        Number of proposals of the audit itself.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros(3, int)
    for _ in range(TRIALS):
        drawn = {task.name: _plant(task, eligible[task.name], rng) for task in tasks}
        labels = {name: codes for name, (codes, _) in drawn.items()}
        for (judged, names), task in zip(propose(labels), tasks, strict=True):
            place = np.searchsorted(task.rows["train"], judged.rows)
            planted = drawn[task.name][1][place]
            right = planted & (names == task.codes["train"][place])
            counts += (planted.sum(), right.sum(), (names >= 0).sum())
    return Trial(int(counts[0]), int(counts[1]), int(counts[2]) + TRIALS * before)


def _plant(
    task: Task, eligible: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return codes (m,) of the training rows, some of them wrong, and which ones, (m,) bool."""
    place = np.searchsorted(task.rows["train"], task.rows["valid"][eligible])
    count = min(len(place), max(1, round(RATE * len(task.rows["valid"]))))
    codes, planted = task.codes["train"].copy(), np.zeros(len(task.rows["train"]), bool)
    for row in rng.choice(place, count, replace=False):
        codes[row] = (codes[row] + rng.integers(1, len(task.labels))) % len(task.labels)
        planted[row] = True
    return codes, planted
