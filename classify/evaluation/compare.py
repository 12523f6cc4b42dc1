"""Compare two predictions tables, paired by segment.

Each pair is worth -1 (only A is right), 0 or 1 (only B is right); the difference B - A is their
mean. The result has one row per meeting and, over all of them, ``all`` and ``mean``:

- ``all`` and ``session``: over segments, with the interval of the two-level bootstrap and
  McNemar's exact test (1947), which treats segments as independent. ``p_holm`` corrects the
  meetings' p values for multiple comparisons (Holm, 1979);
- ``mean`` (two or more meetings): every meeting has equal weight; its test flips the signs of the
  meetings' differences, in all ways up to 13 meetings, in 9999 random ways above.

The conclusion claims a difference only where the interval of ``all`` excludes 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...manifests.predictions import as_predictions
from ..metrics import (
    LEVEL,
    RESAMPLES,
    interval_groups,
    mean_interval,
    percentiles,
    resample,
    session_mean,
)
from ..validity import doubts_of, within_corpus
from .score import scored_rows
from .wording import places

if TYPE_CHECKING:
    import pandas as pd


ALPHA = 1 - LEVEL
FLIPS = 9999  # random flips of the meetings' signs, where not all are enumerated
COLUMNS = (
    *("stratum", "group", "segments", "accuracy_a", "accuracy_b", "difference", "low", "high"),
    *("only_a", "only_b", "test", "p", "p_holm", "unpaired_a", "unpaired_b"),
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The difference of two predictions tables.

    Attributes
    ----------
    models : (name of A's, name of B's)
    rows : DataFrame
        Columns `COLUMNS`; `only_a` and `only_b` count segments that only one table gets right,
        `unpaired_a` and `unpaired_b` those missing from the other, which are not compared.
    facts : lines to show above the rows
    conclusion : str
    unpaired : rows of A and of B that are not compared
    """

    models: tuple[str, str]
    rows: pd.DataFrame
    facts: tuple[str, ...]
    conclusion: str
    unpaired: tuple[pd.DataFrame, ...] = ()

    def __repr__(self) -> str:
        """Return what it concludes, in one line."""
        return f"<Comparison {self.conclusion}>"


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The n segments present in both tables."""

    sessions: np.ndarray  # (n,) str
    speakers: np.ndarray  # (n,) str
    one_task: bool  # of both models, over all labels
    right_a: np.ndarray  # (n,) bool
    right_b: np.ndarray  # (n,) bool

    @property
    def gain(self) -> np.ndarray:
        return self.right_b.astype(np.int64) - self.right_a

    def of(self, session: str) -> _Pairs:
        chosen = self.sessions == session
        return replace(
            self,
            sessions=self.sessions[chosen],
            speakers=self.speakers[chosen],
            right_a=self.right_a[chosen],
            right_b=self.right_b[chosen],
        )

    @property
    def groups(self) -> np.ndarray:
        """Return the groups that intervals resample first."""
        return interval_groups(self.sessions, self.speakers, one_task=self.one_task)[0]


def compare(
    a: pd.DataFrame | str | Path,
    b: pd.DataFrame | str | Path,
    *,
    split: str = "test",
    model_a: str | None = None,
    model_b: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two predictions tables on the segments they share.

    Parameters
    ----------
    a, b
        Predictions tables, or their files.
    split : "train", "valid", "test" or "all"
        The rows to compare.
    model_a, model_b : str, optional
        The model whose rows to use; needed if a table holds several.

    Raises
    ------
    InputError
        No row is of this split, a table holds several models or lacks the named one, no segment
        is in both, or the two disagree on a segment's speaker, session or split.

    Examples
    --------
    >>> print(compare("sweep/predictions.csv", "tuned.csv").conclusion)  # doctest: +SKIP
    """
    if resamples < 1:
        raise InputError(f"resamples: {resamples} is given, expected 1 or more; correct it")
    a, b = as_predictions(a), as_predictions(b)
    first, second = _choose(a, "A", split, model_a), _choose(b, "B", split, model_b)
    pairs = _pair(first, second)
    ways = ((first, second), (second, first))
    left = [these[~these["segment_id"].isin(those["segment_id"])] for these, those in ways]
    rows = _rows(pairs, left, resamples, seed)
    where = places(first[first["segment_id"].isin(second["segment_id"])])
    models = (str(first["model"].iloc[0]), str(second["model"].iloc[0]))
    facts = (*_facts(models, left, pairs), *_doubts(first, second))
    return Comparison(models, rows, facts, conclude(rows, where), tuple(left))


