"""Read a report's inputs: folders of runs and predictions tables, one model per name.

A run is a folder with ``predictions.csv`` (or ``.parquet``), or such a table alone, whether from a
sweep, from `predict` or from fine-tuning. Further files in the folder are optional:
``config.json``, ``sweep.csv`` (validation by layers and classifier), ``learning.csv`` (accuracy by
seconds of speech per speaker), ``openset.csv`` (strangers) and ``control.csv`` (label, person or
meeting).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ...common.counts import counted
from ...common.errors import InputError
from ...manifests.splits.tasks import WITHIN_CORPUS
from ...manifests.table import read_predictions
from ..evaluation.confounds import read_control
from ..evaluation.score import scored_rows
from ..features import NOT_STANDARDISED, encoder_kind
from ..selection.run_inputs import Inputs, check_sealed, read_inputs, run_mark

if TYPE_CHECKING:
    import pandas as pd


TRIALS = ("layers", "classifier", "valid_accuracy", "valid_low", "valid_high")  # of sweep.csv
LEARNING = ("seconds", "accuracy", "low", "high", "segments", "speakers")  # of learning.csv
OPEN_SET = (  # of openset.csv
    *("wanted", "threshold", "false_accepts", "false_low", "false_high"),
    *("identified", "low", "high", "strangers", "known"),
)
CONTROL_FILE, OPEN_SET_FILE, LEARNING_FILE = "control.csv", "openset.csv", "learning.csv"
TABLES = ("predictions.csv", "predictions.parquet")


@dataclass(frozen=True, eq=False)
class ReportedRun:
    """One model's predictions, and what is known about how they were made.

    Attributes
    ----------
    predictions : DataFrame
        Rows of the reported split, all of one model.
    source : str
        Name and SHA-256 of the predictions file.
    trials, learning, open_set, control : DataFrame or None
        As in ``sweep.csv``, ``learning.csv``, ``openset.csv`` and ``control.csv``.
    config : dict
        As in ``config.json``; empty if there is none.
    inputs : Inputs or None
        As in ``inputs.json``: the table's rows that were swept.
    path : str
        The folder or file, as given.
    """

    name: str
    predictions: pd.DataFrame
    source: tuple[str, str]
    trials: pd.DataFrame | None = None
    learning: pd.DataFrame | None = None
    open_set: pd.DataFrame | None = None
    control: pd.DataFrame | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Inputs | None = None
    path: str = ""

    @property
    def swept(self) -> bool:
        """Whether a sweep wrote the folder, so that `curve` and `open-set` can add to it."""
        return "settings" in self.config and "chosen" in self.config

    @property
    def folded(self) -> bool:
        """Whether the sweep cross-validated, so that no validation rows are left."""
        settings = self.config.get("settings")
        return isinstance(settings, dict) and bool(settings.get("folds"))

    @property
    def within_corpus(self) -> bool:
        """Whether the model chooses among all labels."""
        return WITHIN_CORPUS in self.model

    @property
    def encoder(self) -> str:
        """Return the encoder, and whether it is untrained or a baseline; "" if unknown.

        An encoder in a local folder is called by the folder's name.
        """
        store = self.config.get("store")
        if not isinstance(store, dict) or not store.get("encoder"):
            return ""
        name = str(store["encoder"])
        if store.get("revision") == "local":
            name = PurePath(name).name or name
        return f"{name}{encoder_kind(store, ' ({})')}"

    @property
    def model(self) -> str:
        """The model's name in its predictions."""
        return str(self.predictions["model"].iloc[0])


def read_runs(runs: Sequence[str], *, split: str = "test") -> list[ReportedRun]:
    """Read the runs given as PATH or NAME=PATH, in their order.

    A table of several models becomes one run per model, named ``NAME: MODEL``.

    Raises
    ------
    InputError
        A path or table is missing or unreadable, has no row of `split`, or two runs share a name.
    """
    loaded = [run for text in runs for run in _read_run(*_name_and_path(text), split)]
    if not loaded:
        raise InputError("report: 0 runs are given, expected at least 1; name a run's folder")
    for run in loaded:
        if sum(run.name == other.name for other in loaded) > 1:
            raise InputError(
                f"{run.name}: name is given to several runs, expected distinct names; "
                "pass NAME=PATH with other names"
            )
    return loaded


