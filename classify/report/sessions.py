"""Per-session results: accuracy of each run and speaker, and who is confused with whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...common.log import with_progress
from ..metrics import wilson
from .figures import NARROW, Bar, bars, confusion
from .runs import ReportedRun
from .tables import Cell, Table, interval_text, number_cell, percent, percent_cell

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup


ELSEWHERE = "other"  # predicted as a speaker of another meeting


@dataclass(frozen=True)
class Meeting:
    """A meeting's card: accuracy per run, bars per speaker, a confusion matrix per run."""

    session: str
    accuracies: Sequence[tuple[int, str]]
    bars: Markup
    matrices: Sequence[tuple[int, Markup]]


def short(label: str, session: str) -> str:
    """Strip the meeting's name from a label.

    >>> short("20200706_L_R001S01C01_001-M", "20200706_L_R001S01C01")
    '001-M'
    """
    return label.removeprefix(f"{session}_") or label


def sessions_of(runs: Sequence[ReportedRun]) -> list[str]:
    """Return the meetings of all runs, in order of name."""
    return sorted({name for run in runs for name in run.predictions["session"]})


def bar_of(rows: pd.DataFrame) -> Bar:
    """Return one meeting's accuracy with Wilson's interval."""
    hits = int((rows["speaker"] == rows["predicted"]).sum())
    return Bar(hits / len(rows), *wilson(hits, len(rows)), len(rows))


def by_meeting(runs: Sequence[ReportedRun]) -> Markup:
    """Draw accuracy by meeting, a bar per run."""
    series = [
        {str(name): bar_of(rows) for name, rows in run.predictions.groupby("session")}
        for run in runs
    ]
    return bars(sessions_of(runs), series, name="meetings", label="Accuracy by meeting")


def meetings(runs: Sequence[ReportedRun], table: pd.DataFrame | None) -> list[Meeting]:
    """Return a card per meeting; a segment table adds speakers without test segments."""
    home = _homes(runs, table)
    sessions = with_progress(sessions_of(runs), "meetings")
    return [_meeting(runs, name, place, home) for place, name in enumerate(sessions)]


def _homes(runs: Sequence[ReportedRun], table: pd.DataFrame | None) -> dict[str, set[str]]:
    """Return {speaker: meetings}, from the true labels and the table."""
    home: dict[str, set[str]] = {}
    for rows in [run.predictions for run in runs] + ([] if table is None else [table]):
        for speaker, session in set(zip(rows["speaker"], rows["session"], strict=True)):
            home.setdefault(speaker, set()).add(session)
    return home


def _meeting(
    runs: Sequence[ReportedRun], session: str, place: int, home: dict[str, set[str]]
) -> Meeting:
    here = [run.predictions[run.predictions["session"] == session] for run in runs]
    true = sorted({name for rows in here for name in rows["speaker"]})
    also = {name for rows in here for name in rows["predicted"] if name not in home}
    others = sorted(also | {name for name, places in home.items() if session in places} - set(true))
    accuracies, series, matrices = [], [], []
    for number_, rows in enumerate(here):
        series.append({short(s, session): bar_of(r) for s, r in rows.groupby("speaker")})
        if len(rows):
            bar = bar_of(rows)
            text = f"{percent(bar.value)} ({interval_text(bar.low, bar.high, 0)}) of {bar.segments}"
            accuracies.append((number_, text))
            name = f"confusion-{place}-{number_}"
            matrices.append((number_, _matrix(rows, true, others, name)))
    names = [short(speaker, session) for speaker in true]
    label = f"Accuracy by speaker, {session}"
    drawn = bars(names, series, name=f"speakers-{place}", label=label, width=NARROW)
    return Meeting(session, accuracies, drawn, matrices)


def _matrix(rows: pd.DataFrame, true: list[str], others: list[str], name: str) -> Markup:
    columns = [*true, *others]
    session = str(rows["session"].iloc[0])
    elsewhere = not rows["predicted"].isin(columns).all()
    counts = np.zeros((len(true), len(columns) + elsewhere), dtype=np.int64)
    for speaker, predicted in zip(rows["speaker"], rows["predicted"], strict=True):
        column = columns.index(predicted) if predicted in columns else len(columns)
        counts[true.index(speaker), column] += 1
    names = [short(label, session) for label in columns] + [ELSEWHERE] * elsewhere
    return confusion(counts, (names[: len(true)], names), name=name)


def meetings_table(runs: Sequence[ReportedRun]) -> Table:
    """Return a table with a row per meeting: segments, and the accuracy of each run."""
    groups = [dict(list(run.predictions.groupby("session"))) for run in runs]
    rows = []
    for session in sessions_of(runs):
        parts = [group.get(session) for group in groups]
        cells = [Cell(session), number_cell(max(len(part) for part in parts if part is not None))]
        rows.append(cells + [Cell("") if part is None else _accuracy(part) for part in parts])
    heads = [("meeting", ""), ("segments", "")]
    return Table([*heads, *((run.name, "accuracy, 95 % interval below") for run in runs)], rows)


def _accuracy(rows: pd.DataFrame) -> Cell:
    bar = bar_of(rows)
    return percent_cell(bar.value, bar.low, bar.high)


def speakers_table(runs: Sequence[ReportedRun]) -> Table:
    """Return a table per meeting and speaker: segments, and per run accuracy and top confusion."""
    together = {
        (session, speaker)
        for run in runs
        for session, speaker in zip(
            run.predictions["session"], run.predictions["speaker"], strict=True
        )
    }
    groups = [dict(list(run.predictions.groupby(["session", "speaker"]))) for run in runs]
    rows = []
    for session, speaker in sorted(together):
        parts = [group.get((session, speaker)) for group in groups]
        count = max(len(part) for part in parts if part is not None)
        cells = [Cell(session), Cell(short(speaker, session)), number_cell(count)]
        for part in parts:
            cells += [Cell(""), Cell("")] if part is None else _speaker(part, session)
        rows.append(cells)
    heads = [("meeting", ""), ("speaker", ""), ("segments", "")]
    for run in runs:
        heads += [
            (run.name, "accuracy, 95 % interval below"),
            ("taken for", f"most, by {run.name}"),
        ]
    return Table(heads, rows)


def _speaker(rows: pd.DataFrame, session: str) -> list[Cell]:
    wrong = rows["predicted"][rows["predicted"] != rows["speaker"]].value_counts()
    most = sorted(wrong[wrong == wrong.max()].index)[:1] if len(wrong) else []
    taken = [Cell(f"{short(name, session)} ({wrong[name]})") for name in most] or [Cell("")]
    return [_accuracy(rows), *taken]
