"""Make and read predictions tables: who speaks in which segment, according to a model.

The columns are `table.PREDICTION_COLUMNS`, and `table.read_predictions` reads the file. `start` and
`end` are the segment's; rows are joined to others by ``segment_id`` alone. `scores` is a JSON
object {speaker: probability} of all candidates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.counts import counted
from ..common.errors import InputError
from ..common.names import normal_name
from .table import UNKNOWN_SPEAKER, check_predictions, read_predictions

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def as_predictions(predictions: pd.DataFrame | str | Path) -> pd.DataFrame:
    """Return a checked predictions table, given one or its file."""
    if isinstance(predictions, (str, Path)):
        return read_predictions(predictions)
    return check_predictions(predictions)


def make_predictions(
    rows: pd.DataFrame,
    model: str,
    *,
    predicted: Sequence[object] | np.ndarray,
    score: np.ndarray,
    scores: Sequence[str] | np.ndarray,
) -> pd.DataFrame:
    """Return the checked predictions table of segments.

    Parameters
    ----------
    rows : segment table
        Of n segments.
    model
        Name of the model.
    predicted, score
        (n,) the named speakers, and their probabilities, 0..1.
    scores
        (n,) texts, as returned by `scores_text`.
    """
    times = [name for name in ("start", "end") if name in rows]
    named = rows[["segment_id", "session", "speaker", *times]].assign(
        predicted=predicted, score=score, split=rows.get("split", ""), model=model, scores=scores
    )
    return check_predictions(named)


def with_unknown(predictions: pd.DataFrame, below: float) -> pd.DataFrame:
    """Return predictions in which speakers less probable than `below` become `UNKNOWN_SPEAKER`.

    `score` remains the probability of the most probable speaker, and `best` names that speaker.

    Parameters
    ----------
    predictions : predictions table
    below
        Probability, 0..1. A score equal to it is named.

    Raises
    ------
    InputError
        A candidate has that name, and would be confused with nobody; or `below` is out of range.
    """
    if not 0 <= below <= 1:
        raise InputError(f"unknown_below: {below} is given, expected 0 to 1; correct it")
    best = predictions["best"] if "best" in predictions else predictions["predicted"]
    candidates = {name for text in predictions.get("scores", []) for name in parse_scores(text)}
    if UNKNOWN_SPEAKER in candidates.union(best):
        raise InputError(
            f"predictions: a speaker is called {UNKNOWN_SPEAKER!r}, expected another name where "
            "those who are not probable enough are called so; rename the speaker in the table and "
            "fit again, or leave out --unknown-below"
        )
    predicted = best.where(predictions["score"] >= below, UNKNOWN_SPEAKER)
    return check_predictions(predictions.assign(predicted=predicted, best=best))


def names_nobody(predictions: pd.DataFrame) -> pd.Series:
    """Return which rows (n,) bool name nobody, as made by `with_unknown`.

    A real speaker called `UNKNOWN_SPEAKER` counts as named: `best` is absent or is that speaker.
    """
    unknown = predictions["predicted"] == UNKNOWN_SPEAKER
    return unknown & (predictions.get("best", UNKNOWN_SPEAKER) != UNKNOWN_SPEAKER)


def unnamed_lines(named: pd.DataFrame, below: float | None) -> list[str]:
    """Return lines on how many predictions name nobody, with a probability below `below`."""
    if below is None:
        return []
    count = int((named["predicted"] == UNKNOWN_SPEAKER).sum())
    return [
        f"{UNKNOWN_SPEAKER}: {counted(count, 'segment', of=len(named))}, probability below "
        f"{below:.6g}"
    ]


def scores_text(labels: Sequence[str], chances: np.ndarray) -> str:
    """Return the `scores` of a segment: its probabilities to six digits.

    >>> scores_text(["a", "b"], [0.25, 0.75])
    '{"a": 0.25, "b": 0.75}'
    """
    pairs = {label: float(f"{chance:.6g}") for label, chance in zip(labels, chances, strict=True)}
    return json.dumps(pairs, ensure_ascii=False)


def parse_scores(text: str) -> dict[str, float]:
    """Return the candidates and their probabilities of a row's `scores`, or raise `InputError`."""
    try:
        scores = {normal_name(str(k)): float(value) for k, value in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        scores = {}
    if not scores or not all(0 <= value <= 1 for value in scores.values()):
        raise InputError(
            f"predictions: scores are {text[:80]!r}, expected a JSON object "
            "{speaker: probability 0..1}; predict again with spk-classify"
        )
    return scores
