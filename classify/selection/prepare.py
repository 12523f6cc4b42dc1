"""Prepare a table and a store for learning: rows with features, and tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import atomic_write
from ...extract.store.reader import FeatureStore
from ...manifests.splits.tasks import Task, check_splits, make_tasks
from ..features import layer_sets, rows_with_features
from ..options import SweepSettings
from .candidates import classifier_names
from .cross_validation import add_folds, join_tuning, suggest_folds
from .run_inputs import checksums

if TYPE_CHECKING:
    import pandas as pd


LEFT_OUT_FILE = "left_out.csv"
MOST_NAMED = 20  # sessions listed on the terminal; the file lists all
NO_STOP = "no validation segment of a speaker in train, which lightgbm needs for early stopping"


@dataclass(frozen=True, eq=False)
class Prepared:
    """The usable rows and tasks of a table, and what was left out.

    Attributes
    ----------
    table : DataFrame
        The rows with features; `tasks` hold its row numbers. With folds, valid is renamed train.
    whole : DataFrame
        The table as given.
    rejected : DataFrame
        Rows without features because extraction rejected them.
    skipped : {session or "corpus": why}
    """

    table: pd.DataFrame
    whole: pd.DataFrame
    rejected: pd.DataFrame
    tasks: Sequence[Task]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def left_out(self) -> pd.DataFrame:
        """Return the rows of the table that could not be used: `segment_id, session, reason`."""
        rows = self.whole[self.whole["split"] != ""]
        reasons = rows["session"].map(self.skipped)
        gone = rows["segment_id"].isin(set(self.rejected["segment_id"]))
        reasons = reasons.mask(gone & reasons.isna(), "rejected at extraction")
        unusable = rows[["segment_id", "session"]].assign(reason=reasons)
        return unusable[unusable["reason"].notna()].reset_index(drop=True)


def prepare_tasks(
    table: pd.DataFrame, store: FeatureStore, settings: SweepSettings, needed: Sequence[str]
) -> Prepared:
    """Return rows, tasks and what is left out; the splits `needed` must have rows.

    With folds, validation rows are renamed train, and none are needed. A task that one classifier
    cannot do is left out for all classifiers, so that they are compared on the same rows.

    Raises
    ------
    InputError
        Segments have no features, a setting is unknown, or no task is left.
    """
    names = classifier_names(settings)
    layer_sets(settings.layers, settings.combine, store)
    needed = [name for name in needed if not (settings.folds and name == "valid")]
    _check_parts(table, needed, settings)
    usable, rejected = rows_with_features(table, store)
    usable = join_tuning(usable) if settings.folds else usable
    _check_features(table, usable, store, needed)
    tasks, skipped = make_tasks(usable, settings.within, needed=needed, whole=table)
    if settings.within == "session":
        skipped |= _without_features(table, usable)
    if settings.folds:
        tasks, unfolded = add_folds(tasks, usable, settings.folds, gap=settings.gap)
        skipped |= unfolded
    reasons = {task.name: _unfit(task, usable, store, names, settings) for task in tasks}
    unfit = {name: why for name, why in reasons.items() if why}
    tasks = [task for task in tasks if task.name not in unfit]
    if not tasks:
        raise InputError(_nothing_left(unfit))
    return Prepared(usable, table, rejected, tasks, dict(sorted((skipped | unfit).items())))


def _check_parts(table: pd.DataFrame, needed: Sequence[str], settings: SweepSettings) -> None:
    """Check that each needed split has rows; for validation, the repair suggests folds."""
    parts = [name for name in needed if name != "valid"]
    check_splits(table, parts)
    if "valid" in needed and not (table["split"] == "valid").any():
        folds = suggest_folds(table, settings.within)
        grown = "lightgbm" in settings.classifiers.split(",")
        also = " and leave lightgbm out of --classifiers" if folds and grown else ""
        repair = folds or "make it again with spk-manifests split and --valid-share SHARE"
        raise InputError(
            "table: 0 segments have split 'valid', expected at least 1 to choose by; "
            f"{repair}{also}"
        )


def _check_features(
    table: pd.DataFrame, usable: pd.DataFrame, store: FeatureStore, needed: Sequence[str]
) -> None:
    """Check that extraction did not reject every segment of a split."""
    for name in needed:
        if not (usable["split"] == name).any():
            raise InputError(
                f"{store.path}: 0 of {counted((table['split'] == name).sum(), 'segment')} of "
                f"split {name!r} have features, expected at least 1; see why they were rejected "
                f"with spk-store info {store.path}"
            )


def _without_features(table: pd.DataFrame, usable: pd.DataFrame) -> dict[str, str]:
    """Return {session: reason} for sessions whose segments were all rejected at extraction."""
    gone = sorted(set(table["session"]) - set(usable["session"]))
    counts = table["session"].value_counts()
    return {name: f"all {counted(counts[name], 'segment')} rejected at extraction" for name in gone}


def _unfit(
    task: Task,
    table: pd.DataFrame,
    store: FeatureStore,
    names: Sequence[str],
    settings: SweepSettings,
) -> str:
    """Return why a task can be neither learnt nor chosen by; empty if it can."""
    if "lightgbm" in names and not settings.folds and not np.any(task.codes["valid"] >= 0):
        return f"{NO_STOP} ({len(task.rows['valid'])} valid)"
    rows = task.rows["train"]
    ids = table["segment_id"].to_numpy(str)[rows]
    if len(set(checksums(store, ids, layers_of(settings, store)))) == 1:
        return f"all {counted(len(rows), 'training segment', 'has')} the same features"
    return ""


def layers_of(settings: SweepSettings, store: FeatureStore) -> list[int]:
    """Return the layers that the settings use of a store, ascending."""
    sets = layer_sets(settings.layers, settings.combine, store)
    return sorted({layer for layer_set in sets for layer in layer_set.layers})


def _nothing_left(unfit: Mapping[str, str]) -> str:
    name, why = next(iter(unfit.items()))
    repair = (
        "leave lightgbm out of --classifiers"
        if why.startswith(NO_STOP)
        else "look at the recordings: silence gives such features"
    )
    return (
        f"table: {counted(len(unfit), 'task', of=len(unfit))} cannot be done, first {name!r} "
        f"({why}), expected at least 1; {repair}"
    )


def left_out_lines(rejected: pd.DataFrame, skipped: Mapping[str, str], file: str = "") -> list[str]:
    """Return lines on the sessions and segments left out; after `MOST_NAMED`, refer to `file`."""
    lines = [f"left out: {name}, {reason}" for name, reason in skipped.items()]
    if len(lines) > MOST_NAMED:
        more = f"left out: {counted(len(lines) - MOST_NAMED, 'more session')}"
        lines = [*lines[:MOST_NAMED], f"{more}, see {file}" if file else more]
    if len(rejected):
        first = rejected["segment_id"].iloc[0]
        lines.append(
            f"left out: {counted(len(rejected), 'segment')} rejected at extraction, first {first!r}"
        )
    return lines


def write_left_out(rows: pd.DataFrame, path: str | Path) -> bool:
    """Write the rows left out (`segment_id, session, reason`), or remove an earlier run's list.

    Returns whether there are any rows.
    """
    path = Path(path)
    if not len(rows):
        path.unlink(missing_ok=True)
        return False
    atomic_write(path, rows.to_csv(index=False, lineterminator="\n").encode())
    return True
