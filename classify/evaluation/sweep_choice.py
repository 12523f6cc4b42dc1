"""Read back the choice of a finished sweep from its folder, with the data it was made on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.errors import InputError
from ...manifests.splits.tasks import Task
from ...manifests.table import SPLITS
from ..classifiers.fitted import AxisWeights
from ..classifiers.linear import PrincipalAxes
from ..classifiers.registry import fit_path
from ..features import MIX, LayerSet, open_store, read_features
from ..metrics import interval_groups
from ..options import SweepSettings
from ..selection.prepare import LEFT_OUT_FILE, left_out_lines, prepare_tasks
from ..selection.run_inputs import check_same_inputs, check_same_store, check_sealed
from ..selection.sweep import make_fold
from ..validity import learnt_from, learnt_note, learnt_rows
from .wording import unknown_facts

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class SweepChoice:
    """The chosen combination of a run, its tasks, and the features of its layers.

    `X` (n, d) has the rows of `table`, in order; `tasks` hold row numbers; `left_out` has lines on
    the meetings and segments that could not be used.
    """

    settings: SweepSettings
    classifier: str
    penalty: float | None
    temperature: float
    table: pd.DataFrame
    tasks: Sequence[Task]
    X: np.ndarray
    layers: LayerSet
    left_out: Sequence[str] = ()
    temperatures: Mapping[str, float] = field(default_factory=dict)
    refitted: bool = False

    def temperature_of(self, task: Task) -> float:
        """Return a task's own temperature; the shared one for runs of earlier versions."""
        return self.temperatures.get(task.name, self.temperature)

    def drawn_first(self, rows: np.ndarray) -> np.ndarray:
        """Return the groups (n,) int that intervals over rows (n,) resample first.

        See `metrics.interval_groups`.
        """
        sessions, speakers = (self.table[x].to_numpy(str)[rows] for x in ("session", "speaker"))
        return interval_groups(sessions, speakers, one_task=self.settings.within == "corpus")[0]

    def fit(
        self, task: Task, penalties: Sequence[float | None]
    ) -> tuple[PrincipalAxes, list[AxisWeights]]:
        """Fit the chosen classifier on a task's training rows, once per penalty."""
        train, valid = self.X[task.rows["train"]], self.X[task.rows["valid"]]
        fold = make_fold(task, train, valid, self.settings.seed)
        return fold.rotation, fit_path(self.classifier, fold, penalties)

    def scores(self, rotation: PrincipalAxes, head: AxisWeights, rows: np.ndarray) -> np.ndarray:
        """Return scores (m, classes) of row numbers `rows` (m,)."""
        X = self.X[rows]
        return head.scores(rotation, X, rotation.project(X))


def read_chosen(run: str | Path, table: pd.DataFrame, store: str | Path) -> SweepChoice:
    """Read the choice that `spk-classify sweep` wrote to `run`, and the features of its layers.

    Raises
    ------
    InputError
        The folder is not a finished sweep's, or table or store are not those that were swept.
    """
    run = Path(run)
    config, opened = read_config(run), open_store(store)
    check_sealed(run, config)
    repair = "pass the table and the store that were swept"
    check_same_store(config["store"], opened, whose=f"the store of {run}", repair=repair)
    check_same_inputs(run, table, opened, repair=repair)
    chosen = config["chosen"]
    layers = LayerSet.from_dict(chosen)
    _check_fitted_today(run, layers)
    settings = _settings(config)
    ready = prepare_tasks(table, opened, settings, SPLITS)
    ids = ready.table["segment_id"].to_numpy(str)
    return SweepChoice(
        settings=settings,
        classifier=chosen["classifier"],
        penalty=chosen["penalty"],
        temperature=chosen["temperature"],
        table=ready.table,
        tasks=ready.tasks,
        X=read_features(opened, ids, layers, settings.pooling_part),
        layers=layers,
        left_out=left_out_lines(ready.rejected, ready.skipped, f"{run}/{LEFT_OUT_FILE}"),
        temperatures=chosen.get("temperatures", {}),
        refitted=not settings.folds and _fitted_on(config) != "train",
    )


def _settings(config: Mapping[str, Any]) -> SweepSettings:
    """Return a run's settings; those of earlier versions become their nearest current ones."""
    settings = {**config["settings"], "calibration": "temperature", "standardise": "yes"}
    if settings["combine"] == MIX:
        settings["combine"] = "concat"
    return SweepSettings(**settings)


def _check_fitted_today(run: Path, layers: LayerSet) -> None:
    """Refuse what earlier versions chose and this one does not fit."""
    if layers.weights or layers.standardise != "yes":
        raise InputError(
            f"{run}: chose {layers.description} in an earlier version, expected a choice that this "
            "one fits, without weights of layers and with standardised features; sweep again into "
            "another folder"
        )


def _fitted_on(config: Mapping[str, Any]) -> str:
    return str(config.get("origin", {}).get("fitted_on", "train"))


def doubts_of_test(chosen: SweepChoice) -> list[str]:
    """Return lines on test segments that the run trained on, and on speakers absent from train."""
    table, tasks = chosen.table, chosen.tasks
    tested = table.iloc[np.sort(np.concatenate([task.rows["test"] for task in tasks]))]
    shared = learnt_from(tested, learnt_rows(table, tasks))
    lines = [f"test: {line}" for line in learnt_note(shared, tested["segment_id"].to_numpy())]
    if chosen.refitted:
        lines.append(
            "learnt: train alone, since validation sets what is found here; the run's own score is "
            "of train and valid"
        )
    return [*lines, *unknown_facts(table, tasks, ("test",))]


def model_name(run: str | Path) -> str:
    """Return the name of a run's choice in the model column of its predictions.

    Raises
    ------
    InputError
        The folder holds no predictions of one model.
    """
    from ...manifests.table import read_predictions

    return str(read_predictions(Path(run) / "predictions.csv")["model"].iloc[0])


def read_config(run: str | Path) -> dict[str, Any]:
    """Return the ``config.json`` of a finished sweep, or raise `InputError`."""
    run = Path(run)
    try:
        config = dict(json.loads((run / "config.json").read_bytes()))
        _settings(config)
        keys = {"classifier", "penalty", "layers", "combine", "temperature"}
        if config["chosen"].keys() >= keys and config["store"]:
            return config
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    if (run / "cells.jsonl").is_file() and not (run / "config.json").exists():
        raise InputError(
            f"{run}: holds a sweep that was stopped before its end, expected a finished one; run "
            "the same spk-classify sweep again, which resumes it"
        )
    raise InputError(
        f"{run}: holds no config.json of a sweep, expected settings, chosen and store in it; "
        "name a folder that spk-classify sweep wrote"
    )
