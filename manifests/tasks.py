"""Closed-set tasks on a table: which rows train, choose and test, and which label each row has.

A task is one closed set of labels: a meeting's speakers (``within="session"``) or everybody
(``within="corpus"``). Rows whose split is empty (purged) are in no task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..common.errors import InputError
from .split import read_record
from .table import SPLITS

if TYPE_CHECKING:
    import pandas as pd

WITHIN = ("session", "corpus")
WITHIN_CORPUS = ", within corpus"  # in a model's name, so that its scores carry a warning


@dataclass(frozen=True, eq=False)
class Task:
    """One closed set: `rows[split]` are row numbers of the table, `codes[split]` index `labels`.

    A code is -1 where the label has no training segment (always counted as wrong). `cuts` are the
    folds of cross-validation, (learnt, held out) as positions in ``rows["train"]``; then
    ``rows["valid"]`` are all that are held out in turn. Without folds there are none.
    """

    name: str
    labels: tuple[str, ...]
    rows: Mapping[str, np.ndarray]
    codes: Mapping[str, np.ndarray]
    cuts: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    @property
    def majority(self) -> int:
        """Return the code of the label with most training segments (the first of equals)."""
        return int(np.argmax(np.bincount(self.codes["train"], minlength=len(self.labels))))


def make_tasks(
    table: pd.DataFrame, within: str, *, needed: Sequence[str] = SPLITS, target: str = "speaker"
) -> tuple[list[Task], dict[str, str]]:
    """Return the tasks that can be done, in order of name, and {session: why not} for the others.

    `needed` are the splits in which a task must have segments; `target` is the column of labels.

    Raises
    ------
    InputError
        The table has no split, a needed split is empty everywhere, or no task is left.
    """
    require("within", within, WITHIN)
    check_splits(table, needed)
    sessions = table["session"].to_numpy(str)
    tasks, skipped = [], {}
    for name in sorted(set(map(str, sessions))) if within == "session" else ["corpus"]:
        rows = np.arange(len(table)) if within == "corpus" else np.flatnonzero(sessions == name)
        task = _make_task(table, name, rows, target)
        reason = _unfit(task, needed)
        if reason:
            counts = ", ".join(f"{len(task.rows[part])} {part}" for part in SPLITS)
            skipped[name] = f"{reason} ({counts})"
        else:
            tasks.append(task)
    if not tasks:
        first = next(iter(skipped))
        option = "pass --within corpus, or " if within == "session" else ""
        raise InputError(
            f"table: {len(skipped)} of {len(skipped)} tasks cannot be done, first {first!r} "
            f"({skipped[first]}), expected at least 1; {option}split it again with spk-manifests "
            "split"
        )
    return tasks, skipped


def check_splits(table: pd.DataFrame, needed: Sequence[str] = SPLITS) -> None:
    """Raise `InputError` unless the table has segments of every split in `needed`."""
    found = set(table["split"]) if "split" in table else set()
    for split in needed:
        if split not in found:
            option = ", its method and --valid-share SHARE" if split == "valid" else ""
            raise InputError(
                f"table: 0 segments have split {split!r}, expected at least 1; "
                f"make it anew with spk-manifests split{option}"
            )


def _make_task(table: pd.DataFrame, name: str, rows: np.ndarray, target: str) -> Task:
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
    )


def rows_of_split(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split, or all; raise `InputError` where there are none."""
    if split == "all":
        return table
    rows = table[table["split"] == split] if "split" in table else table[:0]
    if not len(rows):
        raise InputError(
            f"table: 0 of {len(table)} segments have split {split!r}, expected at least 1; "
            "pass --split all, or run spk-manifests split"
        )
    return rows


def rows_sha256(task: Task, table: pd.DataFrame) -> str:
    """Return a fingerprint of a task's rows: what was cut where, of whom, in which split."""
    rows = [row for part in task.rows.values() for row in part]
    columns = ["segment_id", "audio", "start", "end", "speaker", "session", "split"]
    # Only where rows name theirs: the fingerprints of tables without stay what they were.
    columns += ["channel"] if "channel" in table and (table["channel"] != "").any() else []
    return sha256(table.iloc[rows][columns].to_csv(index=False).encode()).hexdigest()


def _unfit(task: Task, needed: Sequence[str]) -> str:
    empty = [split for split in needed if not len(task.rows[split])]
    if empty:
        return f"no {empty[0]} segments"
    if len(task.labels) < 2:
        return f"{len(task.labels)} label in train, fewer than two"
    return ""


def split_method(path: str | Path) -> str:
    """Return how a table was split, from the note `spk-manifests split` leaves beside it.

    ``"random (leaky)"`` for the reference's split, ``"unknown"`` without a note.
    """
    record = read_record(path)
    if record is None:
        return "unknown"
    return "random (leaky)" if record["method"] == "random" else str(record["method"])


def require(where: str, value: str, choices: Sequence[str]) -> None:
    """Raise `InputError` unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(
            f"{where}: {value!r} is given, expected one of {', '.join(choices)}; correct it"
        )
