"""The report's figures (lines, bars with whiskers, heat maps, calibration), one SVG element each.

Runs and classifiers differ by colour and by marker. Values are shares, 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..metrics import wilson
from .svg import HUES, INK, LINE, figure_to_svg, hue, step, text_colour

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch


WIDTH, NARROW = 4.7, 3.2  # inches; two or three fit side by side on a laptop
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "<": "◀", ">": "▶"}
CONFIDENCE_BINS = 10
LONGEST_LEVEL, MOST_LEVEL = 5, 6  # letters and columns up to which labels stay horizontal
LONGEST_NAME = 22  # letters of a name that figures show; tables show all of it
APART = 1.05  # factor in seconds between neighbouring runs, so that they do not overlap
PLAIN = 2.4  # inches of the bars' own width, so that the axis labels do not touch
LETTER = 0.075  # approximate width of a letter in inches
MOST_NUMBERED = 16  # rows or columns up to which a heat map's cells are labelled


@dataclass(frozen=True)
class Bar:
    """One bar: a share 0..1, its 95 % interval and the number of segments."""

    value: float
    low: float
    high: float
    segments: int


def marker(number: int) -> str:
    """Return matplotlib's marker of run or classifier `number` from 0."""
    return list(MARKERS)[number % HUES]


def glyph(number: int) -> str:
    """Return that marker as a character, for legends in HTML."""
    return MARKERS[marker(number)]


def _fitting(names: Sequence[str]) -> list[str]:
    """Shorten names to fit a figure."""
    return [n if len(n) <= LONGEST_NAME else f"{n[: LONGEST_NAME - 1]}…" for n in names]


