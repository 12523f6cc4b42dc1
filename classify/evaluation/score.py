"""Measures of a predictions table with intervals, overall and by stratum.

The result has one row per model, stratum, group and measure. Measures over all segments:

- ``accuracy`` over segments pooled, ``accuracy_meetings`` its mean over meetings,
  ``balanced_accuracy``, ``macro_f1``; ``accuracy_time`` weighted by duration (needs a table);
- ``top3``, ``log_loss``, ``calibration_error`` and the verification view ``eer`` and ``min_dcf``
  (p = 0.01), each segment being a trial against each candidate (need `scores`);
- ``majority`` and ``chance``: always naming the speaker with most training segments in the closed
  set (`tasks.majority_label`; needs a table), and guessing among the candidates; without a table
  ``majority_scored``: the speaker with most of the scored segments, known only from the truth;
- by ``session``, ``speaker``, ``duration`` and ``overlap``: accuracy only.

If nobody is named (`predictions.names_nobody`), a segment is right only if the table calls its
speaker ``unknown``; otherwise it belongs to no class of ``macro_f1``. ``calibration_error`` uses
the most probable speaker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...common.log import warn
from ...manifests.predictions import as_predictions, names_nobody, parse_scores
from ...manifests.split_record import split_method
from ...manifests.splits.tasks import majority_label, rows_in_train
from ...manifests.table import as_table
from ..features import Log
from ..metrics import (
    RESAMPLES,
    VerificationTrials,
    balanced_accuracy,
    calibration_error,
    equal_error_rate,
    interval_groups,
    log_loss,
    macro_f1,
    mean_interval,
    min_dcf,
    percentiles,
    resample,
    session_mean,
)
from ..validity import doubts_of, split_doubts, within_corpus

if TYPE_CHECKING:
    import pandas as pd


DURATIONS = ((1.0, "<1 s"), (2.0, "1-2 s"), (5.0, "2-5 s"), (np.inf, ">5 s"))
OVERLAPS = ((0.2, "<20 %"), (0.5, "20-50 %"), (np.inf, ">50 %"))
COLUMNS = ("model", "stratum", "group", "measure", "value", "low", "high", "segments", "drawn")
MEASURES = (  # over all segments, in display order
    "accuracy",
    "accuracy_meetings",
    "accuracy_time",
    "balanced_accuracy",
    "macro_f1",
    "top3",
    "log_loss",
    "calibration_error",
    "eer",
    "min_dcf",
    "majority",
    "majority_scored",
    "chance",
)
Measure = Callable[[np.ndarray, np.ndarray], float]  # of row numbers (m,) and groups (m,)
Group = tuple[str, str, np.ndarray]  # stratum, group, its rows (n,) bool


@dataclass(frozen=True, eq=False)
class _Rows:
    """One model's predictions as arrays over its n segments; None if not known."""

    sessions: np.ndarray  # (n,) int
    groups: np.ndarray  # (n,) int, resampled first by intervals
    drawn: str  # what the groups are
    truth: np.ndarray  # (n,) int
    predicted: np.ndarray  # (n,) int, -1 if nobody is named
    best_right: np.ndarray  # (n,) bool, whether the most probable speaker is the true one
    score: np.ndarray  # (n,) 0..1, of the most probable speaker
    candidates: np.ndarray  # (n,) int, their number
    majority: np.ndarray  # (n,) bool, whether the majority label is right
    trained: bool  # whether the majority is that of the training rows
    duration: np.ndarray | None  # (n,) s
    chances: np.ndarray | None  # (n, most candidates), NaN if none
    column: np.ndarray | None  # (n,) the truth's column of `chances`, or -1

    @property
    def correct(self) -> np.ndarray:
        return self.truth == self.predicted


