"""The learning curve: test accuracy against seconds of training speech per speaker.

Each speaker's whole training segments are added in an order until the given seconds are reached, so
a longer enrolment contains every shorter one. The first draw adds them in order of time, as an
enrolment would; the others in random order. Layer and classifier are those of a finished sweep; the
penalty is chosen for each length on validation (with folds: the sweep's). A speaker with less
speech contributes all of it; test segments are the same for every length and are never used to
choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...common.log import with_progress
from ...manifests.splits.tasks import Task
from ..classifiers.registry import penalty_path
from ..features import Log
from ..metrics import percentiles, resample
from ..selection.sweep import one_thread
from .sweep_choice import SweepChoice, doubts_of_test, read_chosen
from .wording import ACCURACY, with_interval

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = (
    *("seconds", "accuracy", "low", "high", "behind", "behind_low", "behind_high"),
    *("segments", "speakers", "speech", "worst", "best"),
)
TICK = 6  # decimals to which seconds are compared: 10.0000000001 s equal 10 s


def learning_curve(
    table: pd.DataFrame,
    store: str | Path,
    run: str | Path,
    *,
    seconds: str = "1,2,5,10,30,60",
    draws: int = 5,
    seed: int = 0,
    log: Log = lambda text: None,
) -> pd.DataFrame:
    """Return test accuracy by seconds of speech per speaker, for the choice of the sweep `run`.

    Parameters
    ----------
    table, store
        Those of the sweep.
    run : folder that `spk-classify sweep` wrote
    seconds : numbers > 0, separated by commas
    draws : int, >= 1
        The first in order of time, the others at random from `seed`.
    log : function of one str
        Receives lines on doubtful results and, starting with "left out", on what was not usable.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`: accuracy as mean over draws with its 95 % interval over meetings and
        segments; its deficit to the longest (NaN there), paired by segment, with its interval;
        number of test segments; speakers with that much speech; mean training speech per speaker
        (s); accuracy of the worst and the best draw.

    Raises
    ------
    InputError
        The folder is not a sweep's, table or store are not the sweep's, or a number is out of
        range.
    """
    import pandas as pd

    lengths = _lengths(seconds)
    if draws < 1:
        raise InputError(f"draws: {draws} is given, expected 1 or more; correct --draws")
    chosen = read_chosen(run, table, store)
    for line in (*chosen.left_out, *doubts_of_test(chosen)):
        log(line)
    duration = (chosen.table["end"] - chosen.table["start"]).to_numpy(np.float64)
    orders = [_order(chosen.table, draw, seed) for draw in range(draws)]
    correct, speech = [], []
    with one_thread([chosen.classifier]):
        for length in with_progress(lengths, "lengths"):
            draws_ = [
                [_enrol(task, order, duration, length) for task in chosen.tasks] for order in orders
            ]
            correct.append(np.stack([_correct(chosen, tasks) for tasks in draws_]))
            speech.append(np.mean([_spoken(tasks, duration).mean() for tasks in draws_]))
    every = np.round(_spoken(chosen.tasks, duration), TICK)
    reached = [int((every >= length).sum()) for length in lengths]
    facts = zip(lengths, _shares(chosen, correct, seed), reached, speech, correct, strict=True)
    rows = [
        (length, *shares, right.shape[1], reach, spoken, *_ends(right))
        for length, shares, reach, spoken, right in facts
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _lengths(text: str) -> list[float]:
    try:
        lengths = [float(piece) for piece in text.split(",")]
    except ValueError:
        lengths = []
    if not lengths or not all(0 < length < np.inf for length in lengths):
        raise InputError(
            f"seconds: {text!r} is given, expected numbers above 0 as in '1,5,30'; "
            "correct --seconds"
        )
    return sorted(set(lengths))


def _order(table: pd.DataFrame, draw: int, seed: int) -> np.ndarray:
    """Return the rank (n,) of each row: by time, or at random."""
    if draw:
        return np.random.default_rng([seed, draw]).permutation(len(table))
    columns = [table[name].to_numpy() for name in ("segment_id", "end", "start", "session")]
    place = np.empty(len(table), np.int64)
    place[np.lexsort(columns)] = np.arange(len(table))
    return place


def _enrol(task: Task, order: np.ndarray, duration: np.ndarray, length: float) -> Task:
    """Return the task with each label's first segments in `order`, up to at least `length` s."""
    rows, codes = task.rows["train"], task.codes["train"]
    first = np.lexsort((order[rows], codes))
    speech, label = duration[rows[first]], codes[first]
    so_far = np.cumsum(speech) - speech
    begun = so_far[np.searchsorted(label, label)]  # speech of the labels before
    taken = np.sort(first[np.round(so_far - begun, TICK) < length])
    return replace(
        task,
        rows={**task.rows, "train": rows[taken]},
        codes={**task.codes, "train": codes[taken]},
    )


def _shares(
    chosen: SweepChoice, correct: Sequence[np.ndarray], seed: int
) -> list[tuple[float, float, float, float, float, float]]:
    """Return each length's accuracy and its deficit to the last, with intervals.

    `correct` is (draws, n) 0 or 1 for each length, in order of the tasks' test rows.
    """
    rows = np.concatenate([task.rows["test"] for task in chosen.tasks])
    meetings = chosen.drawn_first(rows)
    means = np.stack([right.mean(axis=0) for right in correct])
    behind = means[-1] - means
    drawn = [k for k, _ in resample(meetings, seed=seed)]
    outcomes = []
    for place, (mean, less) in enumerate(zip(means, behind, strict=True)):
        ends = percentiles(np.array([mean[k].mean() for k in drawn]))
        if place == len(means) - 1:
            outcomes.append((mean.mean(), *ends, np.nan, np.nan, np.nan))
        else:
            paired = percentiles(np.array([less[k].mean() for k in drawn]))
            outcomes.append((mean.mean(), *ends, less.mean(), *paired))
    return outcomes


def _ends(correct: np.ndarray) -> tuple[float, float]:
    """Return the accuracy of the worst and of the best draw."""
    each = correct.mean(axis=1)
    return each.min(), each.max()


def _spoken(tasks: Sequence[Task], duration: np.ndarray) -> np.ndarray:
    """Return the training speech (labels,) in s of each label of the tasks."""
    seconds = [
        np.bincount(task.codes["train"], weights=duration[task.rows["train"]]) for task in tasks
    ]
    return np.concatenate(seconds)


def _correct(chosen: SweepChoice, tasks: Sequence[Task]) -> np.ndarray:
    """Return whether each test segment is named correctly, (n,) 0 or 1, in order of tasks."""
    path: Sequence[float | None] = (chosen.penalty,)
    if not chosen.settings.folds and chosen.settings.penalty is None:
        path = penalty_path(chosen.classifier)
    right: list[list[np.ndarray]] = [[] for _ in path]
    hits = np.zeros(len(path))
    for task in tasks:
        rotation, heads = chosen.fit(task, path)
        for number, head in enumerate(heads):
            for split in ("valid", "test"):
                named = chosen.scores(rotation, head, task.rows[split]).argmax(axis=1)
                correct = named == task.codes[split]
                if split == "valid":
                    hits[number] += correct.sum()
                else:
                    right[number].append(correct)
    return np.concatenate(right[int(hits.argmax())]).astype(np.float64)


def conclude_curve(curve: pd.DataFrame) -> str:
    """Return a sentence on the shortest and longest speech, and the lengths shown to be behind."""
    every = curve.sort_values("seconds").to_dict("records")
    rows = [row for row in every if row["speakers"]]
    if not rows:
        return f"No speaker has {every[0]['seconds']:g} s of speech; pass fewer --seconds."
    first, last = rows[0], rows[-1]
    text = (
        f"With {last['seconds']:g} s of speech per speaker {with_interval(last, *ACCURACY)} of "
        f"{counted(int(last['segments']), 'test segment', 'is')} named rightly "
        f"({counted(int(last['speakers']), 'speaker', 'has')} that much, the others give all they "
        "have)"
    )
    if len(rows) < len(every):
        more = ", ".join(f"{row['seconds']:g}" for row in every[len(rows) :])
        text += f"; no speaker has {more} s"
    if len(rows) == 1:
        return f"{text}."
    text += f"; with {first['seconds']:g} s {with_interval(first, *ACCURACY)}."
    if "behind_low" not in curve:  # curves from older versions have no paired difference
        return text
    short = len(rows) < len(every)  # then the last one is what everybody has
    most = "all they have" if short else f"{last['seconds']:g} s"
    behind = {row["seconds"]: row["behind_low"] > 0 for row in (rows if short else rows[:-1])}
    parts = [
        f"{what}: {', '.join(f'{seconds:g}' for seconds in lengths)} s"
        for what, lengths in (
            (f"Shown to be behind {most}", [s for s in behind if behind[s]]),
            ("not shown", [s for s in behind if not behind[s]]),
        )
        if lengths
    ]
    return f"{text} {'; '.join(parts)} (95 % interval of the paired difference)."