def single_layers(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the candidates that use a single layer, in order of the layer."""
    alone = trials[trials["layers"].str.fullmatch(r"\d+")]
    return alone.assign(layer=alone["layers"].astype("int64")).sort_values(
        "layer", kind="stable", ignore_index=True
    )


def by_layer(trials: pd.DataFrame, *, name: str) -> Markup:
    """Plot validation accuracy by layer, a line per classifier.

    Only the best classifier's 95 % interval is shaded; several would blur together.
    """
    alone = single_layers(trials)
    best = alone["classifier"][alone["valid_accuracy"].idxmax()]

    def paint(axes: Axes) -> None:
        for number, classifier in enumerate(dict.fromkeys(trials["classifier"])):
            rows = alone[alone["classifier"] == classifier]
            if classifier == best:
                _band(axes, number, rows["layer"], rows["valid_low"], rows["valid_high"])
            _line(axes, number, rows["layer"], rows["valid_accuracy"])
        axes.set(xlabel="layer", ylabel="accuracy on validation")
        axes.locator_params(axis="x", integer=True)
        axes.set_xlim(alone["layer"].min() - 0.5, alone["layer"].max() + 0.5)
        lowest = min(
            alone["valid_accuracy"].min(), alone["valid_low"][alone["classifier"] == best].min()
        )
        _percent(axes, "y", lowest)

    return figure_to_svg(
        paint, name=name, size=(WIDTH, 3.1), label="Accuracy on validation by layer"
    )


def learning(curves: Sequence[tuple[int, pd.DataFrame]], *, name: str) -> Markup:
    """Plot accuracy against seconds of speech per speaker, for (number of the run, its curve).

    Runs are shifted slightly, so that their intervals do not overlap.
    """

    def paint(axes: Axes) -> None:
        for place, (run, rows) in enumerate(curves):
            curve = rows.sort_values("seconds")
            seconds = curve["seconds"] * APART ** (place - (len(curves) - 1) / 2)
            axes.vlines(seconds, curve["low"], curve["high"], color=hue(run), lw=1.1, alpha=0.7)
            _line(axes, run, seconds, curve["accuracy"])
        ticks = sorted({value for _, rows in curves for value in rows["seconds"]})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{value:g}" for value in ticks], minor=False)
        axes.set_xticks([], minor=True)
        axes.set(xlabel="seconds of speech per speaker", ylabel="accuracy on test")
        _percent(axes, "y", min(rows["low"].min() for _, rows in curves))

    return figure_to_svg(paint, name=name, size=(WIDTH, 3.1), label="Accuracy by seconds of speech")


def open_set(curves: Sequence[tuple[int, pd.DataFrame]], *, name: str) -> Markup:
    """Plot identification against false accepts, for (number of the run, its rows)."""

    def paint(axes: Axes) -> None:
        for run, rows in curves:
            points = rows.drop_duplicates(["false_accepts", "identified"]).sort_values("threshold")
            x, y, color = points["false_accepts"], points["identified"], hue(run)
            axes.vlines(x, points["low"], points["high"], color=color, lw=1.1, alpha=0.7)
            axes.hlines(
                y, points["false_low"], points["false_high"], color=color, lw=1.1, alpha=0.7
            )
            _line(axes, run, x, y)
        axes.set(xlabel="strangers let in", ylabel="known speakers accepted and named")
        _from_zero(axes, "x", max(rows["false_high"].max() for _, rows in curves))
        _from_zero(axes, "y", max(rows["high"].max() for _, rows in curves))

    return figure_to_svg(
        paint, name=name, size=(WIDTH, 3.1), label="Identified against false accepts"
    )


def _line(axes: Axes, number: int, x: pd.Series, y: pd.Series) -> None:
    axes.plot(x, y, marker=marker(number), ms=4, lw=1.4, color=hue(number))


def _band(axes: Axes, number: int, x: pd.Series, low: pd.Series, high: pd.Series) -> None:
    axes.fill_between(x, low, high, color=hue(number), alpha=0.14, linewidth=0)


def _percent(axes: Axes, side: Literal["x", "y"], lowest: float = 0.0) -> None:
    """Scale an axis of shares from the 10 % step below `lowest`, at most 0.8, to 1, with a grid."""
    vertical = side == "y"
    limit = axes.set_ylim if vertical else axes.set_xlim
    ticks = axes.set_yticks if vertical else axes.set_xticks
    first = min(math.floor(10 * lowest) / 10, 0.8)
    limit(first, 1.02)
    places = np.arange(math.ceil(first * 5), 6) / 5
    ticks(places, [f"{place:.0%}" for place in places])
    axes.grid(axis=side, linewidth=0.6)
    axes.tick_params(length=0)


def _from_zero(axes: Axes, side: Literal["x", "y"], most: float) -> None:
    """Scale an axis of shares from 0 to the 10 % step above `most`."""
    _percent(axes, side)
    edge = min(1.0, math.ceil(10 * most + 0.5) / 10)
    limit, ticks = (
        (axes.set_ylim, axes.set_yticks) if side == "y" else (axes.set_xlim, axes.set_xticks)
    )
    limit(-0.02 * edge, 1.02 * edge)
    places = np.arange(0, edge + 0.01, 0.1 if edge <= 0.5 else 0.2)
    ticks(places, [f"{place:.0%}" for place in places])


def bars(
    groups: Sequence[str],
    series: Sequence[Mapping[str, Bar]] | Mapping[int, Mapping[str, Bar]],
    *,
    name: str,
    label: str,
    width: float = WIDTH,
) -> Markup:
    """Draw a bar with its interval per group and series; `series[k]` has the colour of run k."""
    numbered = list(series.items() if isinstance(series, Mapping) else enumerate(series))
    shown = _fitting(groups)
    width = max(width, PLAIN + LETTER * max(map(len, shown)))
    height = max(0.8, 0.45 + len(groups) * max(0.24, 0.17 * len(series)))

    def paint(axes: Axes) -> None:
        thick = 0.8 / len(series)
        for order, (number, values) in enumerate(numbered):
            placed = [
                (place, values[group]) for place, group in enumerate(groups) if group in values
            ]
            y = np.array([place for place, _ in placed]) - 0.4 + thick * (order + 0.5)
            value, low, high = (
                np.array([(b.value, b.low, b.high) for _, b in placed]).reshape(-1, 3).T
            )
            axes.barh(y, value, thick * 0.86, color=hue(number), alpha=0.55)
            axes.hlines(y, low, high, color=INK, lw=1.1)
            axes.plot(value, y, "|", color=INK, ms=5)
        axes.set_yticks(range(len(groups)), shown)
        axes.set_ylim(len(groups) - 0.45, -0.55)
        _percent(axes, "x")

    return figure_to_svg(paint, name=name, size=(width, height), label=label)


def heat_map(trials: pd.DataFrame, *, name: str) -> Markup:
    """Draw validation accuracy by classifier and layer as a heat map; the chosen one is framed."""
    grid = single_layers(trials).pivot_table(
        index="classifier", columns="layer", values="valid_accuracy", sort=False
    )
    grid = grid.loc[[c for c in dict.fromkeys(trials["classifier"]) if c in grid.index]]
    values = grid.to_numpy(np.float64)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    colours = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    texts = [["" if np.isnan(v) else f"{100 * v:.0f}" for v in row] for row in values]
    chosen = trials[trials["chosen"] == "yes"] if "chosen" in trials else trials[:0]
    framed = [
        (list(grid.index).index(row["classifier"]), list(grid.columns).index(int(row["layers"])))
        for _, row in chosen.iterrows()
        if row["layers"].isdigit()
    ]

    def paint(axes: Axes) -> None:
        _cells(axes, colours, texts, (list(grid.index), [str(layer) for layer in grid.columns]))
        for row, column in framed:
            axes.add_patch(_frame(row, column))
        axes.set(xlabel="layer")

    size = (max(NARROW, 1.2 + 0.36 * values.shape[1]), 0.75 + 0.34 * values.shape[0])
    return figure_to_svg(
        paint, name=name, size=size, label="Accuracy on validation by layer and classifier"
    )


def confusion(counts: np.ndarray, names: tuple[list[str], list[str]], *, name: str) -> Markup:
    """Draw a confusion matrix: true speakers in rows, predicted in columns, `counts` (r, c) int."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows, columns = (_fitting(part) for part in names)
    longest = max(map(len, columns))
    level = longest <= LONGEST_LEVEL and len(columns) <= MOST_LEVEL
    labelled = max(counts.shape) <= MOST_NUMBERED
    texts = [[str(c) if c and labelled else "" for c in row] for row in counts]

    def paint(axes: Axes) -> None:
        _cells(axes, shares, texts, (rows, columns))
        for place in range(len(rows)):
            axes.add_patch(_frame(place, place))
        if not level:
            for text in axes.get_xticklabels():
                text.set(rotation=45, ha="right", rotation_mode="anchor")
        axes.set(xlabel="taken for", ylabel="who it was")

    width = 0.6 + LETTER * max(map(len, rows)) + (0.42 if labelled else 0.25) * len(columns)
    below = 0.6 if level else 0.5 + 0.75 * LETTER * longest
    size = (width, below + (0.32 if labelled else 0.2) * len(rows))
    return figure_to_svg(paint, name=name, size=size, label="Confusion matrix")


def _frame(row: int, column: int) -> Patch:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=INK, lw=1.3, zorder=3)


