"""Cross-validation over train and valid: folds are blocks of time per speaker, purged at the edges.

Each speaker's segments in a session are cut into blocks of consecutive segments; every block is
held out once, except the opening roll call, which is always in training. Segments within `gap`
seconds of a held-out segment, or sharing audio with one, are left out of that fold's training rows,
whoever speaks in them. Test rows and rows that the split purged are in no fold.

Each held-out row is scored by classifiers that were not trained on it. Where folds have more
training rows than features, ridge, LDA and centroid come from sums computed once (`fold_sums`);
otherwise, and for the other classifiers, each fold's rows are rotated once for all classifiers and
penalties (`linear.principal_axes`). Both equal a scikit-learn pipeline of scaler and classifier
fitted fold by fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...manifests.splits.methods import time_blocks
from ...manifests.splits.overlap import RECORDING, count_neighbours, has_common_clock
from ...manifests.splits.roll_call import roll_call_mask
from ...manifests.splits.tasks import Task, make_tasks
from ..classifiers.fitted import TrainingSet
from ..classifiers.fold_sums import (
    Cut,
    FoldSums,
    GramSums,
    centroid_scores,
    lda_scores,
    ridge_scores,
)
from ..classifiers.linear import PrincipalAxes, principal_axes
from ..classifiers.registry import fit_path
from ..features import LayerSet

if TYPE_CHECKING:
    import pandas as pd


FEWEST = 2  # folds
SUGGESTED = range(5, FEWEST - 1, -1)
GAPS = (2.0, 1.0, 0.0)  # s, tried in this order for a message's repair; the first is the default


def join_tuning(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its validation rows renamed to train, since folds use both."""
    return table.assign(split=table["split"].replace({"valid": "train"}))


def check_folds(folds: int, gap: float) -> None:
    """Raise `InputError` unless `folds` is 0 or at least 2, and `gap` (s) is >= 0."""
    if folds != 0 and folds < FEWEST:
        raise InputError(
            f"folds: {folds} is given, expected 0 (validation rows) or {FEWEST} and more; "
            "correct --folds"
        )
    if not gap >= 0:
        raise InputError(f"gap: {gap:g} s is given, expected >= 0; correct --gap")


def add_folds(
    tasks: Sequence[Task],
    table: pd.DataFrame,
    folds: int,
    *,
    gap: float = 2.0,
    hold_out_roll_call: bool = False,
) -> tuple[list[Task], dict[str, str]]:
    """Return the tasks with `cuts`, and {task: why not} for those that cannot be folded.

    Parameters
    ----------
    tasks : sequence of Task
        Made from `table` after `join_tuning`.
    folds : int, >= 2
    gap : float, >= 0
        Distance (s) from a held-out segment within which segments are not trained on. Where a
        session spans several audio files, its times are not comparable and nothing is purged.
    hold_out_roll_call : bool
        Treat the opening roll call like other turns.

    Returns
    -------
    tasks : list of Task
        ``rows["valid"]`` and ``codes["valid"]`` are the rows held out in turn.
    skipped : {name: reason}
    """
    check_folds(folds, gap)
    folded, skipped = [], {}
    for task in tasks:
        part = table.iloc[task.rows["train"]].reset_index(drop=True)
        cuts = _held_out(part, folds, gap, keep_roll_call=not hold_out_roll_call)
        reason = _why_not(cuts, folds)
        if reason:
            skipped[task.name] = reason
            continue
        held_out = np.sort(np.concatenate([positions for _, positions in cuts]))
        rows = {**task.rows, "valid": task.rows["train"][held_out]}
        codes = {**task.codes, "valid": task.codes["train"][held_out]}
        folded.append(replace(task, rows=rows, codes=codes, cuts=tuple(cuts)))
    if not folded:
        name, reason = next(iter(skipped.items()))
        raise InputError(
            f"table: 0 of {counted(len(skipped), 'task')} can be folded, first {name!r} "
            f"({reason}), expected at least 1; {_fewer_folds(tasks, table, folds, gap)}"
        )
    return folded, skipped


def suggest_folds(table: pd.DataFrame, within: str) -> str:
    """Return options that fold a table without validation rows; "" if none do."""
    joined = join_tuning(table)
    try:
        tasks, _ = make_tasks(joined, within, needed=("train",))
    except InputError:
        return ""
    return _options(tasks, joined, SUGGESTED, GAPS, given=GAPS[0])


def _fewer_folds(tasks: Sequence[Task], table: pd.DataFrame, folds: int, gap: float) -> str:
    """Return the repair for the error that no task can be folded."""
    fewer = range(min(folds, SUGGESTED[0]), FEWEST - 1, -1)
    options = _options(
        tasks, table, fewer, (gap, *(less for less in GAPS if less < gap)), given=gap
    )
    return options or "leave --folds out, so that the validation rows decide"


def _options(
    tasks: Sequence[Task],
    table: pd.DataFrame,
    folds: Sequence[int],
    gaps: Sequence[float],
    *,
    given: float,
) -> str:
    """Return the first --folds and --gap with which a task can be folded; "" if there are none.

    The gap is included only if it differs from `given`.
    """
    parts = [table.iloc[task.rows["train"]].reset_index(drop=True) for task in tasks]
    for gap in gaps:
        for number in folds:
            if any(_why_not(_held_out(part, number, gap), number) == "" for part in parts):
                return f"pass --folds {number}" + (f" --gap {gap:g}" if gap != given else "")
    return ""


def _held_out(
    part: pd.DataFrame, folds: int, gap: float, *, keep_roll_call: bool = True
) -> list[tuple[np.ndarray, np.ndarray]]:
    return [cut for cut in _cuts(part, folds, gap, keep_roll_call) if len(cut[1])]