def score(
    predictions: pd.DataFrame | str | Path,
    table: pd.DataFrame | str | Path | None = None,
    *,
    split: str = "test",
    resamples: int = RESAMPLES,
    seed: int = 0,
    log: Log = warn,
) -> pd.DataFrame:
    """Measure a predictions table with 95 % bootstrap intervals, and log what is doubtful.

    Parameters
    ----------
    predictions
        Predictions table, or its file.
    table
        Segment table, or its file: gives durations, overlaps and the training majority.
    split
        "train", "valid", "test" or "all": the rows to score.
    resamples
        Of the bootstrap, 1 or more.
    seed
        Of the bootstrap.
    log
        Receives lines on what makes the measures doubtful: a split that leaks, segments used in
        training, speakers that the model does not know.
        trained on, speakers that the model does not know.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`; one row per model, stratum, group and measure.

    Raises
    ------
    InputError
        No row is of this split, `scores` cannot be read, or the table lacks a segment.

    Examples
    --------
    >>> measures = score("predictions.csv", "table.csv")  # doctest: +SKIP
    >>> measures[measures["measure"] == "accuracy"]  # doctest: +SKIP
    """
    named = as_predictions(predictions)
    segments = None if table is None else as_table(table)
    doubts = [] if segments is None else split_doubts(split_method(segments))
    for line in [*doubts, *doubts_of(scored_rows(named, split), segments)]:
        log(line)
    return measure(named, segments, split=split, resamples=resamples, seed=seed)