def _cells(
    axes: Axes,
    shares: np.ndarray,
    texts: list[list[str]],
    names: tuple[list[str], list[str]],
) -> None:
    from matplotlib.patches import Rectangle

    for (row, column), share in np.ndenumerate(shares):
        if np.isnan(share):
            continue
        place = (column - 0.48, row - 0.46)
        axes.add_patch(Rectangle(place, 0.96, 0.92, fc=step(share), ec="none"))
        text = axes.text(column, row, texts[row][column], ha="center", va="center_baseline")
        text.set(color=text_colour(share), fontsize=8)
    axes.set_xticks(range(len(names[1])), names[1])
    axes.set_yticks(range(len(names[0])), names[0])
    axes.set(xlim=(-0.55, shares.shape[1] - 0.45), ylim=(shares.shape[0] - 0.45, -0.55))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def reliability(confidence: np.ndarray, correct: np.ndarray, *, number: int, name: str) -> Markup:
    """Draw a reliability diagram: accuracy by confidence in ten equal bins, Wilson intervals.

    Grey bars show the share of all segments in each bin.
    """
    bins = np.clip(np.ceil(confidence * CONFIDENCE_BINS).astype(int) - 1, 0, CONFIDENCE_BINS - 1)

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--")
        for code in np.unique(bins):
            inside = bins == code
            hits, count = int(correct[inside].sum()), int(inside.sum())
            axes.bar((code + 0.5) / CONFIDENCE_BINS, count / len(bins), 0.09, color=LINE)
            x, (low, high) = confidence[inside].mean(), wilson(hits, count)
            axes.vlines(x, low, high, color=hue(number), lw=1.4)
            axes.plot(x, hits / count, color=hue(number), marker=marker(number), ms=5)
        axes.set(xlabel="confidence", ylabel="share named rightly", aspect="equal")
        _percent(axes, "x")
        _percent(axes, "y")

    return figure_to_svg(paint, name=name, size=(NARROW, 3.3), label="Reliability diagram")
