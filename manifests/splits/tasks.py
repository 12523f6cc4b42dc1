"""Closed-set tasks: which rows train, validate and test, and the label of each row.

A task is one closed set of labels: a session's speakers (``within="session"``) or all speakers
(``within="corpus"``). Rows with an empty split (purged) are in no task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError, check_choice
from ..table import SPLITS

if TYPE_CHECKING:
    import pandas as pd


WITHIN = ("session", "corpus")
WITHIN_CORPUS = ", within corpus"  # in a model's name, so that its scores carry a warning


@dataclass(frozen=True, eq=False)
class Task:
    """One closed set: `rows[split]` are row numbers of the table, `codes[split]` index `labels`.

    A code is -1 if the label has no training segment (always counted as wrong). `majority_code` is
    the code of the label that `majority_label` returns. `cuts` are the cross-validation folds,
    (training, held out) as positions in ``rows["train"]``; ``rows["valid"]`` are then all rows that
    are held out in turn. Empty without cross-validation.
    """

    name: str
    labels: tuple[str, ...]
    rows: Mapping[str, np.ndarray]
    codes: Mapping[str, np.ndarray]
    cuts: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    majority_code: int = 0


def majority_label(labels: Iterable[str], among: Iterable[str]) -> str:
    """Return the candidate in `among` that is most frequent in `labels`.

    Ties go to the first name in order. This is the only definition of a majority: `labels` are
    those of the closed set's rows of split train, with or without features, even if
    cross-validation joins train and valid.

    >>> majority_label(["b", "a", "b", "a", "c", "c", "c"], ["b", "a"])
    'a'
    """
    counts = Counter(labels)
    return max(sorted(set(among)), key=lambda label: counts[label])


def make_tasks(
    table: pd.DataFrame,
    within: str,
    *,
    needed: Sequence[str] = SPLITS,
    target: str = "speaker",
    whole: pd.DataFrame | None = None,
) -> tuple[list[Task], dict[str, str]]:
    """Return the feasible tasks, in order of name, and {session: why not} for the others.

    `needed` are the splits in which a task must have segments; `target` is the column of labels;
    `whole` is the table as it was split, in case `table` has fewer rows or other splits: the
    majority is counted there.

    Raises
    ------
    InputError
        The table has no split, a needed split is empty everywhere, or no task is feasible.
    """
    check_choice("within", within, WITHIN)
    check_splits(table, needed)
    train = rows_in_train(table if whole is None else whole)
    tasks, skipped = [], {}
    for name, rows in _closed_sets(table, within).items():
        part = train if within == "corpus" else train[train["session"] == name]
        task = _make_task(table, name, rows, target, part)
        reason = _unfit(task, needed)
        if reason:
            counts = ", ".join(f"{len(task.rows[part])} {part}" for part in SPLITS)
            skipped[name] = f"{reason} ({counts})"
        else:
            tasks.append(task)
    if not tasks:
        raise InputError(_no_task(table, skipped, needed, target))
    return tasks, skipped


def _closed_sets(table: pd.DataFrame, within: str) -> dict[str, np.ndarray]:
    """Return {name: row numbers} of a table's closed sets, in order of name."""
    sessions = table["session"].to_numpy(str)
    if within == "corpus":
        return {"corpus": np.arange(len(table))}
    return {str(name): np.flatnonzero(sessions == name) for name in sorted(set(sessions))}


def _no_task(
    table: pd.DataFrame, skipped: Mapping[str, str], needed: Sequence[str], target: str
) -> str:
    """Return the message for a table without a feasible task, with a repair that helps."""
    first = next(iter(skipped))
    rows = np.arange(len(table))
    everybody = _make_task(table, "corpus", rows, target, table[:0])
    if first != "corpus" and not _unfit(everybody, needed):
        repair = "pass --within corpus"
    elif len(everybody.labels) < 2:
        repair = f"use a table in which split train has segments of two {target}s or more"
    else:
        repair = "split it again with spk-manifests split"
    return (
        f"table: {counted(len(skipped), 'task', of=len(skipped))} cannot be done, first {first!r} "
        f"({skipped[first]}), expected at least 1; {repair}"
    )


def check_splits(table: pd.DataFrame, needed: Sequence[str] = SPLITS) -> None:
    """Raise `InputError` unless the table has segments of every split in `needed`."""
    for split in needed:
        if "split" not in table or not (table["split"] == split).any():
            option = " and --valid-share SHARE" if split == "valid" else ""
            raise InputError(
                f"table: 0 segments have split {split!r}, expected at least 1; "
                f"make it again with spk-manifests split{option}"
            )


def rows_in_train(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of split train; none if the table has no split."""
    return table[table["split"] == "train"] if "split" in table else table[:0]


def _make_task(
    table: pd.DataFrame, name: str, rows: np.ndarray, target: str, train: pd.DataFrame
) -> Task:
    """Build the task of these row numbers; its majority is counted in the rows `train`."""
    split = table["split"].to_numpy(str)[rows]
    label = table[target].to_numpy(str)[rows]
    labels = tuple(sorted(map(str, set(label[split == "train"]))))
    number = {text: code for code, text in enumerate(labels)}
    codes = np.array([number.get(text, -1) for text in label], dtype=np.int64)
    return Task(
        name,
        labels,
        {part: rows[split == part] for part in SPLITS},
        {part: codes[split == part] for part in SPLITS},
        majority_code=number[majority_label(train[target], labels)] if labels else 0,
    )


def rows_of_split(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split, or all; raise `InputError` if there are none."""
    if split == "all":
        return table
    rows = table[table["split"] == split] if "split" in table else table[:0]
    if not len(rows):
        raise InputError(
            f"table: {counted(0, 'segment', 'has', of=len(table))} split {split!r}, expected at "
            "least 1; pass --split all, or run spk-manifests split"
        )
    return rows


def rows_sha256(task: Task, table: pd.DataFrame) -> str:
    """Return a fingerprint of a task's rows: audio, times, speaker, session and split."""
    rows = [row for part in task.rows.values() for row in part]
    columns = ["segment_id", "audio", "start", "end", "speaker", "session", "split"]
    # Only if rows name a channel, so that fingerprints of tables without channels do not change.
    columns += ["channel"] if "channel" in table and (table["channel"] != "").any() else []
    return sha256(table.iloc[rows][columns].to_csv(index=False).encode()).hexdigest()


def _unfit(task: Task, needed: Sequence[str]) -> str:
    empty = [split for split in needed if not len(task.rows[split])]
    if empty:
        return f"no {empty[0]} segments"
    if len(task.labels) < 2:
        return f"{len(task.labels)} label in train, fewer than two"
    return ""
