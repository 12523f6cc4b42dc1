"""What a sweep found, in words that claim no difference which the interval does not carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .data import Task
from .measures import mean_interval
from .trials import Trial, choose

if TYPE_CHECKING:
    import pandas as pd


def baselines(tasks: Sequence[Task], split: str) -> dict[str, float]:
    """Return the accuracy of a guess and of each task's majority label in train."""
    sizes = np.array([len(task.rows[split]) for task in tasks])
    chance = np.array([1 / len(task.labels) for task in tasks])
    hits = sum(int(np.sum(task.codes[split] == task.majority)) for task in tasks)
    return {"chance": float(sizes @ chance / sizes.sum()), "majority": float(hits / sizes.sum())}


def conclude(
    table: pd.DataFrame,
    tasks: Sequence[Task],
    trials: Sequence[Trial],
    predictions: pd.DataFrame,
    measures: pd.DataFrame,
) -> str:
    """Say what was found, and no difference that its paired interval does not carry."""
    found = measures.query("stratum == 'all' and measure == 'accuracy'").iloc[0]
    meetings = predictions["session"]
    count = len(set(meetings))
    places = (
        f"{count} meetings"
        if count > 1
        else "1 meeting (so the interval is over its segments only)"
    )
    return (
        f"{found['model']}: chosen on validation ({choose(trials).accuracy:.1%}), it names "
        f"{found['value']:.1%} ({found['low']:.1%} to {found['high']:.1%}) of {len(predictions)} "
        f"test segments in {places}; {_against_majority(table, tasks, predictions)}. "
        f"{_rivals(tasks, table, trials)}"
    )


def _against_majority(table: pd.DataFrame, tasks: Sequence[Task], predictions: pd.DataFrame) -> str:
    rows = np.concatenate([task.rows["test"] for task in tasks])
    hits = np.concatenate([task.codes["test"] == task.majority for task in tasks])
    usual = hits[np.argsort(rows)]
    correct = (predictions["speaker"] == predictions["predicted"]).to_numpy()
    gain = correct.astype(int) - usual.astype(int)
    low, _ = mean_interval(gain, predictions["session"].to_numpy(str))
    verb = "above" if low > 0 else "not shown to be above"
    return f"{verb} the majority class ({usual.mean():.1%}); chance {_chance(tasks):.1%}"


def _chance(tasks: Sequence[Task]) -> float:
    return baselines(tasks, "test")["chance"]


def _rivals(tasks: Sequence[Task], table: pd.DataFrame, trials: Sequence[Trial]) -> str:
    """Say how many other combinations validation does not show to be worse than the chosen one."""
    if len(trials) == 1:
        return "Nothing else was tried."
    chosen = choose(trials)
    meetings = table["session"].to_numpy(str)[np.concatenate([t.rows["valid"] for t in tasks])]
    equal = 0
    for trial in trials:
        gain = chosen.correct.astype(int) - trial.correct.astype(int)
        equal += trial is not chosen and mean_interval(gain, meetings)[0] <= 0
    return (
        f"Of {len(trials) - 1} other combinations of layers and classifier, {equal} are not shown "
        "to be worse on validation (95 % interval of the paired difference)."
    )