def _name_and_path(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if equals and name and not Path(text).exists():
        return name, Path(path)
    source = Path(text)
    return (source.resolve().name if source.is_dir() else source.stem), source


def _read_run(name: str, path: Path, split: str) -> list[ReportedRun]:
    table = _table_of(path)
    everything = read_predictions(table)
    rows = scored_rows(everything, split, str(table))
    source = (table.name, hashlib.sha256(table.read_bytes()).hexdigest())
    beside = _beside(path) if path.is_dir() else {}
    models = list(dict.fromkeys(rows["model"]))
    return [
        ReportedRun(
            name if len(models) == 1 else f"{name}: {model}",
            rows[rows["model"] == model].reset_index(drop=True),
            source,
            path=str(path),
            **beside,
        )
        for model in models
    ]


def _table_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in TABLES:
        if (path / name).is_file():
            return path / name
    raise InputError(
        f"{path}: no {' or '.join(TABLES)} is in the folder, expected one; name a folder that "
        "spk-classify sweep wrote, or a predictions table"
    )


def _beside(folder: Path) -> dict[str, Any]:
    """Read the further files in a run's folder, checked to be of the same run (`run_inputs`)."""
    config, control = folder / "config.json", folder / CONTROL_FILE
    if not config.is_file() and (folder / "cells.jsonl").is_file():
        raise InputError(
            f"{folder}: holds a sweep that was stopped before its end, expected a finished one; "
            "run the same spk-classify sweep again, or name a predictions table"
        )
    described = _read_json(config) if config.is_file() else {}
    check_sealed(folder, described)
    return {
        "trials": _read_csv(folder / "sweep.csv", TRIALS),
        "learning": _of_this_run(folder, LEARNING_FILE, LEARNING, described, "curve"),
        "open_set": _of_this_run(folder, OPEN_SET_FILE, OPEN_SET, described, "open-set"),
        "control": read_control(control) if control.is_file() else None,
        "config": described,
        "inputs": read_inputs(folder),
    }


def _of_this_run(
    folder: Path, name: str, columns: Sequence[str], config: Mapping[str, Any], command: str
) -> pd.DataFrame | None:
    """Read a file that a command added to a run's folder, refusing that of another run."""
    table = _read_csv(folder / name, columns)
    if table is None or "run" not in table:  # older versions did not record the run
        return table
    if set(table["run"]) != {run_mark(folder, config)}:
        raise InputError(
            f"{folder / name}: is of another run, expected one of this folder's predictions; run "
            f"spk-classify {command} again, or remove the file"
        )
    return table.drop(columns="run")


def _read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame | None:
    import pandas as pd

    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path, dtype={"layers": "str", "classifier": "str", "run": "str"})
        missing = [name for name in columns if name not in table]
        numbers = [name for name in columns if name not in ("layers", "classifier")]
        table = table.astype(dict.fromkeys(numbers if not missing else [], "float64"))
    except (OSError, ValueError) as problem:  # pandas' own parser errors are ValueErrors
        raise InputError(f"{path}: cannot be read ({problem}); make the run again") from problem
    if missing or not len(table):
        raise InputError(
            f"{path}: columns {missing} are missing in {counted(len(table), 'row')}, expected "
            f"{list(columns)} and at least 1 row; make the run again"
        )
    if "standardise" in table:  # shown as a separate classifier in all figures and tables
        plain = table["classifier"] + NOT_STANDARDISED
        table["classifier"] = table["classifier"].where(table["standardise"] != "no", plain)
    return table


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as problem:
        raise InputError(f"{path}: cannot be read ({problem}); make the run again") from problem
