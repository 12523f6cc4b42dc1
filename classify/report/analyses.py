"""The report's sections on further analyses of a run, and how to make those that are missing.

``control.csv`` (label, person or meeting), ``learning.csv`` and ``openset.csv`` each give a figure,
a table and a sentence per run. A run that lacks one is listed with the command that writes it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation.learning_curve import conclude_curve
from ..evaluation.open_set import conclude_open_set
from ..evaluation.wording import conclude_control
from . import figures
from .runs import CONTROL_FILE, LEARNING_FILE, OPEN_SET_FILE, ReportedRun
from .tables import Cell, Table, interval_text, number_cell, percent_cell, sweep_command

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup


NO_SWEEP = "is not the folder of a sweep, which alone has one"
FOLDED = (
    "was swept with --folds, so no validation rows are left to set a threshold on; sweep without"
)


@dataclass(frozen=True)
class AnalysisSection:
    """A section: its runs, figure, table and sentences, and (run, why, command) of missing runs."""

    runs: Sequence[int]
    figure: Markup | None
    table: Table | None
    sentences: Sequence[tuple[int, str]]
    missing: Sequence[tuple[int, str, str]]


@dataclass(frozen=True)
class _Kind:
    """How to build a section: a run's file, its data frame, figure, rows and sentence."""

    file: str
    frame: Callable[[ReportedRun], pd.DataFrame | None]
    draw: Callable[[Sequence[tuple[int, pd.DataFrame]]], Markup]
    heads: Sequence[tuple[str, str]]
    row: Callable[[dict[str, Any]], list[Cell]]
    conclude: Callable[[pd.DataFrame], str]
    lacks: Callable[[ReportedRun, str], tuple[str, str]]


def sections(
    runs: Sequence[ReportedRun], table: str | Path | None = None
) -> dict[str, AnalysisSection | None]:
    """Return the sections on confounds (of runs over all labels), learning curves and open set.

    None if no run has the file and no command could make it.
    """
    return {
        "control": _section(CONTROL, [run.within_corpus for run in runs], runs, table),
        "learning": _section(LEARNING, [True] * len(runs), runs, table),
        "open_set": _section(OPEN_SET, [True] * len(runs), runs, table),
    }


def _section(
    kind: _Kind, applicable: Sequence[bool], runs: Sequence[ReportedRun], table: str | Path | None
) -> AnalysisSection | None:
    frames, missing = [], []
    for place, run in enumerate(runs):
        frame = kind.frame(run)
        if frame is not None:
            frames.append((place, frame))
        elif applicable[place]:
            missing.append((place, *kind.lacks(run, str(table or "TABLE"))))
    if not frames and not any(command for _, _, command in missing):
        return None
    rows = [
        [Cell(runs[place].name, run=place), *kind.row(row)]
        for place, frame in frames
        for row in frame.to_dict("records")
    ]
    return AnalysisSection(
        runs=[place for place, _ in frames],
        figure=kind.draw(frames) if frames else None,
        table=Table([("run", ""), *kind.heads], rows) if rows else None,
        sentences=[(place, kind.conclude(frame)) for place, frame in frames],
        missing=missing,
    )


def _adds(command: str, *, folds: bool) -> Callable[[ReportedRun, str], tuple[str, str]]:
    """Return a function giving why a run lacks `command`'s file, and the command to make it."""

    def lacks(run: ReportedRun, table: str) -> tuple[str, str]:
        if not run.swept:
            return NO_SWEEP, ""
        if run.folded and not folds:
            return FOLDED, ""
        return "", shlex.join(["spk-classify", command, table, "STORE", run.path])

    return lacks


def _lacks_control(run: ReportedRun, table: str) -> tuple[str, str]:
    return ("", sweep_command(run, table)) if run.swept else (NO_SWEEP, "")


