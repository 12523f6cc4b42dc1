"""The report's summary sentences: what each run achieves, and which differences are significant.

A difference is claimed only if the interval of the paired difference excludes 0 and McNemar's test
agrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...common.counts import counted
from ..evaluation.compare import ALPHA, Comparison
from ..evaluation.wording import LABEL, places, usual
from ..output import OTHER_TASK
from ..speaker_model import KNOWS_THE_ROOM
from ..validity import doubts_of
from .runs import ReportedRun
from .tables import interval_text, overall_rows, percent, unlike_notes

if TYPE_CHECKING:
    import pandas as pd


def summary(
    runs: Sequence[ReportedRun],
    measures: Sequence[pd.DataFrame],
    pairs: Mapping[tuple[int, int], Comparison],
) -> list[tuple[int | None, str]]:
    """Return (index, result) for each run, and (None, sentence) for significant differences."""
    sentences: list[tuple[int | None, str]] = []
    for place, (run, table) in enumerate(zip(runs, measures, strict=True)):
        overall = overall_rows(table)
        row = overall["accuracy"]
        room = _room(run) if run.within_corpus else ""
        value, most = usual(overall)
        text = (
            f"{f'with {run.encoder} ' if run.encoder else ''}"
            f"names {percent(row['value'])} ({interval_text(row['low'], row['high'])}) of "
            f"{counted(len(run.predictions), 'segment')} in "
            f"{places(run.predictions)}; always naming the {most} gives "
            f"{percent(value)}, guessing {percent(overall['chance']['value'])}{room}."
        )
        sentences.append((place, text))
    return sentences + [(None, text) for text in _shown(runs, pairs)]


def _room(run: ReportedRun) -> str:
    """Return the caveat that must accompany an accuracy over all labels."""
    if run.control is None:
        return f" ({KNOWS_THE_ROOM})"
    rows = run.control[run.control["segments"] > 0]
    shares = [
        f"the {row['of']} in {percent(row['accuracy'])} ({interval_text(row['low'], row['high'])})"
        for row in rows[rows["of"] != LABEL].to_dict("records")
    ]
    return f"; the same features give {', '.join(shares)}" if shares else ""


def _shown(runs: Sequence[ReportedRun], pairs: Mapping[tuple[int, int], Comparison]) -> list[str]:
    """Return the significant differences between runs that choose among the same speakers."""
    if len(runs) < 2:
        return []
    if not pairs:
        return ["No two runs share a segment, so none are compared."]
    alike = {
        (a, b): comparison
        for (a, b), comparison in pairs.items()
        if runs[a].within_corpus == runs[b].within_corpus
    }
    better = [
        text
        for (a, b), comparison in alike.items()
        if (text := _better(runs[a], runs[b], comparison))
    ]
    rest = len(alike) - len(better)
    other = (
        "Runs over all labels have a harder task than runs within meetings: see the differences."
    )
    tasks = [other] if len(alike) < len(pairs) else []
    if not better:
        of = " of one task" if tasks else ""
        return [*([f"No difference between runs{of} is shown."] if alike else []), *tasks]
    more = f"; in {counted(rest, 'pair', of=len(alike))} no difference is shown" if rest else ""
    return [f"On the segments that both name, {', '.join(better)}{more}.", *tasks]


def _better(first: ReportedRun, second: ReportedRun, comparison: Comparison) -> str:
    """Return which of two runs is better, if interval and test agree; else ""."""
    row = comparison.rows[comparison.rows["stratum"] == "all"].iloc[0]
    value, low, high = (row[name] for name in ("difference", "low", "high"))
    if high < 0:
        first, second, value, low, high = second, first, -value, -high, -low
    if low <= 0 or row["p"] >= ALPHA:
        return ""
    points = f"{100 * value:.1f} points ({interval_text(low, high)})"
    return f"{second.name} is better than {first.name} by {points}"


def caveats(runs: Sequence[ReportedRun], pairs: Mapping[tuple[int, int], Comparison]) -> list[str]:
    """Return the caveats that must accompany the differences."""
    lines = [
        fact
        for pair in pairs.values()
        for fact in pair.facts
        if not fact.startswith(("A: ", "B: ", "not compared"))
    ]
    corpus = {run.within_corpus for run in runs}
    if pairs and len(corpus) > 1:
        lines.append(OTHER_TASK)
    lines += unlike_notes(runs)
    return list(dict.fromkeys(lines))


def doubts(runs: Sequence[ReportedRun], table: pd.DataFrame | None) -> list[tuple[int, str]]:
    """Return (index, reason to doubt its scores) per run, using a segment table if given.

    Includes what a sweep left out.
    """
    lines = []
    for place, run in enumerate(runs):
        skipped = run.config.get("skipped_sessions")
        names = list(skipped) if isinstance(skipped, dict) else []
        if names:
            lines.append((place, f"left out {counted(len(names), 'meeting')}, first {names[0]!r}"))
        lines += [(place, line) for line in doubts_of(run.predictions, table)]
    return lines
