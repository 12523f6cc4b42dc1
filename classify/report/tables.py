"""The report's tables as plain text and numbers, for the template to render."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.counts import counted
from ...common.log import with_progress
from ..evaluation.compare import ALPHA, Comparison, compare
from ..selection.run_inputs import difference_of
from .runs import ReportedRun

if TYPE_CHECKING:
    import pandas as pd


NOT_PAIRED = "these segments are not paired"
NO_SHARE = ("log_loss", "min_dcf")
NO_MERIT = ("majority", "majority_scored", "chance")  # properties of the task, not of the run
NAMING = (
    *("accuracy", "accuracy_meetings", "accuracy_time", "balanced_accuracy", "macro_f1", "top3"),
    *NO_MERIT,
)
CONFIDENCE = ("log_loss", "calibration_error", "eer", "min_dcf")  # low is good
TOLD_ABOVE = ("facts", "conclusion", "identity")  # settings shown elsewhere on the page
MEANING = {
    "accuracy": "share of segments named correctly",
    "accuracy_meetings": "mean of the meetings' accuracies",
    "accuracy_time": "accuracy weighted by duration",
    "balanced_accuracy": "mean of the speakers' accuracies",
    "macro_f1": "mean of the speakers' F1",
    "top3": "the right name is among the three most probable",
    "log_loss": "mean of -log of the right name's probability; low is good",
    "calibration_error": "mean gap of confidence and accuracy, 15 bins; low is good, no interval",
    "eer": "equal error rate of verifying a claimed name; low is good",
    "min_dcf": "least detection cost at a prior of 0.01; low is good",
    "majority": "accuracy of always naming the speaker with most training segments",
    "majority_scored": "accuracy of always naming the speaker with most of the scored segments",
    "chance": "accuracy of guessing",
}


@dataclass(frozen=True)
class Cell:
    """A cell's text, its smaller second line, and its sort key (default: the text)."""

    text: str
    note: str = ""
    sort: float | None = None
    best: bool = False
    run: int | None = None


@dataclass(frozen=True)
class Table:
    """Column headings with explanations, and rows of cells."""

    heads: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[Cell]]

    def is_number(self, column: int) -> bool:
        """Return whether a column holds numbers, which are right-aligned."""
        return any(row[column].sort is not None for row in self.rows)


def percent(value: float, places: int = 1) -> str:
    """Format a share as per cent; "" for NaN.

    >>> percent(0.8171), percent(float("nan"))
    ('81.7 %', '')
    """
    return "" if math.isnan(value) else f"{100 * value:.{places}f} %"


def interval_text(low: float, high: float, places: int = 1) -> str:
    """Format an interval of shares in per cent; "" for NaN.

    >>> interval_text(0.685, 0.951)
    '68.5 to 95.1'
    """
    return "" if math.isnan(low) else f"{100 * low:.{places}f} to {100 * high:.{places}f}"


def percent_cell(value: float, low: float = math.nan, high: float = math.nan) -> Cell:
    """Return a cell of a share 0..1 with its interval below."""
    return Cell(percent(value), interval_text(low, high), value)


def number_cell(value: float, text: str = "{:g}") -> Cell:
    """Return a cell of a number; empty for NaN."""
    return Cell("" if math.isnan(value) else text.format(value), sort=value)


def run_cell(run: ReportedRun, place: int) -> Cell:
    """Return a cell that names a run, marked with its colour."""
    return Cell(run.name, run.model if run.model != run.name else "", run=place)


def overall_rows(measures: pd.DataFrame) -> dict[str, pd.Series]:
    """Return {metric: its row} over all segments of one run, from what `score` returns."""
    rows = measures[measures["stratum"] == "all"]
    return {row["measure"]: row for _, row in rows.iterrows()}


def runs_table(
    runs: Sequence[ReportedRun], measures: Sequence[pd.DataFrame], names: Sequence[str]
) -> Table:
    """Return a table of metrics per run; the best is marked if all runs do the same task.

    `measures[k]` is what `score` returns for run k; `names` are some of `score.MEASURES`.
    """
    overall = [overall_rows(table) for table in measures]
    shown = [name for name in names if any(name in rows for rows in overall)]
    best = _best(overall, shown) if _same_task(runs) else {}
    rows = []
    for place, (run, values) in enumerate(zip(runs, overall, strict=True)):
        counts = [len(run.predictions), run.predictions["session"].nunique()]
        cells = [run_cell(run, place), *(number_cell(count) for count in counts)]
        cells += [_measure(values.get(name), best.get(name)) for name in shown]
        rows.append(cells)
    heads = [("run", ""), ("segments", ""), ("meetings", "")]
    return Table([*heads, *((name.replace("_", " "), MEANING[name]) for name in shown)], rows)


