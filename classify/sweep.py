"""Layers x classifiers x penalties, tried on train, compared on validation; test is not touched.

Within sessions one penalty and one temperature serve all meetings: a meeting has about thirty
validation segments, too few to choose by. Layers are shared out among processes; the linear
algebra inside each runs on one thread, so results do not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..extract.store import FeatureStore
from ..manifests.table import InputError
from ..manifests.tasks import Task
from .calibrate import find_temperature, pad, probabilities
from .classifiers import PENALTIES, TREE_ROUNDS, Fold, fit_path, penalties_of
from .data import LayerSet, Teller, layer_sets, read_features
from .linear import rotate
from .measures import log_loss, mean_interval

if TYPE_CHECKING:
    import pandas as pd

TUNING = ("train", "valid")


@dataclass(frozen=True)
class Settings:
    """What is tried, and how.

    Attributes
    ----------
    within : "session" (a closed set per meeting) or "corpus" (one over all labels)
    layers : "all", "0-12" or "4,8"
    combine : "alone", "concat" or "average" of these layers
    pooling_part : "mean", "std" or "both" of the pooled vector
    classifiers : names, separated by commas
    penalty : the only one tried, or None for each classifier's own path
    seed : of resampling, the linear SVM and LightGBM
    jobs : processes; 0 = one per core
    """

    within: str = "session"
    layers: str = "all"
    combine: str = "alone"
    pooling_part: str = "both"
    classifiers: str = "centroid,ridge,lda,logistic"
    penalty: float | None = None
    seed: int = 0
    jobs: int = 0


@dataclass(frozen=True)
class Trial:
    """One layer set and classifier at its best penalty, as validation saw it.

    `correct` (n,) bool runs over all tasks' validation segments, in order of task and table.
    """

    layers: LayerSet
    classifier: str
    penalty: float | None
    temperature: float
    accuracy: float
    interval: tuple[float, float]
    log_loss: float
    correct: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return what a model column says, as in ``ridge, layer 5``."""
        kind = "layer" if self.layers.combine == "alone" else "layers"
        return f"{self.classifier}, {kind} {self.layers.name}"


@dataclass(frozen=True)
class _Work:
    """One process's share: `sets` to try, in the order they are read."""

    store: FeatureStore
    ids: np.ndarray
    sessions: np.ndarray
    tasks: Sequence[Task]
    sets: Sequence[LayerSet]
    settings: Settings


def sweep(
    table: pd.DataFrame,
    store: FeatureStore,
    tasks: Sequence[Task],
    settings: Settings,
    *,
    tell: Teller = lambda text: None,
) -> list[Trial]:
    """Try every layer set and classifier on the tasks; validation accuracy for each.

    Parameters
    ----------
    table : segment table
        Rows with features, as `data.match` returns them; `tasks` hold its row numbers.
    store : FeatureStore
        Opened once; each process reads what it needs.

    Returns
    -------
    list of Trial
        In order of layer set, then classifier. The same for any `jobs`.

    Raises
    ------
    InputError
        A setting is unknown or not in the store, or LightGBM has nothing to stop by.
    """
    names = classifier_names(settings)
    sets = layer_sets(settings.layers, settings.combine, store)
    if "lightgbm" in names:
        trees = sum(len(task.labels) for task in tasks) * TREE_ROUNDS * len(sets)
        tell(f"lightgbm: at most {trees} trees ({TREE_ROUNDS} rounds, {len(sets)} layer sets)")
    ids, sessions = table["segment_id"].to_numpy(str), table["session"].to_numpy(str)
    jobs = _processes(settings.jobs, len(sets))
    work = [_Work(store, ids, sessions, tasks, sets[job::jobs], settings) for job in range(jobs)]
    trials = [trial for share in _run(work) for trial in share]
    place = {layer_set: number for number, layer_set in enumerate(sets)}
    return sorted(trials, key=lambda trial: place[trial.layers])  # stable: classifiers keep theirs


def choose(trials: Sequence[Trial]) -> Trial:
    """Return the trial of highest validation accuracy; among equals, of lowest log-loss."""
    return min(trials, key=lambda trial: (-trial.accuracy, trial.log_loss))


def classifier_names(settings: Settings) -> list[str]:
    """Return the classifiers to try, checked with their penalty; ``all`` names every one."""
    text = settings.classifiers
    names = list(PENALTIES) if text == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        penalties_of(name, settings.penalty)
    if len(set(names)) < len(names):
        raise InputError(f"classifiers: {text!r} names one twice, expected each once; correct it")
    return names


def _processes(jobs: int, sets: int) -> int:
    if jobs < 0:
        raise InputError(f"jobs: {jobs} is given, expected 0 (all cores) or more; correct --jobs")
    if jobs == 0:
        from joblib import cpu_count  # type: ignore[import-untyped]

        jobs = cpu_count()
    return min(jobs, sets)