def _draw_control(frames: Sequence[tuple[int, pd.DataFrame]]) -> Markup:
    groups = list(dict.fromkeys(name for _, frame in frames for name in frame["of"]))
    bars = {
        place: {
            row["of"]: figures.Bar(row["accuracy"], row["low"], row["high"], int(row["segments"]))
            for row in frame[frame["segments"] > 0].to_dict("records")
        }
        for place, frame in frames
    }
    return figures.bars(groups, bars, name="control", label="What is recognised")


def _control_row(row: dict[str, Any]) -> list[Cell]:
    return [
        Cell(row["of"]),
        number_cell(row["classes"]),
        percent_cell(row["accuracy"], row["low"], row["high"]),
        percent_cell(row["majority"]),
        percent_cell(row["mean"], row["mean_low"], row["mean_high"]),
        percent_cell(row["mean_majority"]),
        number_cell(row["segments"]),
    ]


def _learning_row(row: dict[str, Any]) -> list[Cell]:
    behind, worst, best = (float(row.get(name, math.nan)) for name in ("behind", "worst", "best"))
    paired = (row.get("behind_low", math.nan), row.get("behind_high", math.nan))
    measured = not math.isnan(behind)
    return [
        number_cell(row["seconds"]),
        percent_cell(row["accuracy"], row["low"], row["high"]),
        Cell(
            f"{100 * behind:.1f}" if measured else "",
            interval_text(*paired) if measured else "",
            behind,
        ),
        number_cell(row["speakers"]),
        number_cell(float(row.get("speech", math.nan)), "{:.1f}"),
        Cell(interval_text(worst, best), sort=worst),
        number_cell(row["segments"]),
    ]


def _open_set_row(row: dict[str, Any]) -> list[Cell]:
    return [
        percent_cell(row["wanted"]),
        number_cell(row["threshold"], "{:.6f}"),
        percent_cell(row["false_accepts"], row["false_low"], row["false_high"]),
        percent_cell(row["identified"], row["low"], row["high"]),
        percent_cell(float(row.get("named", math.nan))),
        number_cell(row["strangers"]),
        number_cell(row["known"]),
    ]


CONTROL = _Kind(
    CONTROL_FILE,
    lambda run: run.control,
    _draw_control,
    (
        ("recognised", ""),
        ("classes", "of them in train"),
        ("accuracy", "over segments, 95 % interval below"),
        ("most frequent", "accuracy of always naming the most frequent in train"),
        ("mean of meetings", "mean of the meetings' accuracies"),
        ("one name for all", "the same for always naming the most frequent in train"),
        ("segments", ""),
    ),
    _control_row,
    conclude_control,
    _lacks_control,
)
LEARNING = _Kind(
    LEARNING_FILE,
    lambda run: run.learning,
    lambda frames: figures.learning(frames, name="learning"),
    (
        ("seconds", "of training speech per speaker, at least"),
        ("accuracy", "mean over draws, 95 % interval below"),
        ("behind the most, points", "paired by segment, 95 % interval below"),
        ("speakers", "who have that much; the others give all they have"),
        ("speech", "seconds learnt per speaker, mean"),
        ("worst to best draw", "accuracy, per cent"),
        ("segments", ""),
    ),
    _learning_row,
    conclude_curve,
    _adds("curve", folds=True),
)
OPEN_SET = _Kind(
    OPEN_SET_FILE,
    lambda run: run.open_set,
    lambda frames: figures.open_set(frames, name="open-set"),
    (
        ("wanted", "share of strangers that may be accepted on validation"),
        ("threshold", "of the score, from validation"),
        ("false accepts", "share of strangers accepted on test, 95 % interval below"),
        ("identified", "share of known speakers accepted and correctly named, interval below"),
        ("if all were accepted", "share of known speakers correctly named"),
        ("strangers", "trials on test"),
        ("known", "trials on test"),
    ),
    _open_set_row,
    conclude_open_set,
    _adds("open-set", folds=False),
)