def _same_task(runs: Sequence[ReportedRun]) -> bool:
    """Return whether several runs do the same task: same segments, same set of candidates."""
    tasks = {(frozenset(run.predictions["segment_id"]), run.within_corpus) for run in runs}
    return len(runs) > 1 and len(tasks) == 1


def _best(overall: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> dict[str, float]:
    best = {}
    for name in shown:
        values = [rows[name]["value"] for rows in overall if name in rows]
        if name not in NO_MERIT and not any(map(math.isnan, values)):
            best[name] = min(values) if name in CONFIDENCE else max(values)
    return best


def _measure(row: pd.Series | None, best: float | None) -> Cell:
    if row is None or math.isnan(row["value"]):
        return Cell("")
    value, low, high = float(row["value"]), float(row["low"]), float(row["high"])
    if row["measure"] in NO_SHARE:
        note = "" if math.isnan(low) else f"{low:.2f} to {high:.2f}"
        return Cell(f"{value:.2f}", note, value, best == value)
    return Cell(percent(value), interval_text(low, high), value, best == value)


def pairs_of(runs: Sequence[ReportedRun]) -> dict[tuple[int, int], Comparison]:
    """Compare each pair of runs that share segments; keys are the runs' indices."""
    comparisons = {}
    every = [(a, b) for b in range(len(runs)) for a in range(b)]
    for a, b in with_progress(every, "pairs of runs"):
        first, second = runs[a].predictions, runs[b].predictions
        other = unlike(runs[a], runs[b])
        first = first[~first["segment_id"].isin(other)]
        if first["segment_id"].isin(second["segment_id"]).any():
            second = second[~second["segment_id"].isin(other)]
            comparisons[a, b] = compare(first, second, split="all")
    return comparisons


def unlike(a: ReportedRun, b: ReportedRun) -> set[str]:
    """Return the segment ids that mean different segments in two runs.

    Such segments differ in speaker, session or split, or in time, if both runs recorded their rows.
    """
    columns = ["segment_id", "speaker", "session", "split"]
    both = a.predictions[columns].merge(b.predictions[columns], on="segment_id")
    differ = np.zeros(len(both), bool)
    for name in columns[1:]:
        differ |= (both[f"{name}_x"] != both[f"{name}_y"]).to_numpy()
    if a.inputs is not None and b.inputs is not None:
        ids = both["segment_id"]
        for name in ("start", "end"):
            times = (run.inputs.rows[name].reindex(ids).to_numpy() for run in (a, b) if run.inputs)
            differ |= next(times) != next(times)
    return set(both["segment_id"][differ])


def unlike_notes(runs: Sequence[ReportedRun]) -> list[str]:
    """Return notes on runs of different tables: unpaired segments, other training rows."""
    lines = []
    for b in range(len(runs)):
        for a in range(b):
            names = f"{runs[a].name} and {runs[b].name}"
            other = unlike(runs[a], runs[b])
            if other:
                lines.append(
                    f"{names} share {counted(len(other), 'segment id')} with another speaker, "
                    f"session, split or time, first {min(other)!r}: {NOT_PAIRED}"
                )
            ours, theirs = runs[a].inputs, runs[b].inputs
            if ours is not None and theirs is not None:
                difference = difference_of(ours.rows.drop(columns="features"), theirs.rows)
                if difference:
                    lines.append(f"{names} were swept on different tables: {difference}")
    return lines


def difference_table(
    runs: Sequence[ReportedRun], pairs: Mapping[tuple[int, int], Comparison]
) -> Table:
    """Return a table of paired differences between runs, over the segments that both name."""
    rows = []
    for (a, b), comparison in pairs.items():
        row = comparison.rows[comparison.rows["stratum"] == "all"].iloc[0]
        points = Cell(
            f"{100 * row['difference']:+.1f}",
            interval_text(row["low"], row["high"]),
            row["difference"],
        )
        counts = (row[name] for name in ("segments", "only_a", "only_b"))
        rows.append(
            [
                *(Cell(runs[k].name, run=k) for k in (a, b)),
                *(percent_cell(row[name]) for name in ("accuracy_a", "accuracy_b")),
                points,
                *(number_cell(count) for count in counts),
                number_cell(row["p"], "{:.2g}"),
                Cell(_verdict(row, runs[a].name, runs[b].name)),
            ]
        )
    heads = (
        *(("A", ""), ("B", ""), ("accuracy of A", ""), ("accuracy of B", "")),
        ("B - A, points", "95 % interval below"),
        ("segments", "that both name"),
        *(("only A right", ""), ("only B right", ""), ("McNemar p", "exact test"), ("shown", "")),
    )
    return Table(heads, rows)


def _verdict(row: pd.Series, a: str, b: str) -> str:
    if row["low"] <= 0 <= row["high"]:
        return "no difference"
    if row["p"] >= ALPHA:
        return "unsettled: interval and test disagree"
    return f"{b if row['low'] > 0 else a} is better"


def trials_table(trials: pd.DataFrame, most: int = 200) -> Table:
    """Return a table of a sweep's best `most` candidates by validation accuracy."""
    rows = []
    best = trials.sort_values("valid_accuracy", ascending=False, kind="stable").head(most)
    for row in best.to_dict("records"):
        layers, penalty = row["layers"], float(row.get("penalty", math.nan))
        rows.append(
            [
                Cell(layers, sort=float(layers) if layers.isdigit() else None),
                Cell(row["classifier"]),
                number_cell(penalty),
                percent_cell(row["valid_accuracy"], row["valid_low"], row["valid_high"]),
                number_cell(float(row.get("valid_log_loss", math.nan)), "{:.3f}"),
                Cell("yes" if row.get("chosen") == "yes" else ""),
            ]
        )
    names = ("layers", "classifier", "penalty", "accuracy on validation", "log-loss", "chosen")
    return Table([(name, "") for name in names], rows)


def leaks_table(report: pd.DataFrame) -> Table:
    """Return a `leakage_report` as a table, in shares of the test segments."""
    heads = [("meeting", ""), ("train", "segments"), ("test", "segments")]
    for name in report.columns[3:]:
        if name.startswith("within_"):
            distance = name.removeprefix("within_")
            heads.append((f"within {distance} s", "of a training segment of the same speaker"))
    heads += [("shared audio", "with another's training segment"), ("identical", "audio in train")]
    rows = [
        [
            Cell(row["session"], best=row["session"] == "all"),
            *(number_cell(row[name]) for name in ("train", "test")),
            *(percent_cell(row[name]) for name in report.columns[3:]),
        ]
        for row in report.to_dict("records")
    ]
    return Table(heads, rows)


def provenance(runs: Sequence[ReportedRun]) -> Table:
    """Return a table of how each run was made, a column per run; differences are marked."""
    sources = [_source(run) for run in runs]
    rows = []
    for key in dict.fromkeys(key for facts in sources for key in facts):
        values = [facts.get(key, "") for facts in sources]
        if not any(values):
            continue
        differs = len(set(values)) > 1
        rows.append([Cell(key), *(Cell(value, best=differs) for value in values)])
    return Table([("", ""), *((run.name, run.model) for run in runs)], rows)


def _source(run: ReportedRun) -> dict[str, str]:
    facts = {"predictions": run.source[0], "SHA-256 of these": run.source[1], "model": run.model}
    shown = {key: value for key, value in run.config.items() if key not in TOLD_ABOVE}
    if isinstance(run.config.get("settings"), dict):
        shown.pop("settings")  # the command shows them
    return {**facts, **_flat(shown)}


def sweep_command(run: ReportedRun, table: str = "TABLE") -> str:
    """Return the command that swept a run, with all settings; the user fills in STORE."""
    settings = {**run.config["settings"], "identity": run.config.get("identity")}
    options = [(f"--{k.replace('_', '-')}", str(v)) for k, v in settings.items() if v is not None]
    words = [word for option in options for word in option]
    return shlex.join(["spk-classify", "sweep", table, "STORE", run.path or "OUT", *words])


def sweep_commands(runs: Sequence[ReportedRun], table: object = None) -> list[tuple[int, str]]:
    """Return (index, sweep command) for each run that a sweep wrote."""
    return [
        (place, sweep_command(run, str(table or "TABLE")))
        for place, run in enumerate(runs)
        if isinstance(run.config.get("settings"), dict)
    ]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat.update(_flat(value, f"{name}."))
        elif isinstance(value, list):
            flat[name] = ", ".join(map(str, value))
        else:
            flat[name] = "" if value is None else str(value)
    return flat
