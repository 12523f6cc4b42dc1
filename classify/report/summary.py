"""The report's sentences: what each run does, and which differences are shown.

A difference is claimed only where the interval of the paired difference leaves out 0 and McNemar's
test agrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

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
    """Return (its place, what it does) for each run, and (None, which differences are shown)."""
    told: list[tuple[int | None, str]] = []
    for place, (run, table) in enumerate(zip(runs, measures, strict=True)):
        found = overall_rows(table)
        row = found["accuracy"]
        room = _room(run) if run.within_corpus else ""
        value, most = usual(found)
        text = (
            f"{f'with {run.encoder} ' if run.encoder else ''}"
            f"names {percent(row['value'])} ({interval_text(row['low'], row['high'])}) of "
            f"{len(run.predictions)} segments in "
            f"{places(run.predictions)}; always naming the {most} gives "
            f"{percent(value)}, guessing {percent(found['chance']['value'])}{room}."
        )
        told.append((place, text))
    return told + [(None, text) for text in _shown(runs, pairs)]


def _room(run: ReportedRun) -> str:
    """Return what must stand beside an accuracy over all labels."""
    if run.control is None:
        return f" ({KNOWS_THE_ROOM})"
    rows = run.control[run.control["segments"] > 0]
    told = [
        f"the {row['of']} in {percent(row['accuracy'])} ({interval_text(row['low'], row['high'])})"
        for row in rows[rows["of"] != LABEL].to_dict("records")
    ]
    return f"; the same features give {', '.join(told)}" if told else ""


def _shown(runs: Sequence[ReportedRun], pairs: Mapping[tuple[int, int], Comparison]) -> list[str]:
    """Return which differences are shown between runs that choose among the same speakers."""
    if len(runs) < 2:
        return []
    if not pairs:
        return ["No two runs share a segment, so none are compared."]
    alike = {
        (a, b): found
        for (a, b), found in pairs.items()
        if runs[a].within_corpus == runs[b].within_corpus
    }
    told = [text for (a, b), found in alike.items() if (text := _better(runs[a], runs[b], found))]
    rest = len(alike) - len(told)
    other = (
        "Runs over all labels have a harder task than runs within meetings: see the differences."
    )
    tasks = [other] if len(alike) < len(pairs) else []
    if not told:
        of = " of one task" if tasks else ""
        return [*([f"No difference between runs{of} is shown."] if alike else []), *tasks]
    more = f"; in {rest} of {len(alike)} pairs no difference is shown" if rest else ""
    return [f"On the segments that both name, {', '.join(told)}{more}.", *tasks]


def _better(first: ReportedRun, second: ReportedRun, found: Comparison) -> str:
    """Return which of two runs is better, where interval and test show it; else nothing."""
    row = found.rows[found.rows["stratum"] == "all"].iloc[0]
    value, low, high = (row[name] for name in ("difference", "low", "high"))
    if high < 0:
        first, second, value, low, high = second, first, -value, -high, -low
    if low <= 0 or row["p"] >= ALPHA:
        return ""
    points = f"{100 * value:.1f} points ({interval_text(low, high)})"
    return f"{second.name} is better than {first.name} by {points}"


def caveats(runs: Sequence[ReportedRun], pairs: Mapping[tuple[int, int], Comparison]) -> list[str]:
    """Return what must stand beside the differences."""
    found = [
        fact
        for pair in pairs.values()
        for fact in pair.facts
        if not fact.startswith(("A: ", "B: ", "not compared"))
    ]
    corpus = {run.within_corpus for run in runs}
    if pairs and len(corpus) > 1:
        found.append(OTHER_TASK)
    found += unlike_notes(runs)
    return list(dict.fromkeys(found))


def doubts(runs: Sequence[ReportedRun], table: pd.DataFrame | None) -> list[tuple[int, str]]:
    """Return (its place, why its scores may mean nothing) of each run, with a segment table's help.

    Also what a sweep left out.
    """
    lines = []
    for place, run in enumerate(runs):
        skipped = run.config.get("skipped_sessions")
        names = list(skipped) if isinstance(skipped, dict) else []
        if names:
            lines.append((place, f"left out {len(names)} meetings, first {names[0]!r}"))
        lines += [(place, line) for line in doubts_of(run.predictions, table)]
    return lines