def _why_not(cuts: Sequence[tuple[np.ndarray, np.ndarray]], folds: int) -> str:
    """Return why these cuts cannot serve as folds; empty if they can."""
    empty = sum(not len(learnt) for learnt, _ in cuts)
    if empty or not cuts:
        return f"{counted(empty, 'fold', 'has', of=folds)} nothing left to learn from"
    return ""


def _cuts(
    table: pd.DataFrame, folds: int, gap: float, keep_roll_call: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    timed = has_common_clock(table)
    roll_call = roll_call_mask(table) if timed and keep_roll_call else np.zeros(len(table), bool)
    block = time_blocks(table, folds, roll_call)
    return [_cut(table, block == fold, gap if timed else None) for fold in range(folds)]


def _cut(
    table: pd.DataFrame, held_out: np.ndarray, gap: float | None
) -> tuple[np.ndarray, np.ndarray]:
    learnt = ~held_out
    if gap is not None:
        near = count_neighbours(table, learnt, held_out, by=RECORDING, gap=gap) > 0
        learnt[np.flatnonzero(learnt)[near]] = False
    return np.flatnonzero(learnt), np.flatnonzero(held_out)


Paths = Mapping[str, Sequence[float | None]]  # penalties by classifier
Scores = dict[str, list[np.ndarray]]  # by classifier, one (m, classes) per penalty
ALONE = LayerSet((0,))
BY_SUMS = ("ridge", "lda", "centroid")


def cross_validate(
    X: np.ndarray,
    codes: np.ndarray,
    classes: int,
    cuts: Sequence[Cut],
    paths: Paths,
    *,
    seed: int = 0,
) -> tuple[Scores, dict[str, list[str]]]:
    """Score each held-out row once by every classifier and penalty.

    Parameters
    ----------
    X : (n, d) float
    codes : (n,) int, 0 .. `classes` - 1
    cuts : sequence of (learnt, held_out)
        Positions of rows; no row is held out twice.
    paths : {classifier: penalties}
        As from `registry.penalty_path`; LightGBM, which needs rows to stop by, is not allowed.

    Returns
    -------
    scores : {classifier: [(m, classes) float64 per penalty]}
        Rows in order of position; -inf if a fold's training rows lack the class.
    notes : {classifier: [str per penalty]}
        On fits that did not converge.

    Raises
    ------
    InputError
        `paths` has LightGBM.
    """
    return score_folds(GramSums(X, codes, classes, cuts), paths, seed=seed)


def score_folds(
    rows: GramSums, paths: Paths, *, seed: int = 0
) -> tuple[Scores, dict[str, list[str]]]:
    """Do as `cross_validate`, reusing the sums of `rows` between calls."""
    if "lightgbm" in paths:
        raise InputError(
            "lightgbm: 0 validation segments are given, expected at least 1 for early stopping; "
            "leave lightgbm out of --classifiers, or --folds out"
        )
    X, codes, classes = rows.X, rows.codes, rows.classes
    scores = {name: [np.empty((0, classes))] * len(path) for name, path in paths.items()}
    notes = {name: [""] * len(path) for name, path in paths.items()}
    for number, (learnt, held_out) in enumerate(rows.cuts):
        summed = len(learnt) > X.shape[1] and not set(BY_SUMS).isdisjoint(paths)
        part = rows.fold_sums(number) if summed else None
        scored = _from_sums(part, X[held_out], paths) if part else {}
        rest = {name: path for name, path in paths.items() if name not in scored}
        if rest:
            rotation = principal_axes(X[learnt])
            scored |= _from_rows(rotation, codes[learnt], classes, X[held_out], rest, seed, notes)
        for name, blocks in scored.items():
            scores[name] = [np.concatenate(pair) for pair in zip(scores[name], blocks, strict=True)]
    order = np.argsort(np.concatenate([held_out for _, held_out in rows.cuts]))
    return {name: [block[order] for block in blocks] for name, blocks in scores.items()}, notes


def _from_sums(sums: FoldSums, rows: np.ndarray, paths: Paths) -> Scores:
    """Return the scores of the classifiers that can be fitted exactly from the sums."""
    scores: Scores = {}
    strengths = {name: [p for p in path if p is not None] for name, path in paths.items()}
    if "centroid" in paths:
        scores["centroid"] = [centroid_scores(sums, rows)]
    if "ridge" in paths:
        scores["ridge"] = ridge_scores(sums, rows, strengths["ridge"])
    if "lda" in paths:
        blocks = lda_scores(sums, rows, strengths["lda"])
        if blocks is not None:
            scores["lda"] = blocks
    return scores


def _from_rows(
    rotation: PrincipalAxes,
    codes: np.ndarray,
    classes: int,
    rows: np.ndarray,
    paths: Paths,
    seed: int,
    notes: dict[str, list[str]],
) -> Scores:
    """Fit on a fold's rows; the scores of absent classes are -inf."""
    present, local = np.unique(codes, return_inverse=True)
    fold, turned = TrainingSet(rotation, local, len(present), seed=seed), rotation.project(rows)
    scores: Scores = {}
    for name, path in paths.items():
        scores[name] = [np.full((len(rows), classes), -np.inf) for _ in path]
        if len(present) == 1:  # a single class
            for block in scores[name]:
                block[:, present] = 0
            continue
        for number, head in enumerate(fit_path(name, fold, path)):
            scores[name][number][:, present] = head.scores(rotation, rows, turned)
            notes[name][number] = notes[name][number] or head.note
    return scores
