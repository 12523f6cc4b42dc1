"""Sweep layers x classifiers x penalties: fitted on train, compared on validation, never on test.

Validation is the table's validation rows or, with folds, every row of train and valid, held out in
turn. Layers are distributed among processes, here or on the machines of Ray, each with one layer in
memory; linear algebra runs on one thread per process, so results do not depend on the number of
processes. This process alone adds each layer's fits to the cache as they finish.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.counts import counted
from ...common.cpus import available_cores
from ...common.engine.folders import check_machines
from ...common.engine.options import stopping_line
from ...common.engine.processes import run_in_processes
from ...common.engine.ray_engine import run_units
from ...common.engine.ray_session import unit_resources
from ...common.engine.work import (
    Done,
    FailedUnit,
    Job,
    Unit,
    UnitsFailedError,
    tell_failed,
    unit_key,
)
from ...common.errors import InputError
from ...common.log import log as tell
from ...common.log import progress_bar
from ...common.signals import stop_then_raise
from ...extract.store.reader import FeatureStore
from ...manifests.splits.tasks import Task
from ..classifiers.boosted_trees import TREE_ROUNDS
from ..classifiers.fitted import TrainingSet
from ..classifiers.fold_sums import GramSums
from ..classifiers.linear import principal_axes
from ..classifiers.registry import fit_path, penalty_path
from ..features import Log, layer_sets, read_features
from ..metrics import interval_groups
from ..options import SweepSettings
from .candidates import Candidate, ValidationScores, classifier_names, make_trial
from .cross_validation import Paths, score_folds
from .sweep_cache import COMPUTED_BY, Share, SweepCache, remaining_work

if TYPE_CHECKING:
    import pandas as pd


TUNING = ("train", "valid")
PACKAGES = ("spk-toolkit", *COMPUTED_BY)  # must have the same version on all machines


@dataclass(frozen=True, eq=False)
class _Work:
    """What each process receives once: the data and the settings."""

    store: FeatureStore
    ids: np.ndarray
    groups: np.ndarray  # of all validation rows; intervals resample these first
    tasks: Sequence[Task]
    settings: SweepSettings


def sweep(
    table: pd.DataFrame,
    store: FeatureStore,
    tasks: Sequence[Task],
    settings: SweepSettings,
    *,
    log: Log = lambda text: None,
    cells: SweepCache | None = None,
) -> list[Candidate]:
    """Try every layer set and classifier on the tasks and measure validation accuracy.

    Parameters
    ----------
    table : segment table
        Rows with features, as `features.rows_with_features` returns them; `tasks` hold its row
        numbers.
    store : FeatureStore
        Opened once; each process reads what it needs.
    cells : SweepCache, optional
        Finished trials, which are not repeated; new ones are added.

    Returns
    -------
    list of Candidate
        In order of layer set, then classifier; independent of `jobs`.

    Raises
    ------
    InputError
        A setting is unknown or not in the store, or LightGBM has no validation rows to stop by.
    UnitsFailedError
        Layers were given up because each killed its process; `cells` has the others.
    """
    names = classifier_names(settings)
    sets = layer_sets(settings.layers, settings.combine, store)
    cells = SweepCache() if cells is None else cells
    todo = remaining_work(cells, sets, settings)
    _tell_plan(tasks, len(sets) * len(names), todo, log)
    groups = validation_groups(table, tasks, settings)
    work = _Work(store, table["segment_id"].to_numpy(str), groups, tasks, settings)
    with progress_bar(sum(len(missing) for _, missing in todo), unit=" fits") as bar:

        def publish(_unit: Unit, done: Done) -> None:
            for trial in done.get():
                cells.add(trial)
                bar.update()

        _run(work, todo, publish)
    finished = [cells.get(layer_set, name) for layer_set in sets for name in names]
    return [trial for trial in finished if trial is not None]


def validation_groups(
    table: pd.DataFrame, tasks: Sequence[Task], settings: SweepSettings
) -> np.ndarray:
    """Return the groups (n,) int that intervals over all validation rows resample first."""
    rows = table.iloc[np.concatenate([task.rows["valid"] for task in tasks])]
    sessions, speakers = (rows[name].to_numpy(str) for name in ("session", "speaker"))
    return interval_groups(sessions, speakers, one_task=settings.within == "corpus")[0]


def _tell_plan(tasks: Sequence[Task], every: int, todo: Sequence[Share], log: Log) -> None:
    every_missing = [missing for _, missing in todo]
    left = sum(map(len, every_missing))
    if left < every:
        log(
            f"{counted(every - left, 'combination', 'was', of=every)} finished before, and not "
            "tried again"
        )
    grown = sum("lightgbm" in missing for missing in every_missing)
    if grown:
        trees = sum(len(task.labels) for task in tasks) * TREE_ROUNDS * grown
        log(
            f"lightgbm: at most {counted(trees, 'tree')} ({TREE_ROUNDS} rounds, "
            f"{counted(grown, 'layer set')})"
        )


def _processes(jobs: int, sets: int) -> int:
    if jobs < 0:
        raise InputError(f"jobs: {jobs} is given, expected 0 (all cores) or more; correct --jobs")
    return min(jobs or available_cores(), sets)


def _run(work: _Work, todo: Sequence[Share], publish: Callable[[Unit, Done], None]) -> None:
    """Run the shares, here or on the machines of Ray, and publish each as it finishes."""
    if not todo:
        return
    settings, units = work.settings, [_unit(work, share) for share in todo]
    job = Job(fit_unit, work, units, publish)
    if settings.engine == "ray":
        failed = _run_on_ray(job, work.store, settings.ray_address)
    else:
        failed = run_in_processes(job, _processes(settings.jobs, len(todo)))
        tell_failed(failed, tell)
    if failed:
        raise UnitsFailedError("sweep", failed, len(units))


def _run_on_ray(job: Job, store: FeatureStore, address: str | None) -> list[FailedUnit]:
    def describe(ray: Any) -> Job:
        check_machines(ray, None, _files(store), packages=PACKAGES)
        core = unit_resources(ray, gpus=0, cores=1, option="--ray-address")
        return replace(job, resources=core)

    with stop_then_raise(tell, stopping_line("ray")) as stop:
        return run_units(address, describe, stop, tell)[1]


def _unit(work: _Work, share: Share) -> Unit:
    layer_set, names = share
    key = unit_key(work.store.fingerprint, layer_set.to_dict(), names)
    return Unit(key, f"{layer_set.description}, {', '.join(names)}", share)


def _files(store: FeatureStore) -> list[tuple[str, str]]:
    """Return the files of a store that other machines must see with the same content."""
    path = os.path.abspath(store.path)
    shards = [str(shard.path) for shard in store.shards]
    files = [os.path.join(path, "store.json"), path, *shards[:1], *shards[-1:]]
    return [(f"the store {path}", file) for file in dict.fromkeys(files)]


def fit_unit(work: _Work, share: Share) -> Done:
    """Fit a share in a process of its own; return its trials."""
    return Done.by(_try_layers, work, share)


@contextmanager
def one_thread(classifiers: Sequence[str]) -> Iterator[None]:
    """Limit linear algebra to one thread, so that processes do not compete and sums are ordered."""
    import scipy.linalg  # noqa: F401  the limit holds only for libraries that are loaded
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if "linear-svm" in classifiers:
        import sklearn.svm  # noqa: F401
    with threadpool_limits(1):
        yield


def _try_layers(work: _Work, share: Share) -> list[Candidate]:
    """Fit classifiers on every task with one layer set, which is read once."""
    layer_set, names = share
    rows = np.unique(np.concatenate([task.rows[s] for task in work.tasks for s in TUNING]))
    X = read_features(work.store, work.ids[rows], layer_set, work.settings.pooling_part)
    paths = {name: penalty_path(name, work.settings.penalty) for name in names}
    outcomes: dict[str, list[ValidationScores]] = {name: [] for name in names}
    with one_thread(names):
        for task in work.tasks:
            train, valid = (X[np.searchsorted(rows, task.rows[s])] for s in TUNING)
            sums = GramSums(train, task.codes["train"], len(task.labels), task.cuts)
            fitted = validate(task, sums, valid, paths, work.settings.seed)
            for name, outcome in fitted.items():
                outcomes[name].append(outcome)
    codes = np.concatenate([task.codes["valid"] for task in work.tasks])
    return [
        make_trial(layer_set, name, outcomes[name], codes, work.groups, work.settings)
        for name in names
    ]


def validate(
    task: Task,
    rows: GramSums,
    valid: np.ndarray,
    paths: Paths,
    seed: int,
) -> dict[str, ValidationScores]:
    """Return each classifier's scores of a task's validation rows, once per penalty in `paths`.

    `rows` and `valid` (m, d) are the features of the task's training and validation rows; with
    folds, `rows` has both.
    """
    if task.cuts:
        fold_scores, notes = score_folds(rows, paths, seed=seed)
        return {name: ValidationScores(fold_scores[name], notes[name]) for name in paths}
    fold = make_fold(task, rows.X, valid, seed)
    turned = fold.rotation.train[:0] if fold.valid is None else fold.valid
    outcomes = {}
    for name, path in paths.items():
        heads = fit_path(name, fold, path)
        scores = [head.scores(fold.rotation, valid, turned) for head in heads]
        outcomes[name] = ValidationScores(scores, [head.note for head in heads])
    return outcomes


def make_fold(
    task: Task,
    train: np.ndarray,
    valid: np.ndarray,
    seed: int,
    *,
    rounds: int = 0,
) -> TrainingSet:
    """Return a task's rotated training rows, with its validation rows.

    With `rounds` above 0 LightGBM grows that many, without early stopping.
    """
    rotation = principal_axes(train)
    turned = rotation.project(valid) if len(valid) else None
    codes = task.codes
    return TrainingSet(
        rotation, codes["train"], len(task.labels), turned, codes["valid"], seed, rounds
    )
