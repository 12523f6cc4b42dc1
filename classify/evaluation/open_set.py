"""Open-set evaluation: each speaker is left out in turn as a stranger who should be rejected.

A segment is accepted if its best score (the calibrated probability of the predicted speaker,
`score` in the predictions table) reaches a threshold. The threshold for a wanted false accept rate
is set on validation (after a sweep with folds, on the held-out rows, each scored by classifiers not
trained on it) and evaluated on test: the share of strangers accepted (false accepts), and the share
of segments of known speakers both accepted and correctly named (detection and identification).

Source: Phillips, Grother and Micheals (2011), Evaluation methods in face recognition, in Handbook
of Face Recognition, 21.2 (open-set identification).
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
from ..classifiers.calibration import probabilities
from ..features import Log
from ..metrics import percentiles, resample
from ..selection.candidates import learnt_codes
from ..selection.cross_validation import cross_validate
from ..selection.prepare import NO_STOP
from ..selection.sweep import one_thread
from .sweep_choice import SweepChoice, doubts_of_test, read_chosen
from .wording import with_interval

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = (
    "wanted",
    "threshold",
    "false_accepts",
    "false_low",
    "false_high",
    "identified",
    "low",
    "high",
    "named",
    "strangers",
    "known",
    "valid_strangers",
)
NOBODY = "a fold would train on nobody else"
FEWEST = 3  # speakers of a task: one to leave out, two to distinguish


def open_set(
    table: pd.DataFrame,
    store: str | Path,
    run: str | Path,
    *,
    false_accepts: str = "0.01,0.05,0.1",
    seed: int = 0,
    log: Log = lambda text: None,
) -> pd.DataFrame:
    """Evaluate the choice of the sweep `run` on speakers that it was not trained on.

    Parameters
    ----------
    table, store
        Those of the sweep.
    run : folder that `spk-classify sweep` wrote
    false_accepts : shares of strangers accepted, 0..1 exclusive, separated by commas
    log : function of one str
        Receives lines on doubtful results and, starting with "left out", on what was not usable.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`, one row per wanted share: the threshold that gives it on validation;
        false accepts on test, and detection and identification, each with its 95 % interval over
        meetings and segments; identification if all were accepted; the number of trials of
        strangers and of known speakers (a segment is one trial of each model), and of strangers on
        validation.

    Raises
    ------
    InputError
        The folder is not a sweep's, no task has three speakers, or a share is out of range.
    """
    import pandas as pd

    wanted = _shares(false_accepts)
    chosen = read_chosen(run, table, store)
    tasks, small = _large_enough(chosen, run)
    for line in (*chosen.left_out, *small, *doubts_of_test(chosen)):
        log(line)
    cases = [(task, code) for task in tasks for code in range(len(task.labels))]
    reasons = [_why_unfit(chosen, *case) for case in cases]
    unfit = [(*case, why) for case, why in zip(cases, reasons, strict=True) if why]
    for task, code, why in unfit:
        log(f"left out: {task.name}, stranger {task.labels[code]!r}, {why} without them")
    cases = [case for case, why in zip(cases, reasons, strict=True) if not why]
    if not cases:
        change = "--classifiers" if unfit[0][2] == NO_STOP else "--folds"
        raise InputError(
            f"{run}: 0 of {counted(len(unfit), 'speaker')} can be left out ({unfit[0][2]} without "
            f"them), expected at least 1; sweep with other {change} into another folder"
        )
    with one_thread([chosen.classifier]):
        trials = {name: _trials(chosen, cases, name) for name in ("valid", "test")}
    groups = chosen.drawn_first(np.arange(len(chosen.table)))
    rows = [(share, *_row(trials, share, groups, seed)) for share in wanted]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _shares(text: str) -> list[float]:
    try:
        shares = [float(piece) for piece in text.split(",")]
    except ValueError:
        shares = []
    if not shares or not all(0 < share < 1 for share in shares):
        raise InputError(
            f"false-accepts: {text!r} is given, expected shares between 0 and 1 as in '0.01,0.1'; "
            "correct --false-accepts"
        )
    return sorted(set(shares))


Trials = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # score, right, stranger, row


def _large_enough(chosen: SweepChoice, run: str | Path) -> tuple[list[Task], list[str]]:
    """Return the tasks with enough speakers, and a line on each other task."""
    tasks = [task for task in chosen.tasks if len(task.labels) >= FEWEST]
    if not tasks:
        raise InputError(
            f"{run}: {counted(0, 'task', 'has', of=len(chosen.tasks))} {FEWEST} speakers, "
            "expected at least 1; sweep a table with larger meetings, or with --within corpus, "
            "into another folder"
        )
    lines = [
        f"left out: {task.name}, {counted(len(task.labels), 'speaker')}, fewer than {FEWEST}"
        for task in chosen.tasks
        if len(task.labels) < FEWEST
    ]
    return tasks, lines


def _why_unfit(chosen: SweepChoice, task: Task, code: int) -> str:
    """Return why a task cannot be trained without a label; "" if it can."""
    codes = task.codes["train"]
    if not all(np.any(codes[learnt] != code) for learnt, _ in task.cuts):
        return NOBODY
    fewer = without_speaker(task, code)
    if chosen.classifier == "lightgbm" and not np.any(fewer.codes["valid"] >= 0):
        return NO_STOP
    return ""


def _trials(chosen: SweepChoice, cases: Sequence[tuple[Task, int]], split: str) -> Trials:
    """Return score, correctly named (bool), stranger (bool) and table row of trials, each (n,)."""
    trials = [
        _left_out(chosen, task, code, split) for task, code in with_progress(cases, "strangers")
    ]
    score, right, stranger, row = (np.concatenate(part) for part in zip(*trials, strict=True))
    return score, right, stranger, row


def _left_out(chosen: SweepChoice, task: Task, code: int, split: str) -> Trials:
    """Score a split by a classifier trained without label `code`."""
    fewer = without_speaker(task, code)
    if split == "valid" and task.cuts:
        scores = _out_of_fold(chosen, task, code)
        # a fold may lack all segments of a speaker, and cannot name them
        learnt = learnt_codes(fewer.codes[split], scores) >= 0
    else:
        rotation, heads = chosen.fit(fewer, (chosen.penalty,))
        scores = chosen.scores(rotation, heads[0], task.rows[split])
        learnt = fewer.codes[split] >= 0
    tried = learnt | (task.codes[split] == code)  # speakers absent from training are no trials
    scores = scores[tried]
    chances = probabilities(scores, chosen.temperature_of(task))
    right = scores.argmax(axis=1) == fewer.codes[split][tried]
    return chances.max(axis=1), right, ~learnt[tried], task.rows[split][tried]


def _out_of_fold(chosen: SweepChoice, task: Task, code: int) -> np.ndarray:
    """Return scores (n, classes - 1) of the held-out rows by folds trained without `code`."""
    codes = task.codes["train"]
    others = np.where(codes == code, 0, codes - (codes > code))  # `code` itself is in no fold
    cuts = [(learnt[codes[learnt] != code], held_out) for learnt, held_out in task.cuts]
    path = {chosen.classifier: (chosen.penalty,)}
    scores, _ = cross_validate(
        chosen.X[task.rows["train"]],
        others,
        len(task.labels) - 1,
        cuts,
        path,
        seed=chosen.settings.seed,
    )
    return scores[chosen.classifier][0]


def without_speaker(task: Task, code: int) -> Task:
    """Return the task without label `code`: not trained on, and its segments have code -1."""
    keep = task.codes["train"] != code
    rows = {**task.rows, "train": task.rows["train"][keep]}
    codes = {**task.codes, "train": task.codes["train"][keep]}
    fewer = {
        split: np.where(numbers == code, -1, numbers - (numbers > code))
        for split, numbers in codes.items()
    }
    labels = task.labels[:code] + task.labels[code + 1 :]
    return replace(task, labels=labels, rows=rows, codes=fewer)


def find_threshold(scores: np.ndarray, share: float) -> float:
    """Return the lowest score that at most `share` of the strangers' `scores` (n,) reach.

    >>> find_threshold(np.array([0.2, 0.4, 0.6, 0.8]), 0.25)
    0.8
    """
    falling = np.sort(scores)[::-1]
    allowed = int(np.floor(share * len(falling) + 1e-9))
    if allowed == 0:
        return float(np.nextafter(falling[0], np.inf))
    least = falling[allowed - 1]
    if allowed < len(falling) and falling[allowed] == least:  # ties are accepted together
        above = falling[falling > least]
        return float(above[-1]) if len(above) else float(np.nextafter(least, np.inf))
    return float(least)


def _row(
    trials: dict[str, Trials], share: float, sessions: np.ndarray, seed: int
) -> tuple[float, ...]:
    score, _, stranger, _ = trials["valid"]
    threshold = find_threshold(score[stranger], share) if stranger.any() else np.nan
    strangers = int(stranger.sum())
    score, right, stranger, row = trials["test"]
    accepted = score >= threshold
    numbers: list[float] = [threshold]
    for value, subset in ((accepted, stranger), (accepted & right, ~stranger)):
        numbers.append(float(value[subset].mean()))
        numbers += _interval(value[subset], row[subset], sessions, seed)
    known_speaker = ~stranger
    return (
        *numbers,
        float(right[known_speaker].mean()),
        int(stranger.sum()),
        int(known_speaker.sum()),
        strangers,
    )


def _interval(
    value: np.ndarray, row: np.ndarray, sessions: np.ndarray, seed: int
) -> tuple[float, float]:
    """Return the interval of the mean of `value` (n,) of trials, resampled by segment.

    `row` (n,) is each trial's row of the table, `sessions` the meeting of each table row.
    """
    rows, place = np.unique(row, return_inverse=True)
    hits, count = np.bincount(place, weights=value), np.bincount(place)
    meetings = np.unique(sessions[rows], return_inverse=True)[1]
    drawn = [hits[k].sum() / count[k].sum() for k, _ in resample(meetings, seed=seed)]
    return percentiles(np.array(drawn))


def conclude_open_set(rows: pd.DataFrame) -> str:
    """Return a sentence on the loosest threshold on test, and on shares too small to measure."""
    row = rows.sort_values("wanted").iloc[-1]
    within = row["false_low"] <= row["wanted"] <= row["false_high"]
    side = "fewer" if row["wanted"] > row["false_high"] else "more"
    verdict = "the wanted share is within the interval" if within else f"{side} than wanted"
    strangers = with_interval(row, "false_accepts", "false_low", "false_high")
    identified = with_interval(row, "identified", "low", "high")
    text = (
        f"The threshold that lets in at most {100 * row['wanted']:g}% of the strangers on "
        f"validation lets in {strangers} of them on test ({verdict}), and accepts and rightly "
        f"names {identified} of known speakers' trials"
    )
    if "named" in rows:  # tables from older versions do not count these
        text += f"; if all were accepted, {row['named']:.1%}"
    if "valid_strangers" in rows and rows["wanted"].min() * row["valid_strangers"] < 1:
        text += (
            f". Validation has {counted(int(row['valid_strangers']), 'stranger')}, so a share "
            f"below {1 / row['valid_strangers']:.1%} lets in none of them"
        )
    return f"{text}."
