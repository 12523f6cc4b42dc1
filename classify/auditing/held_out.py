"""Judge each turn of a session by a classifier trained on neither it nor turns near it.

Folds are those of `selection.cross_validation`: blocks of time per speaker, purged at the edges.
Here the opening roll call is also judged, and train, valid, test and purged turns are all used for
training: all labels are in question, and no score is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...common.errors import InputError
from ...extract.store.reader import FeatureStore
from ...manifests.splits.tasks import Task
from ..classifiers.calibration import probabilities
from ..classifiers.temperatures import task_temperatures
from ..evaluation.sweep_choice import read_config
from ..features import LayerSet
from ..options import SweepSettings
from ..selection.candidates import choose, learnt_codes
from ..selection.cross_validation import add_folds, cross_validate
from ..selection.prepare import Prepared, prepare_tasks
from ..selection.run_inputs import check_same_store
from ..selection.sweep import one_thread, sweep
from .options import AuditOptions

if TYPE_CHECKING:
    import pandas as pd

NEVER_LEARNT = "the speaker has no other turn that is far enough away to learn from"


@dataclass(frozen=True)
class Learner:
    """What is fitted in each fold: a layer set, its part of the pooling, a classifier."""

    layers: LayerSet
    classifier: str
    penalty: float | None
    pooling_part: str = "both"

    @property
    def name(self) -> str:
        """Return the entry of a model column, such as ``ridge, layer 5``."""
        return f"{self.classifier}, {self.layers.description}"


@dataclass(frozen=True, eq=False)
class Judged:
    """The judged turns of a session: n row numbers of the table, and K labels.

    Attributes
    ----------
    codes : (n,) int
        The label of each turn; -1 if its fold was not trained on that label.
    scores : (n, K) float64
        Of classifiers that were not trained on the turn; -inf if they lack the label.
    chances : (n, K) float64
        Calibrated probabilities; rows sum to 1.
    """

    name: str
    labels: tuple[str, ...]
    rows: np.ndarray
    codes: np.ndarray
    scores: np.ndarray
    chances: np.ndarray

    @property
    def own(self) -> np.ndarray:
        """Return the probability (n,) of each turn's label; 0 if its fold lacks the label."""
        chances = self.chances[np.arange(len(self.rows)), np.maximum(self.codes, 0)]
        return np.where(self.codes >= 0, chances, 0)

    @property
    def others(self) -> np.ndarray:
        """Return the probabilities (n, K) with that of each turn's own label set to -1."""
        rest = self.chances.copy()
        judged = np.flatnonzero(self.codes >= 0)
        rest[judged, self.codes[judged]] = -1
        return rest


def prepare(
    table: pd.DataFrame, store: FeatureStore, options: AuditOptions
) -> tuple[Prepared, list[Task], dict[str, str]]:
    """Return the rows with features, the tasks with folds, and {session: why it is left out}.

    Raises
    ------
    InputError
        Segments have no features, or no session can be folded.
    """
    settings = _settings(options, folds=0)
    ready = prepare_tasks(table.assign(split="train"), store, settings, ("train",))
    tasks, unfolded = add_folds(
        ready.tasks, ready.table, options.folds, gap=options.gap, hold_out_roll_call=True
    )
    return ready, tasks, {**ready.skipped, **unfolded}


def _settings(options: AuditOptions, *, folds: int) -> SweepSettings:
    return SweepSettings(
        layers=options.layers,
        classifiers=options.classifiers,
        folds=folds,
        gap=options.gap,
        seed=options.seed,
        jobs=options.jobs,
    )


def choose_learner(
    table: pd.DataFrame, store: FeatureStore, tasks: Sequence[Task], options: AuditOptions
) -> Learner:
    """Return the choice of the sweep `options.run`, or the learner that names most labels right.

    The table may differ from the run's, as after a correction; the store must have its encoder.

    Raises
    ------
    InputError
        The run chose LightGBM, which cannot be cross-validated, or its store differs.
    """
    if options.run is None:
        settings = _settings(options, folds=options.folds)
        best = choose(sweep(table, store, tasks, settings))
        return Learner(best.layers, best.classifier, best.penalty)
    return _learner_of_run(Path(options.run), store)


def _learner_of_run(run: Path, store: FeatureStore) -> Learner:
    config = read_config(run)
    repair = "pass the store that was swept"
    check_same_store(config["store"], store, whose=f"the store of {run}", repair=repair)
    chosen = config["chosen"]
    layers = LayerSet.from_dict(chosen)
    missing = [layer for layer in layers.layers if layer not in store.layers]
    if missing:
        raise InputError(
            f"{store.path}: layers {missing} are missing, found {list(store.layers)}, expected "
            f"those that {run} chose; {repair}"
        )
    if chosen["classifier"] == "lightgbm" or layers.weights or layers.standardise != "yes":
        raise InputError(
            f"{run}: chose {chosen['classifier']} on {layers.description}, which has no folds, "
            "expected a classifier that has; leave --run out, or name a sweep with --folds"
        )
    part = config["settings"].get("pooling_part", "both")
    return Learner(layers, chosen["classifier"], chosen["penalty"], part)


def judge(
    tasks: Sequence[Task],
    X: np.ndarray,
    learner: Learner,
    *,
    seed: int = 0,
    labels: Mapping[str, np.ndarray] | None = None,
) -> list[Judged]:
    """Score each task's turns out of fold, and calibrate.

    Parameters
    ----------
    X : (rows of the table, d) float
    labels : {task: codes}, optional
        Used instead of the tasks' own codes of their training rows.
    """
    with one_thread([learner.classifier]):
        scored = [_scores(task, X, learner, seed, (labels or {}).get(task.name)) for task in tasks]
    heats = task_temperatures([s for s, _ in scored], [codes for _, codes in scored])
    return [
        Judged(task.name, task.labels, task.rows["valid"], codes, s, probabilities(s, heat))
        for task, (s, codes), heat in zip(tasks, scored, heats, strict=True)
    ]


def _scores(
    task: Task, X: np.ndarray, learner: Learner, seed: int, codes: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (n, K) of the judged turns, and their codes (n,), -1 if the fold lacks them."""
    codes = task.codes["train"] if codes is None else codes
    path = {learner.classifier: (learner.penalty,)}
    rows, classes = X[task.rows["train"]], len(task.labels)
    scores, _ = cross_validate(rows, codes, classes, task.cuts, path, seed=seed)
    block = scores[learner.classifier][0]
    judged = codes[np.searchsorted(task.rows["train"], task.rows["valid"])]
    return block, learnt_codes(judged, block)
