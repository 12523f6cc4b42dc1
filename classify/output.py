"""An experiment's result as tables to show, as files, and as a plot of accuracy by layer."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.errors import InputError
from ..common.files import atomic_write
from ..common.terminal import Table
from ..manifests.splits.tasks import WITHIN_CORPUS
from ..manifests.table import write_predictions
from .evaluation.compare import Comparison
from .evaluation.wording import conclude_control
from .experiment import ExperimentResult, encoder_text
from .features import encoder_kind
from .selection.prepare import LEFT_OUT_FILE, write_left_out
from .selection.run_inputs import INPUTS_FILE, run_mark, sealed, write_inputs
from .speaker_model import KNOWS_THE_ROOM

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from .experiment import ExperimentResult


CONTROL_FILE = "control.csv"
# the files of a sweep besides its cache
WRITTEN = (
    *("sweep.csv", "sweep.png", "predictions.csv", "metrics.csv", CONTROL_FILE, "config.json"),
    LEFT_OUT_FILE,
)
OF_THE_CHOICE = ("learning.csv", "openset.csv")
OTHER_TASK = (
    "runs within the corpus choose among all speakers, the others among a meeting's: their tasks "
    "differ too"
)
MOST_SHOWN = 200  # trials; 25 layers by six classifiers fit


def sweep_rows(outcome: ExperimentResult) -> list[dict[str, Any]]:
    """Return the rows of `sweep.csv`: validation for every candidate, test for the chosen one."""
    test = outcome.measures.query("stratum == 'all' and measure == 'accuracy'").iloc[0]
    rows = []
    for trial in outcome.trials:
        chosen = trial is outcome.chosen
        rows.append(
            {
                "layers": trial.layers.name,
                "classifier": trial.classifier,
                "penalty": "" if trial.penalty is None else trial.penalty,
                "valid_accuracy": trial.accuracy,
                "valid_low": trial.interval[0],
                "valid_high": trial.interval[1],
                "valid_log_loss": trial.log_loss,
                "chosen": "yes" if chosen else "",
                "test_accuracy": test["value"] if chosen else "",
                "test_low": test["low"] if chosen else "",
                "test_high": test["high"] if chosen else "",
            }
        )
    return rows


def outcome_parts(outcome: ExperimentResult) -> list[str | Table]:
    """Return what `sweep` shows: facts, the table, metrics of the chosen model, a conclusion.

    For a model over all labels, the confound table comes before the conclusion.
    """
    all_rows = sweep_rows(outcome)
    best = sorted(all_rows, key=lambda row: -row["valid_accuracy"])[:MOST_SHOWN]
    shown = all_rows if len(all_rows) <= MOST_SHOWN else best
    rows = [{key: _short(key, value) for key, value in row.items()} for row in shown]
    more = [f"the best {len(shown)} of {len(all_rows)}"] if len(shown) < len(all_rows) else []
    control = () if outcome.control is None else ("", number_table(outcome.control))
    return [
        "\n".join(outcome.facts),
        "",
        Table(rows),
        *more,
        "",
        *measures_parts(outcome.measures),
        *control,
        "",
        outcome.conclusion,
    ]


def measures_parts(measures: pd.DataFrame) -> list[str | Table]:
    """Return metrics as a table per model: over all segments, and by session and stratum.

    Rows per speaker are only in the file.
    """
    parts: list[str | Table] = []
    for model, rows in measures.groupby("model", sort=False):
        shown = rows[rows["stratum"] != "speaker"].drop(columns="model")
        lines = [
            {key: _short(key, value) for key, value in row.items()}
            for row in shown.to_dict("records")
        ]
        parts += [*([""] if parts else []), Table(lines, title=str(model))]
    return parts


def controls_parts(controls: Mapping[str, pd.DataFrame]) -> list[str | Table]:
    """Return what `score` shows for each model over all labels: confounds and a conclusion."""
    return [
        part
        for model, control in controls.items()
        for part in ("", number_table(control, title=model), "", conclude_control(control))
    ]


def comparison_facts(comparison: Comparison) -> list[str]:
    """Return the lines above a comparison: the models, what was not compared, warnings."""
    import pandas as pd

    tasks = [OTHER_TASK] if len({WITHIN_CORPUS in name for name in comparison.models}) > 1 else []
    return [*comparison.facts, *warnings_of(pd.DataFrame({"model": comparison.models})), *tasks]


def comparison_parts(comparison: Comparison) -> list[str | Table]:
    """Return what `compare` shows: facts, the rows, the conclusion.

    The sessions of segments that were not compared are only in the file.
    """
    shown = comparison.rows.drop(columns=["unpaired_a", "unpaired_b"])
    rows = [
        {key: _short(key, value) for key, value in row.items()} for row in shown.to_dict("records")
    ]
    facts = "\n".join(comparison_facts(comparison))
    return [facts, "", Table(rows), "", comparison.conclusion]


def _short(key: str, value: Any) -> str:
    if key in ("p", "p_holm"):  # three decimals would turn a small p into 0
        return f"{value:.2g}".replace("nan", "")
    if isinstance(value, float):
        return f"{value:g}" if key == "penalty" else f"{value:.3f}".replace("nan", "")
    return str(value)


def warnings_of(measures: pd.DataFrame) -> list[str]:
    """Return the warnings that must accompany metrics of models over all labels."""
    models = [name for name in dict.fromkeys(measures["model"]) if WITHIN_CORPUS in name]
    return [f"{name}: {KNOWS_THE_ROOM}" for name in models]


def write_outcome(outcome: ExperimentResult, folder: str | Path) -> list[str]:
    """Write a sweep's results to its folder; return the names of the files.

    ``config.json`` is removed first and written last, with the SHA-256 of the others: a folder
    without it is unfinished. Results of `curve` and `open-set` for another choice are deleted.
    """
    folder = Path(folder)
    before = _run_mark(folder)
    (folder / "config.json").unlink(missing_ok=True)
    written = _write_tables(outcome, folder)
    config = _config(outcome) | {"files": sealed(folder, [INPUTS_FILE, *written])}
    if before != run_mark(folder, config):
        for name in OF_THE_CHOICE:
            (folder / name).unlink(missing_ok=True)
    atomic_write(folder / "config.json", json.dumps(config, indent=1, ensure_ascii=False).encode())
    written.append("config.json")
    gone = [name for name in written if not (folder / name).exists()]
    if gone:
        raise InputError(
            f"{folder}: {gone} have disappeared since they were written, expected all; leave the "
            "folder alone, or name another, and run the same command again"
        )
    return written


def _run_mark(folder: Path) -> str:
    """Return the mark of the run in a folder, or "" if there is none."""
    try:
        return run_mark(folder, dict(json.loads((folder / "config.json").read_bytes())))
    except (OSError, ValueError, TypeError, AttributeError):
        return ""


def _write_tables(outcome: ExperimentResult, folder: Path) -> list[str]:
    """Write all files but ``config.json``; return the names of those of this run."""
    import pandas as pd

    write_predictions(outcome.predictions, folder / "predictions.csv")
    trials = pd.DataFrame(sweep_rows(outcome))
    trials = trials.assign(encoder=encoder_text(outcome.model), split=outcome.split)
    atomic_write(folder / "sweep.csv", trials.to_csv(index=False, lineterminator="\n").encode())
    atomic_write(folder / "sweep.png", plot_sweep(outcome))
    write_metrics(outcome.measures, folder / "metrics.csv")
    write_inputs(outcome.inputs, folder)
    written = ["sweep.csv", "sweep.png", "predictions.csv", "metrics.csv"]
    if outcome.control is None:
        (folder / CONTROL_FILE).unlink(missing_ok=True)
    else:
        write_frame(outcome.control, folder / CONTROL_FILE)
        written.append(CONTROL_FILE)
    if write_left_out(outcome.left_out, folder / LEFT_OUT_FILE):
        written.append(LEFT_OUT_FILE)
    return written


def _config(outcome: ExperimentResult) -> dict[str, Any]:
    model = outcome.model
    return {
        "settings": asdict(outcome.settings),
        "identity": outcome.identity,
        "split": outcome.split,
        "store": dict(model.config),
        "chosen": {
            "classifier": model.classifier,
            "penalty": model.penalty,
            **model.layers.to_dict(),
            "temperature": model.temperature,
            "temperatures": dict(model.temperatures),
            "calibration": "temperature",
        },
        "origin": dict(model.origin),
        "inputs_sha256": outcome.inputs.sha256,
        "skipped_sessions": dict(outcome.skipped),
        "facts": list(outcome.facts),
        "conclusion": outcome.conclusion,
    }


def write_metrics(measures: pd.DataFrame, path: str | Path, *, facts: Sequence[str] = ()) -> None:
    """Write metrics as CSV, or as JSON with `facts` (NaN becomes null), depending on the suffix."""
    path = Path(path)
    if path.suffix == ".csv":
        atomic_write(path, measures.to_csv(index=False, lineterminator="\n").encode())
    elif path.suffix == ".json":
        rows = [
            {key: None if _is_nan(value) else value for key, value in row.items()}
            for row in measures.to_dict("records")
        ]
        text = json.dumps({"facts": list(facts), "measures": rows}, indent=1, ensure_ascii=False)
        atomic_write(path, text.encode())
    else:
        raise InputError(f"{path}: suffix is {path.suffix!r}, expected .csv or .json; rename it")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def number_table(frame: pd.DataFrame, *, title: str = "") -> Table:
    """Return a table to show: shares to three decimals, seconds and thresholds in full."""
    rows = [{k: _plain(k, v) for k, v in row.items()} for row in frame.to_dict("records")]
    return Table(rows, title=title)


def _plain(key: str, value: Any) -> str:
    return f"{value:g}" if key in ("seconds", "threshold") else _short(key, value)


def write_frame(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table of numbers as CSV."""
    atomic_write(Path(path), frame.to_csv(index=False, lineterminator="\n").encode())


def plot_sweep(outcome: ExperimentResult) -> bytes:
    """Plot validation accuracy by layer with its 95 % interval, chance and majority, as a PNG.

    The chosen combination is circled; the title names the split, and an untrained encoder.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(dict.fromkeys(trial.layers.name for trial in outcome.trials))
    for number, name in enumerate(dict.fromkeys(t.classifier for t in outcome.trials)):
        _line(axes, outcome, name, f"C{number}")
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


def _line(axes: Axes, outcome: ExperimentResult, name: str, color: str) -> None:
    trials = [trial for trial in outcome.trials if trial.classifier == name]
    x = np.arange(len(trials))  # all classifiers have the same layer sets, in the same order
    low, high = np.array([trial.interval for trial in trials]).T
    axes.plot(x, [trial.accuracy for trial in trials], ".-", color=color, label=name)
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _title(outcome: ExperimentResult) -> str:
    config = outcome.model.config
    untrained = encoder_kind(config, ", {}")
    task = f"within {outcome.settings.within}, split: {outcome.split}"
    return f"{config.get('encoder')}{untrained}\n{task}"
