"""Decide who each cluster is: scores of clusters and their segments become names with reasons.

No audio is read here; the input is turns and the vectors of their segments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...common.counts import counted
from .assignment import CONFLICT, MIXED, SHORT, STRANGER, assign, number_unknown, purity, rivals
from .calibration import best_other
from .clusters import seconds_of, speech_of, together
from .options import NamingOptions
from .voices import Voices

if TYPE_CHECKING:
    import pandas as pd

DOUBT = 0.8  # below this probability, a name or `unknown` is doubtful
SEVERAL = 0.5  # share of speech with names segment by segment, in a cluster without a name
CLOSE = 0.1  # without calibration: this near the threshold
COLUMNS = (
    *("session", "cluster", "name", "probability", "second", "margin", "seconds", "purity"),
    "reason",
)


@dataclass(frozen=True, eq=False)
class Named:
    """A diarization with names.

    Attributes
    ----------
    turns : DataFrame
        `session`, `start`, `end`, `cluster`, `name`, `probability`, `channel`, `text`, by time.
    clusters : DataFrame
        `COLUMNS`, `score`, `doubtful`: a row for each cluster, by session and speaking time.
        `seconds` is the amount of speech judged; `probability` that of the name, NaN if not
        defined; `second` the next most probable person; `margin` how far the score lies above the
        next.
    evidence : DataFrame
        The segments scored: `session`, `cluster`, `start`, `end`, `audio`, `channel`, `best` (the
        most probable person from this segment alone), `score` (of that person).
    voices : Voices
    threshold : float
        Lowest probability, or score without calibration, that gives a name.
    """

    turns: pd.DataFrame
    clusters: pd.DataFrame
    evidence: pd.DataFrame
    voices: Voices
    options: NamingOptions
    threshold: float

    def __repr__(self) -> str:
        """Return the numbers of clusters and of doubtful ones, in one line."""
        doubtful = int(self.clusters["doubtful"].sum())
        return f"<Named {counted(len(self.clusters), 'cluster')}, {doubtful} doubtful>"

    @property
    def names(self) -> dict[tuple[str, str], str]:
        """Return {(session, cluster): name}."""
        columns = (self.clusters[name] for name in ("session", "cluster", "name"))
        return {(s, c): name for s, c, name in zip(*columns, strict=True)}


def rounded_down(probability: float, digits: int) -> float:
    """Round a probability down, and never to 1: 0.99997 must not read as certainty.

    >>> rounded_down(0.99997, 2), rounded_down(1.0, 4), rounded_down(0.5, 2)
    (0.99, 0.9999, 0.5)
    """
    scale = 10**digits
    if math.isnan(probability):
        return probability
    return min(math.floor(probability * scale + 1e-9), scale - 1) / scale


def name_clusters(
    voices: Voices,
    turns: pd.DataFrame,
    segments: pd.DataFrame,
    X: np.ndarray,
    settings: NamingOptions | None = None,
) -> Named:
    """Name the clusters of turns, given their segments' vectors X (n, dim).

    Parameters
    ----------
    turns
        As returned by `clusters.turns_table`.
    segments
        A row for each vector: `session`, `cluster`, `start`, `end` (s).
    """
    import pandas as pd

    settings = settings or NamingOptions()
    threshold = settings.threshold
    if threshold is None:
        threshold = voices.calibration.threshold(settings.false_accepts)
    scores = _present(voices, voices.scorer.scores(X.astype(np.float64)), settings)
    segments = segments.assign(best="", score=np.nan)
    if len(segments):
        best = np.nanargmax(scores, axis=1)
        segments["best"] = np.array(voices.names)[best]
        segments["score"] = scores[np.arange(len(best)), best]
    rows: list[dict[str, object]] = []
    for session, part in turns.groupby("session", sort=True):
        here = (segments["session"] == session).to_numpy()
        judged = _Session(part, segments[here], X[here], scores[here], voices, settings, threshold)
        rows += judged.rows(str(session))
    clusters = pd.DataFrame(rows)
    named = clusters.set_index(["session", "cluster"])[["name", "probability"]]
    turns = turns.join(named, on=["session", "cluster"])
    columns = ["session", "start", "end", "cluster", "name", "probability", "channel", "text"]
    return Named(turns[columns], clusters, segments, voices, settings, threshold)


def _present(voices: Voices, scores: np.ndarray, settings: NamingOptions) -> np.ndarray:
    """Return scores (n, P), with NaN for persons who were not present."""
    names = settings.present_names
    absent = [bool(names) and name not in names for name in voices.names]
    return np.where(np.array(absent), np.nan, scores)


class _Session:
    """The clusters of one session, and the findings on each."""

    def __init__(
        self,
        turns: pd.DataFrame,
        segments: pd.DataFrame,
        X: np.ndarray,
        scores: np.ndarray,
        voices: Voices,
        settings: NamingOptions,
        threshold: float,
    ) -> None:
        self.speech = speech_of(turns)
        self.total = {name: seconds_of(spans) for name, spans in self.speech.items()}
        self.clusters = sorted(self.speech, key=lambda name: (-self.total[name], name))
        self.voices, self.settings = voices, settings
        lengths = (segments["end"] - segments["start"]).to_numpy()
        self._rows = [(segments["cluster"] == name).to_numpy() for name in self.clusters]
        self._lengths, self._scores = lengths, scores
        self.seconds = np.array([lengths[rows].sum() for rows in self._rows])
        self.scores = np.full((len(self.clusters), len(voices.names)), np.nan)
        judged = self.seconds > 0
        if judged.any():
            means = [
                lengths[rows] @ X[rows] / lengths[rows].sum() for rows in self._rows if rows.any()
            ]
            raw = voices.scorer.scores(np.stack(means).astype(np.float64))
            self.scores[judged] = _present(voices, raw, settings)
        self.logs, self.gains = self._gains(self.scores, self.seconds, threshold)
        alone = self._gains(scores, lengths, threshold)[1]
        self._named_alone = (np.nan_to_num(alone, nan=-1.0) >= 0).any(axis=1)

    def _gains(
        self, scores: np.ndarray, seconds: np.ndarray, threshold: float
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Return log-probabilities (n, P + 1), if calibrated, and gains (n, P); NaN without speech.

        `scores` (n, P) were computed on `seconds` (n,) of speech.
        """
        calibrator = self.voices.calibration.calibrator
        if calibrator is None:
            return None, scores - threshold
        logs, judged = np.full((len(scores), scores.shape[1] + 1), np.nan), seconds > 0
        logs[judged] = calibrator.log_probabilities(scores[judged], seconds[judged])
        return logs, logs[:, :-1] - np.log(max(threshold, 1e-300))

    def purity(self, cluster: int, person: int) -> float:
        """Return the share of speech that fits a person best, of those no better overall."""
        rows, own = self._rows[cluster], self.scores[cluster]
        scores = self._scores[rows][:, own <= own[person]]
        columns = np.flatnonzero(own <= own[person])
        return purity(columns[np.nanargmax(scores, axis=1)], self._lengths[rows], person)

    def rows(self, session: str) -> list[dict[str, object]]:
        """Return a row of `Named.clusters` for each cluster."""
        reasons = [self._reason(k) for k in range(len(self.clusters))]
        gains = self.gains.copy()
        gains[[reason != "" for reason in reasons]] = -1.0
        for k, person in zip(*np.nonzero(gains >= 0), strict=True):
            if self.purity(k, person) < self.settings.min_purity:
                gains[k, person] = -1.0
        at_once = together(self.speech)
        pairs = rivals(self.clusters, self.speech, at_once, self.settings.same_name)
        given = assign(gains, pairs)
        nobody = {self.clusters[k]: self.total[self.clusters[k]] for k in np.flatnonzero(given < 0)}
        labels = number_unknown(nobody)
        return [
            {
                "session": session,
                "cluster": name,
                "name": labels.get(name) or self.voices.names[given[k]],
                **self._facts(k, int(given[k]), reasons[k]),
            }
            for k, name in enumerate(self.clusters)
        ]

    def _reason(self, k: int) -> str:
        """Return why a cluster cannot have a name, whatever the others have."""
        if not self.seconds[k] or self.seconds[k] < self.settings.min_seconds:
            return SHORT
        best = int(np.nanargmax(self.scores[k]))
        mixed = self.purity(k, best) < self.settings.min_purity
        if self.gains[k, best] >= 0:
            return MIXED if mixed else ""
        alone = self._lengths[self._rows[k] & self._named_alone].sum() / self.seconds[k]
        return MIXED if mixed and alone >= SEVERAL else STRANGER

    def _facts(self, k: int, person: int, reason: str) -> dict[str, object]:
        if not self.seconds[k]:
            nothing = dict.fromkeys(("probability", "margin", "purity", "score"), np.nan)
            return {**nothing, "second": "", "seconds": 0.0, "reason": SHORT, "doubtful": True}
        scores, order = self.scores[k], np.argsort(-np.nan_to_num(self.scores[k], nan=-np.inf))
        best = int(order[0]) if person < 0 else person
        if not reason and best != int(order[0]):
            reason = CONFLICT
        if not reason and person < 0:
            reason = CONFLICT
        others = [int(j) for j in order if j != person and not np.isnan(scores[j])]
        margin = float((scores - best_other(scores[None])[0])[best])
        probability = self._probability(k, person, reason)
        facts: dict[str, object] = {
            "probability": probability,
            "second": self.voices.names[others[0]] if others else "",
            "margin": margin,
            "seconds": float(self.seconds[k]),
            "purity": self.purity(k, best),
            "reason": reason,
            "score": float(scores[best]),
        }
        close = abs(self.gains[k, best]) < CLOSE if self.logs is None else probability < DOUBT
        return {**facts, "doubtful": bool(close or reason in (SHORT, MIXED, CONFLICT))}

    def _probability(self, k: int, person: int, reason: str) -> float:
        if self.logs is None or (person < 0 and reason != STRANGER):
            return float("nan")
        return float(np.exp(self.logs[k, person]))  # -1 is the last column, `unknown`
