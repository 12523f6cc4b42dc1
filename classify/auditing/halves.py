"""Detect turns with two voices: their halves, judged separately, belong to two people.

A pooled vector of two voices lies between them and is not unusual, so the halves are extracted with
the store's settings, and scored by classifiers that were not trained on the turn. The features of
halves are cached for the next audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...common.extras import check_extra
from ...extract.options import ExtractOptions
from ...extract.store.reader import FeatureStore
from ...manifests.splits.tasks import Task
from ..classifiers.calibration import probabilities
from ..classifiers.temperatures import task_temperatures
from ..features import read_features
from ..selection.cross_validation import cross_validate
from ..selection.run_inputs import check_same_store
from ..selection.sweep import one_thread
from .held_out import Learner

if TYPE_CHECKING:
    import pandas as pd

    from ..features import Log

LEAST_SECONDS = 2.0  # s, of a turn: shorter halves say too little
SURE = 0.7  # probability of each half's speaker
PARTS = ("first half", "second half")


def halves_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the halves of the turns that are long enough, as rows of a segment table."""
    import pandas as pd

    long = table[table["end"] - table["start"] >= LEAST_SECONDS]
    middle = (long["start"] + long["end"]) / 2
    halves = (long.assign(end=middle), long.assign(start=middle))
    return pd.concat(
        [
            half.assign(segment_id=half["segment_id"] + f", {part}")
            for half, part in zip(halves, PARTS, strict=True)
        ]
    ).reset_index(drop=True)


def extract_halves(
    table: pd.DataFrame,
    store: FeatureStore,
    learner: Learner,
    folder: str | Path,
    *,
    audio_root: str | Path,
    log: Log,
) -> FeatureStore:
    """Extract the halves of a table's turns as `store` was made, into a store in `folder`.

    Raises
    ------
    InputError
        The encoder is not the store's, or as for `run_extraction`.
    """
    from ...extract.run import run_extraction

    check_extra("extract", "--audio-root")
    config, layers = store.config, ",".join(map(str, learner.layers.layers))
    options = ExtractOptions(
        audio_root=str(audio_root),
        encoder=str(config["encoder"]),
        revision=config["revision"] if "/" in str(config["encoder"]) else None,
        pooling=config["pooling"],
        layers=layers,
        max_seconds=config["max_seconds"],
        store_dtype=config["dtype"],
        channel=config["channel"],
        resample=True,
    )
    path = Path(folder) / f"halves-{layers.replace(',', '-')}"
    run_extraction(halves_table(table), path, options, log=log)
    made = FeatureStore.open(path)
    repair = "leave --audio-root out, or extract the turns again"
    check_same_store(config, made, whose=f"the store {store.path}", repair=repair)
    return made


def two_voices(
    tasks: Sequence[Task],
    table: pd.DataFrame,
    X: np.ndarray,
    halves: FeatureStore,
    learner: Learner,
    *,
    seed: int = 0,
) -> np.ndarray:
    """Return how surely a turn's halves are two people, (rows of the table,) float.

    This is the lower of the probabilities of the halves' speakers; 0 if both are the same person or
    the turn is too short.
    """
    made = {str(name) for name in halves.ids()}
    ids = table["segment_id"].to_numpy(str)
    have = np.array([all(f"{name}, {part}" in made for part in PARTS) for name in ids])
    parts = [_read(halves, ids, have, part, learner, X.shape) for part in PARTS]
    with one_thread([learner.classifier]):
        scored = [_score(task, X, parts, have, learner, seed) for task in tasks]
    codes = [task.codes["valid"][have[task.rows["valid"]]] for task in tasks]
    heats = task_temperatures(
        [np.concatenate(pair) for pair in scored], [np.tile(code, 2) for code in codes]
    )
    sure = np.zeros(len(table))
    for task, pair, heat in zip(tasks, scored, heats, strict=True):
        rows = task.rows["valid"][have[task.rows["valid"]]]
        if len(rows):
            first, second = (probabilities(block, heat) for block in pair)
            differ = first.argmax(axis=1) != second.argmax(axis=1)
            sure[rows] = np.where(differ, np.minimum(first.max(axis=1), second.max(axis=1)), 0)
    return sure


def _read(
    halves: FeatureStore,
    ids: np.ndarray,
    have: np.ndarray,
    part: str,
    learner: Learner,
    shape: tuple[int, ...],
) -> np.ndarray:
    rows = np.zeros(shape, np.float32)
    names = [f"{name}, {part}" for name in ids[have]]
    rows[have] = read_features(halves, names, learner.layers, learner.pooling_part)
    return rows


def _score(
    task: Task,
    X: np.ndarray,
    parts: Sequence[np.ndarray],
    have: np.ndarray,
    learner: Learner,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (n, K) of first and second halves, for a task's turns that have them."""
    rows = task.rows["train"]
    halved = have[rows]
    path = {learner.classifier: (learner.penalty,)}
    every = np.concatenate([X[rows], *(part[rows] for part in parts)])
    cuts = []
    for learnt, held_out in task.cuts:
        heard = held_out[halved[held_out]]
        both = np.concatenate([heard + len(rows), heard + 2 * len(rows)])
        cuts.append((learnt, both))
    judged = replace(task, cuts=tuple(cuts))
    codes = np.tile(task.codes["train"], 3)
    scores, _ = cross_validate(every, codes, len(task.labels), judged.cuts, path, seed=seed)
    first, second = np.split(scores[learner.classifier][0], 2)
    return first, second
