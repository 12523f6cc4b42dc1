"""What a finished sweep chose, read back from its folder with the data it was chosen for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.errors import InputError
from ..extract.layout import differing_keys
from ..extract.store import FeatureStore
from ..manifests.table import SPLITS
from ..manifests.tasks import Task
from .classifiers import Head, fit_path
from .data import LayerSet, open_store, read_features
from .linear import Rotation
from .model import FREE_KEYS
from .outcome import prepare
from .sweep import Settings, make_fold

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Chosen:
    """The chosen combination of a run, its tasks, and the features of its layers.

    `X` (n, d) are the rows of `table`, in order; `tasks` hold row numbers.
    """

    settings: Settings
    classifier: str
    penalty: float | None
    temperature: float
    table: pd.DataFrame
    tasks: Sequence[Task]
    X: np.ndarray
    layers: LayerSet

    def fit(self, task: Task, penalties: Sequence[float | None]) -> tuple[Rotation, list[Head]]:
        """Fit the chosen classifier on a task's training rows, once per penalty."""
        train, valid = self.X[task.rows["train"]], self.X[task.rows["valid"]]
        fold = make_fold(task, train, valid, self.settings.seed, self.layers)
        return fold.rotation, fit_path(self.classifier, fold, penalties)

    def scores(self, rotation: Rotation, head: Head, rows: np.ndarray) -> np.ndarray:
        """Return scores (m, classes) of row numbers `rows` (m,)."""
        X = self.X[rows]
        return head.scores(rotation, X, rotation.turn(X))


def read_chosen(run: str | Path, table: pd.DataFrame, store: str | Path) -> Chosen:
    """Read what `spk-classify sweep` wrote to `run`, and the features of the chosen layers.

    Raises
    ------
    InputError
        The folder is not a sweep's, or the store is of another encoder or configuration.
    """
    config, opened = _read_config(Path(run)), open_store(store)
    _check_store(config["store"], opened)
    settings, chosen = Settings(**config["settings"]), config["chosen"]
    known, _, tasks, _ = prepare(table, opened, settings, SPLITS)
    weights = tuple(chosen.get("weights", ()))  # none of both in runs from before
    way = chosen.get("standardise", "yes")
    layers = LayerSet(tuple(chosen["layers"]), chosen["combine"], weights, way)
    ids = known["segment_id"].to_numpy(str)
    return Chosen(
        settings=settings,
        classifier=chosen["classifier"],
        penalty=chosen["penalty"],
        temperature=chosen["temperature"],
        table=known,
        tasks=tasks,
        X=read_features(opened, ids, layers, settings.pooling_part),
        layers=layers,
    )


def name_of(run: str | Path) -> str:
    """Return how the model column of a run's predictions calls what it chose.

    Raises
    ------
    InputError
        The folder holds no predictions of one model.
    """
    from ..manifests.table import read_predictions

    return str(read_predictions(Path(run) / "predictions.csv")["model"].iloc[0])


def _read_config(run: Path) -> dict[str, Any]:
    try:
        config = dict(json.loads((run / "config.json").read_bytes()))
        Settings(**config["settings"])
        known = {"classifier", "penalty", "layers", "combine", "temperature"}
        if config["chosen"].keys() >= known and config["store"]:
            return config
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    raise InputError(
        f"{run}: holds no config.json of a sweep, expected settings, chosen and store in it; "
        "name a folder that spk-classify sweep wrote"
    )


def _check_store(config: dict[str, Any], store: FeatureStore) -> None:
    differ = differing_keys(config, store.config, free=FREE_KEYS)
    if differ:
        raise InputError(
            f"{store.path}: {differ[0]} is {store.config.get(differ[0])!r}, expected the run's "
            f"{config.get(differ[0])!r}; pass the store that was swept"
        )
