"""The sweep as a picture: validation accuracy by layer, a line per classifier."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from .data import NOT_STANDARDISED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .outcome import Outcome


def plot_sweep(outcome: Outcome) -> bytes:
    """Return a PNG: accuracy on validation by layer, 95 % interval shaded, chance and majority.

    The chosen combination is ringed; the title names an untrained encoder and the split.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(dict.fromkeys(trial.layers.name for trial in outcome.trials))
    lines = dict.fromkeys((t.classifier, t.layers.standardise) for t in outcome.trials)
    for number, line in enumerate(lines):
        _line(axes, outcome, line, f"C{number}")
    place = names.index(outcome.chosen.layers.name)
    axes.plot(place, outcome.chosen.accuracy, "o", ms=11, mfc="none", mec="black", label="chosen")
    for name, style in (("majority", "--"), ("chance", ":")):
        axes.axhline(outcome.baselines[name], color="grey", linestyle=style, label=name)
    step = -(-len(names) // 26)
    axes.set_xticks(range(0, len(names), step), names[::step])
    axes.set(xlabel="layer", ylabel="accuracy on validation", ylim=(0, 1.02), title=_title(outcome))
    figure.legend(loc="outside right upper", fontsize="small")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150, metadata={"Software": None})
    return image.getvalue()


def _line(axes: Axes, outcome: Outcome, line: tuple[str, str], color: str) -> None:
    trials = [t for t in outcome.trials if (t.classifier, t.layers.standardise) == line]
    label = line[0] + ("" if line[1] == "yes" else NOT_STANDARDISED)
    x = np.arange(len(trials))  # every classifier has every layer set, in the same order
    low, high = np.array([trial.interval for trial in trials]).T
    axes.plot(x, [trial.accuracy for trial in trials], ".-", color=color, label=label)
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _title(outcome: Outcome) -> str:
    config = outcome.model.config
    untrained = ", untrained encoder" if config.get("untrained") else ""
    task = f"within {outcome.settings.within}, split: {outcome.split}"
    return f"{config.get('encoder')}{untrained}\n{task}"
