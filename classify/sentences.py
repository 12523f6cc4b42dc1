"""The report's sentences: what each run does, and which differences are shown.

A difference is claimed only where the interval of the paired difference leaves out 0 and McNemar's
test agrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .compare import ALPHA, Comparison
from .model import KNOWS_THE_ROOM, WITHIN_CORPUS
from .runs import Run
from .tables import overall, percent, span

if TYPE_CHECKING:
    import pandas as pd


def summary(
    runs: Sequence[Run],
    measures: Sequence[pd.DataFrame],
    pairs: Mapping[tuple[int, int], Comparison],
) -> list[tuple[int | None, str]]:
    """Return (its place, what it does) for each run, and (None, which differences are shown)."""
    told: list[tuple[int | None, str]] = []
    for place, (run, table) in enumerate(zip(runs, measures, strict=True)):
        found = overall(table)
        row, meetings = found["accuracy"], run.predictions["session"].nunique()
        places = f"{meetings} meetings" if meetings > 1 else "1 meeting (intervals: its segments)"
        room = f" ({KNOWS_THE_ROOM})" if WITHIN_CORPUS in run.model else ""
        text = (
            f"names {percent(row['value'])} ({span(row['low'], row['high'])}) of "
            f"{len(run.predictions)} segments in {places}; always naming the most frequent "
            f"speaker gives {percent(found['majority']['value'])}, guessing "
            f"{percent(found['chance']['value'])}{room}."
        )
        told.append((place, text))
    return told + [(None, text) for text in _shown(runs, pairs)]


def _shown(runs: Sequence[Run], pairs: Mapping[tuple[int, int], Comparison]) -> list[str]:
    if len(runs) < 2:
        return []
    if not pairs:
        return ["No two runs share a segment, so none are compared."]
    told = []
    for (a, b), found in pairs.items():
        row = found.rows[found.rows["stratum"] == "all"].iloc[0]
        value, low, high = (row[name] for name in ("difference", "low", "high"))
        if high < 0:
            a, b, value, low, high = b, a, -value, -high, -low  # noqa: PLW2901
        if low > 0 and row["p"] < ALPHA:
            points = f"{100 * value:.1f} points ({span(low, high)})"
            told.append(f"{runs[b].name} is better than {runs[a].name} by {points}")
    rest = len(pairs) - len(told)
    if not told:
        return ["No difference between runs is shown."]
    more = f"; in {rest} of {len(pairs)} pairs no difference is shown" if rest else ""
    return [f"On the segments that both name, {', '.join(told)}{more}."]


def cautions(runs: Sequence[Run], pairs: Mapping[tuple[int, int], Comparison]) -> list[str]:
    """Return what must stand beside the differences."""
    found = [
        fact
        for pair in pairs.values()
        for fact in pair.facts
        if not fact.startswith(("A: ", "B: ", "not compared"))
    ]
    corpus = {WITHIN_CORPUS in run.model for run in runs}
    if pairs and len(corpus) > 1:
        found.append(
            "runs within the corpus choose among all speakers, the others among a meeting's: "
            "their difference is one of tasks too"
        )
    return list(dict.fromkeys(found))