def measure(
    predictions: pd.DataFrame,
    table: pd.DataFrame | None = None,
    *,
    split: str = "test",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Return every measure of a predictions table, with 95 % bootstrap intervals.

    The column `drawn` names what each interval resamples before segments.

    Parameters
    ----------
    table : segment table, optional
        Joined by segment id; gives durations, overlaps and the training majority.
    split : "train", "valid", "test" or "all"
        The rows to score.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`; one row per model, stratum, group and measure.

    Raises
    ------
    InputError
        No row is of this split, `scores` cannot be read, or the table lacks a segment.
    """
    import pandas as pd

    if resamples < 1:
        raise InputError(f"resamples: {resamples} is given, expected 1 or more; correct it")
    chosen = scored_rows(predictions, split)
    parts = []
    for model, rows in chosen.groupby("model", sort=False):
        joined = _join(rows.reset_index(drop=True), table)
        lines = _overall(_arrays(joined, table), resamples, seed) + _strata(joined, resamples, seed)
        parts.append(pd.DataFrame(lines, columns=list(COLUMNS[1:])).assign(model=model))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def scored_rows(predictions: pd.DataFrame, split: str, where: str = "predictions") -> pd.DataFrame:
    """Return the rows of a split (or ``all``) of a predictions table; `InputError` if none."""
    rows = predictions if split == "all" else predictions[predictions["split"] == split]
    if not len(rows):
        present = [name for name in sorted(set(predictions["split"])) if name]
        raise InputError(
            f"{where}: {counted(0, 'row', 'has', of=len(predictions))} split {split!r}, expected "
            f"at least 1; pass --split with one of {[*present, 'all']}"
        )
    return rows


def _join(rows: pd.DataFrame, table: pd.DataFrame | None) -> pd.DataFrame:
    if table is None:
        return rows
    indexed = table.set_index("segment_id")
    unknown = rows["segment_id"][~rows["segment_id"].isin(indexed.index)]
    if len(unknown):
        raise InputError(
            f"table: {counted(len(unknown), 'predicted segment', 'is', of=len(rows))} missing, "
            f"first {unknown.iloc[0]!r}; pass the table that was predicted"
        )
    segments = indexed.loc[rows["segment_id"]].reset_index()
    rows = rows.assign(duration=segments["end"] - segments["start"])
    return rows.assign(overlap=segments["overlap"]) if "overlap" in segments else rows


def _arrays(rows: pd.DataFrame, table: pd.DataFrame | None) -> _Rows:
    labels = sorted(set(rows["speaker"]) | set(rows["predicted"]))
    number = {label: code for code, label in enumerate(labels)}
    named = ~names_nobody(rows) | (rows["predicted"] == rows["speaker"])
    scores = [parse_scores(text) for text in rows["scores"]] if "scores" in rows else None
    train = rows[:0] if table is None else rows_in_train(table)
    candidates = _candidates(rows, scores, train)
    majority = _majority(rows, candidates, train)
    chances, column = (None, None) if scores is None else _matrix(scores, list(rows["speaker"]))
    groups, drawn = drawn_first(rows)
    return _Rows(
        sessions=np.unique(rows["session"].to_numpy(str), return_inverse=True)[1],
        groups=groups,
        drawn=drawn,
        truth=rows["speaker"].map(number).to_numpy(np.int64),
        predicted=rows["predicted"].map(number).where(named, -1).to_numpy(np.int64),
        best_right=(rows.get("best", rows["predicted"]) == rows["speaker"]).to_numpy(),
        score=rows["score"].to_numpy(np.float64),
        candidates=np.array([len(names) for names in candidates]),
        majority=rows["speaker"].to_numpy(str) == majority,
        trained=len(train) > 0,
        duration=rows["duration"].to_numpy(np.float64) if "duration" in rows else None,
        chances=chances,
        column=column,
    )


def drawn_first(rows: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Return the groups that a model's intervals resample first (`metrics.interval_groups`)."""
    sessions, speakers = (rows[name].to_numpy(str) for name in ("session", "speaker"))
    return interval_groups(sessions, speakers, one_task=within_corpus(str(rows["model"].iloc[0])))


def _matrix(scores: list[dict[str, float]], truth: list[str]) -> tuple[np.ndarray, np.ndarray]:
    chances = np.full((len(scores), max(map(len, scores))), np.nan)
    column = np.full(len(scores), -1)
    for row, (named, label) in enumerate(zip(scores, truth, strict=True)):
        chances[row, : len(named)] = list(named.values())
        column[row] = list(named).index(label) if label in named else -1
    return chances, column


def _candidates(
    rows: pd.DataFrame, scores: list[dict[str, float]] | None, train: pd.DataFrame
) -> list[tuple[str, ...]]:
    """Return each row's candidates: those with a score, or else the speakers of its closed set.

    The closed set is that of train or, if train is empty, of the scored rows.
    """
    if scores is not None:
        return [tuple(named) for named in scores]
    counted = train if len(train) else rows
    everybody = tuple(sorted(set(counted["speaker"])))
    if len(train) and within_corpus(str(rows["model"].iloc[0])):
        return [everybody] * len(rows)
    present = {name: tuple(sorted(set(part))) for name, part in _by_session(counted)}
    return [present.get(session, everybody) for session in rows["session"]]


def _by_session(rows: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """Yield (session, the speakers of its rows)."""
    yield from rows.groupby("session")["speaker"]


def _majority(
    rows: pd.DataFrame, candidates: list[tuple[str, ...]], train: pd.DataFrame
) -> np.ndarray:
    """Return the majority label of each row's closed set, among its candidates.

    Counted in `train` or, if that is empty, in the scored rows. The closed set is the row's meeting
    if the model is not over all labels and every candidate is in that meeting; a person may attend
    several meetings and be the majority of one.
    """
    counted = train if len(train) else rows
    meetings = {name: list(speakers) for name, speakers in _by_session(counted)}
    corpus = within_corpus(str(rows["model"].iloc[0]))
    best = {}
    keys = list(zip(rows["session"], candidates, strict=True))
    for session, names in set(keys):
        here = meetings.get(session, [])
        whole = corpus or not set(here) >= set(names)
        best[session, names] = majority_label(counted["speaker"] if whole else here, names)
    return np.array([best[key] for key in keys])


def _measures(rows: _Rows) -> dict[str, Measure]:
    """Return each measure as a function of resampled row numbers (m,) and groups (m,)."""
    correct, duration = rows.correct.astype(np.float64), rows.duration
    best_right = rows.best_right.astype(np.float64)
    measures: dict[str, Measure] = {
        "accuracy": lambda k, _: float(correct[k].mean()),
        "accuracy_meetings": lambda k, group: session_mean(
            correct[k], group if rows.drawn == "meetings" else rows.sessions[k]
        ),
        "balanced_accuracy": lambda k, _: balanced_accuracy(rows.truth[k], rows.predicted[k]),
        "macro_f1": lambda k, _: macro_f1(rows.truth[k], rows.predicted[k]),
        "calibration_error": lambda k, _: calibration_error(rows.score[k], best_right[k]),
        ("majority" if rows.trained else "majority_scored"): (
            lambda k, _: float(rows.majority[k].mean())
        ),
        "chance": lambda k, _: float(np.mean(1 / rows.candidates[k])),
    }
    if duration is not None:
        measures["accuracy_time"] = lambda k, _: float(correct[k] @ duration[k] / duration[k].sum())
    if rows.chances is not None and rows.column is not None:
        measures.update(_probability_measures(rows.chances, rows.column))
    return {name: measures[name] for name in MEASURES if name in measures}


def _probability_measures(chances: np.ndarray, column: np.ndarray) -> dict[str, Measure]:
    true = np.where(column >= 0, chances[np.arange(len(column)), column], 0)
    above = np.nansum(chances > true[:, None], axis=1)  # candidates above the true one
    equals = np.maximum(np.nansum(chances == true[:, None], axis=1), 1)  # ties are in random order
    top3 = np.where(column >= 0, np.clip((3 - above) / equals, 0, 1), 0.0)
    trials = VerificationTrials(chances, column)

    def rates(k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return trials.rates(np.bincount(k, minlength=len(column)))

    return {
        "top3": lambda k, _: float(top3[k].mean()),
        "log_loss": lambda k, _: log_loss(true[k]),
        "eer": lambda k, _: equal_error_rate(*rates(k)),
        "min_dcf": lambda k, _: min_dcf(*rates(k)),
    }


def _overall(rows: _Rows, resamples: int, seed: int) -> list[tuple[object, ...]]:
    measures, everything = _measures(rows), np.arange(len(rows.truth))
    drawn: dict[str, list[float]] = {name: [] for name in measures}
    for chosen, group in resample(rows.groups, resamples, seed):
        for name, measure in measures.items():
            drawn[name].append(measure(chosen, group))
    lines: list[tuple[object, ...]] = []
    for name, measure in measures.items():
        value, ends = measure(everything, rows.sessions), percentiles(np.array(drawn[name]))
        if name == "calibration_error":  # biased upwards by resampling, so it has no interval
            ends = (np.nan, np.nan)
        lines.append(("all", "", name, value, *ends, len(everything), rows.drawn))
    return lines


def _strata(rows: pd.DataFrame, resamples: int, seed: int) -> list[tuple[object, ...]]:
    correct = (rows["speaker"] == rows["predicted"]).to_numpy()
    lines: list[tuple[object, ...]] = []
    for stratum, group, chosen in _groups(rows):
        values = correct[chosen]
        first, drawn = drawn_first(rows[chosen])
        low, high = mean_interval(values, first, resamples, seed)
        lines.append((stratum, group, "accuracy", values.mean(), low, high, len(values), drawn))
    return lines


def _groups(rows: pd.DataFrame) -> list[Group]:
    groups: list[Group] = []
    for stratum in ("session", "speaker"):
        values = rows[stratum].to_numpy(str)
        groups += [(stratum, name, values == name) for name in sorted(set(values))]
    for stratum, bins in (("duration", DURATIONS), ("overlap", OVERLAPS)):
        if stratum in rows:
            names = [_bin(stratum, value, bins) for value in rows[stratum]]
            order = ["0", *(name for _, name in bins)]
            groups += [(stratum, name, np.array(names) == name) for name in order if name in names]
    return groups


def _bin(stratum: str, value: float, bins: tuple[tuple[float, str], ...]) -> str:
    """Return the bin of a value; edges belong to the bin above, except the last to the bin below.

    Bin 1-2 s is thus 1 <= d < 2, and >5 s is d > 5.
    """
    if stratum == "overlap" and value == 0:
        return "0"
    last = bins[-2][0]
    return next(name for edge, name in bins if value < edge or value == edge == last)