def holm(p: np.ndarray) -> np.ndarray:
    """Return Holm's (1979) corrected p values (n,) in the order given.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(4).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(stepped, 1)[np.argsort(order)]


def conclude(rows: pd.DataFrame, where: str = "") -> str:
    """Return one sentence on which of the two is better, if the interval shows a difference.

    It mentions if McNemar's test disagrees, and names single meetings only if they differ after
    Holm's correction. `rows` is as in `Comparison`, `where` as from `wording.places`.
    """
    whole = rows[rows["stratum"] == "all"].iloc[0]
    meetings = rows[rows["stratum"] == "session"]
    claims = bool(whole["low"] > 0 or whole["high"] < 0)
    return (
        f"{_difference(whole, claims)}, McNemar p {whole['p']:.2g}, "
        f"{counted(whole['segments'], 'segment')} in {where or counted(len(meetings), 'meeting')}"
        f"{_disagreement(claims, whole['p'], len(meetings))}{_single(meetings)}"
    )


def _difference(whole: pd.Series, claims: bool) -> str:
    value, low, high = (100 * whole[name] for name in ("difference", "low", "high"))
    if not claims:
        return f"no difference is shown: B - A is {value:.1f} points ({low:.1f} to {high:.1f})"
    if high < 0:
        return f"A is better by {-value:.1f} points ({-high:.1f} to {-low:.1f})"
    return f"B is better by {value:.1f} points ({low:.1f} to {high:.1f})"


def _disagreement(claims: bool, p: float, meetings: int) -> str:
    if claims == (p < ALPHA):
        return ""
    prefix, level = "; interval and McNemar disagree:", f"{ALPHA:.2g}"
    if claims:
        why = "the interval excludes 0, so the difference is unsettled"
        return f"{prefix} McNemar's p is not below {level}, but {why}"
    reason = ", which treats segments as independent of their meeting" if meetings > 1 else ""
    return f"{prefix} McNemar's p is below {level}{reason}, but the interval holds 0"


def _single(meetings: pd.DataFrame) -> str:
    if len(meetings) < 2:
        return ""
    shown = meetings[meetings["p_holm"] < ALPHA]
    better = np.where(shown["difference"] > 0, "B", "A")
    names = [f"{n} ({who} better)" for n, who in zip(shown["group"], better, strict=True)]
    prefix = "; meetings that differ when taken alone, after Holm's correction: "
    return prefix + (", ".join(names) or "none")


def _choose(predictions: pd.DataFrame, where: str, split: str, model: str | None) -> pd.DataFrame:
    rows = scored_rows(predictions, split, where)
    names = list(dict.fromkeys(rows["model"]))
    if (len(names) > 1) if model is None else (model not in names):
        request = "none is named" if model is None else f"{model!r} is not among them"
        raise InputError(
            f"{where}: {counted(len(names), 'model', 'is')} in the table and {request}, expected "
            f"one; pass --model-{where.lower()} with one of {names}"
        )
    return rows if model is None else rows[rows["model"] == model]


def _pair(first: pd.DataFrame, second: pd.DataFrame) -> _Pairs:
    both = first.merge(second, on="segment_id", suffixes=("_a", "_b"), validate="one_to_one")
    if not len(both):
        raise InputError(
            f"B: {counted(0, 'segment', 'is', of=len(second))} in A, expected some, first "
            f"{second['segment_id'].iloc[0]!r}; compare predictions for the same segment table"
        )
    for column in ("speaker", "session", "split"):
        other = both[both[f"{column}_a"] != both[f"{column}_b"]]
        if len(other):
            row = other.iloc[0]
            raise InputError(
                f"B: {column} of {counted(len(other), 'shared segment', of=len(both))} is not "
                f"A's, first {row['segment_id']!r} with {row[f'{column}_b']!r}, expected "
                f"{row[f'{column}_a']!r}; predict both with the same segment table"
            )
    return _Pairs(
        sessions=both["session_a"].to_numpy(str),
        speakers=both["speaker_a"].to_numpy(str),
        one_task=within_corpus(str(first["model"].iloc[0])),
        right_a=(both["speaker_a"] == both["predicted_a"]).to_numpy(),
        right_b=(both["speaker_b"] == both["predicted_b"]).to_numpy(),
    )


def _facts(models: tuple[str, str], left: list[pd.DataFrame], pairs: _Pairs) -> tuple[str, ...]:
    facts = [f"{name}: {model}" for name, model in zip("AB", models, strict=True)]
    shared = len(pairs.sessions)
    for name, rows in zip("AB", left, strict=True):
        if len(rows):
            facts.append(
                f"not compared: {counted(len(rows), 'segment', 'is', of=shared + len(rows))} only "
                f"in {name}, first {rows['segment_id'].iloc[0]!r}"
            )
    meetings = len(set(pairs.sessions))
    least = 0.5 ** (meetings - 1)  # all differences of one sign: 2 of 2^n ways to flip them
    if meetings > 1 and least > ALPHA:
        facts.append(
            f"{counted(meetings, 'meeting', 'is')} few: a test over meetings cannot go below p "
            f"{least:.2g}, and the interval is rough"
        )
    return tuple(facts)


def _doubts(first: pd.DataFrame, second: pd.DataFrame) -> list[str]:
    """Return lines on what makes the predictions of each table doubtful."""
    named = (("A", first), ("B", second))
    return [f"{name}: {line}" for name, rows in named for line in doubts_of(rows)]


def _rows(pairs: _Pairs, left: list[pd.DataFrame], resamples: int, seed: int) -> pd.DataFrame:
    import pandas as pd

    names = sorted(set(pairs.sessions))
    lines = [{"stratum": "all", "group": "", **_over_segments(pairs, resamples, seed)}]
    if len(names) > 1:
        lines.append({"stratum": "mean", "group": "", **_over_meetings(pairs, resamples, seed)})
    alone = [_over_segments(pairs.of(name), resamples, seed) for name in names]
    corrected = holm(np.array([line["p"] for line in alone]))
    for name, line, p in zip(names, alone, corrected, strict=True):
        lines.append({"stratum": "session", "group": name, **line, "p_holm": p})
    for line in lines:
        for column, table in zip(("unpaired_a", "unpaired_b"), left, strict=True):
            here = table["session"] == line["group"]
            line[column] = int(here.sum()) if line["stratum"] == "session" else len(table)
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _over_segments(pairs: _Pairs, resamples: int, seed: int) -> dict[str, Any]:
    gain = pairs.gain
    only_a, only_b = int((gain < 0).sum()), int((gain > 0).sum())
    low, high = _interval(gain, pairs.groups, resamples, seed)
    return {
        "segments": len(gain),
        "accuracy_a": pairs.right_a.mean(),
        "accuracy_b": pairs.right_b.mean(),
        "difference": gain.mean(),
        "low": low,
        "high": high,
        "only_a": only_a,
        "only_b": only_b,
        "test": "McNemar",
        "p": _mcnemar(only_a, only_b),
    }


def _over_meetings(pairs: _Pairs, resamples: int, seed: int) -> dict[str, Any]:
    from scipy.stats import permutation_test

    gain, meetings = pairs.gain, np.unique(pairs.sessions, return_inverse=True)[1]
    means = np.bincount(meetings, weights=gain) / np.bincount(meetings)
    drawn = [session_mean(gain[rows], group) for rows, group in resample(meetings, resamples, seed)]
    low, high = percentiles(np.array(drawn))
    flipped = permutation_test(
        (means,), np.mean, permutation_type="samples", n_resamples=FLIPS, random_state=seed
    )
    return {
        **_over_segments(pairs, 1, seed),  # the counts are those of all
        "accuracy_a": session_mean(pairs.right_a, meetings),
        "accuracy_b": session_mean(pairs.right_b, meetings),
        "difference": means.mean(),
        "low": low,
        "high": high,
        "test": "sign flip",
        "p": float(flipped.pvalue),
    }


def _interval(
    gain: np.ndarray, sessions: np.ndarray, resamples: int, seed: int
) -> tuple[float, float]:
    """Return the interval of B - A, resampled for the better one, so that swapping negates it."""
    if gain.sum() >= 0:
        return mean_interval(gain, sessions, resamples, seed)
    low, high = mean_interval(-gain, sessions, resamples, seed)
    return 0.0 - high, 0.0 - low  # never -0.0


def _mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided exact p value: without a difference, each such pair is a fair coin."""
    from scipy.stats import binomtest

    pairs = only_a + only_b
    return float(binomtest(only_a, pairs).pvalue) if pairs else 1.0