def _run(work: Sequence[_Work]) -> list[list[Trial]]:
    """Do each share of work in a process of its own (a single one in this process)."""
    if len(work) == 1:
        return [_try_share(work[0])]
    from joblib import Parallel, delayed, parallel_config

    with parallel_config("loky", n_jobs=len(work), inner_max_num_threads=1):
        return Parallel()(delayed(_try_share)(share) for share in work)


def _try_share(work: _Work) -> list[Trial]:
    with one_thread(classifier_names(work.settings)):
        return [trial for layer_set in work.sets for trial in _try_layers(work, layer_set)]


@contextmanager
def one_thread(classifiers: Sequence[str]) -> Iterator[None]:
    """Hold linear algebra to one thread: processes do not fight, and sums have one order."""
    import scipy.linalg  # noqa: F401  the limit holds only for libraries that are loaded
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if not {"logistic", "linear-svm"}.isdisjoint(classifiers):
        import sklearn.linear_model
        import sklearn.svm  # noqa: F401
    with threadpool_limits(1):
        yield


def _try_layers(work: _Work, layer_set: LayerSet) -> list[Trial]:
    """Fit every classifier on every task with one set of layers."""
    rows = np.unique(np.concatenate([task.rows[s] for task in work.tasks for s in TUNING]))
    X = read_features(work.store, work.ids[rows], layer_set, work.settings.pooling_part)
    names = classifier_names(work.settings)
    outcomes: dict[str, list[_Outcome]] = {name: [] for name in names}
    for task in work.tasks:
        train, valid = (X[np.searchsorted(rows, task.rows[s])] for s in TUNING)
        fold = make_fold(task, train, valid, work.settings.seed)
        for name in names:
            outcomes[name].append(_validate(name, fold, valid, work.settings))
    codes = np.concatenate([task.codes["valid"] for task in work.tasks])
    meetings = np.concatenate([work.sessions[task.rows["valid"]] for task in work.tasks])
    return [
        _trial(layer_set, name, outcomes[name], codes, meetings, work.settings) for name in names
    ]


def make_fold(task: Task, train: np.ndarray, valid: np.ndarray, seed: int) -> Fold:
    """Return a task's training rows turned, with its validation rows beside them."""
    rotation = rotate(train)
    turned = rotation.turn(valid) if len(valid) else None
    codes = task.codes
    return Fold(rotation, codes["train"], len(task.labels), turned, codes["valid"], seed)


@dataclass(frozen=True)
class _Outcome:
    """Validation scores (n, classes) of one task and classifier, one block per penalty."""

    scores: Sequence[np.ndarray]
    notes: Sequence[str]


def _validate(name: str, fold: Fold, valid: np.ndarray, settings: Settings) -> _Outcome:
    heads = fit_path(name, fold, penalties_of(name, settings.penalty))
    turned = fold.valid if fold.valid is not None else np.zeros((0, 0))
    return _Outcome(
        [head.scores(fold.rotation, valid, turned) for head in heads], [head.note for head in heads]
    )


def _trial(
    layer_set: LayerSet,
    name: str,
    outcomes: Sequence[_Outcome],
    codes: np.ndarray,
    meetings: np.ndarray,
    settings: Settings,
) -> Trial:
    """Return the penalty of highest accuracy over all tasks; among equals, of lowest log-loss."""
    penalties = penalties_of(name, settings.penalty)
    blocks = [pad([outcome.scores[k] for outcome in outcomes]) for k in range(len(penalties))]
    accuracies = [float(np.mean(block.argmax(axis=1) == codes)) for block in blocks]
    equals = [k for k, accuracy in enumerate(accuracies) if accuracy == max(accuracies)]
    losses = {k: _loss(blocks[k], codes) for k in equals}
    best = min(losses, key=lambda k: losses[k][0])
    correct = blocks[best].argmax(axis=1) == codes
    notes = sorted({outcome.notes[best] for outcome in outcomes} - {""})
    return Trial(
        layers=layer_set,
        classifier=name,
        penalty=penalties[best],
        temperature=losses[best][1],
        accuracy=accuracies[best],
        interval=mean_interval(correct, meetings, seed=settings.seed),
        log_loss=losses[best][0],
        correct=correct,
        notes=tuple(f"layers {layer_set.name}: {note}" for note in notes),
    )


def _loss(scores: np.ndarray, codes: np.ndarray) -> tuple[float, float]:
    """Return the calibrated log-loss over rows of known label, and the temperature it needs.

    NaN and 1 where no row's label is known.
    """
    known = codes >= 0
    if not known.any():
        return float("nan"), 1.0
    temperature = find_temperature(scores, codes)
    chances = probabilities(scores[known], temperature)
    return log_loss(chances[np.arange(len(chances)), codes[known]]), temperature
