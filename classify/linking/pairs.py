"""Score pairs of labels of different sessions, and collect what is known about them.

Pairs within a session are not scored: its labels are different people by definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ..metrics import VerificationTrials, equal_error_rate
from ..naming.scoring import unit
from .labels import Label, Labels

SAME, DIFFERENT, UNKNOWN = 1, 0, -1
FEW, ENOUGH = 4, 10  # fewest pairs of one person to measure the encoder on; of known people
IDENTITY, SERIES, HALVES = "known people", "ids of a series", "halves of a session"


@dataclass(frozen=True, eq=False)
class Pairs:
    """The m pairs of labels of different sessions.

    Attributes
    ----------
    first, second : (m,) int
        Indices of the labels, first < second.
    scores : (m,) float64
        Cosine.
    truth : (m,) int
        `SAME` or `DIFFERENT` by the identity file, else `UNKNOWN`.
    in_series, same_id : (m,) bool
        Whether the sessions are of one series, and whether the ids are also equal.
    people : (m,) int
        Number of labels in the larger of the two sessions.
    """

    first: np.ndarray
    second: np.ndarray
    scores: np.ndarray
    truth: np.ndarray
    in_series: np.ndarray
    same_id: np.ndarray
    people: np.ndarray


def make_pairs(labels: Labels, persons: Mapping[Label, str]) -> Pairs:
    """Score every pair of labels of different sessions."""
    first, second = np.triu_indices(len(labels), 1)
    across = labels.sessions[first] != labels.sessions[second]
    first, second = first[across], second[across]
    vectors = unit(labels.vectors)
    names = np.array([persons.get(pair, "") for pair in labels.pairs])
    both = (names[first] != "") & (names[second] != "")
    in_series = (labels.series[first] == labels.series[second]) & (labels.series[first] != "")
    codes = np.unique(labels.sessions, return_inverse=True)[1]
    sizes = np.bincount(codes)[codes]
    return Pairs(
        first,
        second,
        (vectors @ vectors.T)[first, second],
        np.where(both, (names[first] == names[second]).astype(int), UNKNOWN),
        in_series,
        in_series & (labels.speakers[first] == labels.speakers[second]),
        np.maximum(sizes[first], sizes[second]),
    )


def check_one_label_each(persons: Mapping[Label, str], where: str) -> None:
    """Raise `InputError` if one person is two labels of a session."""
    seen: dict[tuple[str, str], str] = {}
    for (session, speaker), person in persons.items():
        other = seen.setdefault((session, person), speaker)
        if other != speaker:
            raise InputError(
                f"{where}: {person!r} is {other!r} and {speaker!r} of session {session!r}, "
                "expected one label; delete a row, or give both turns one label in the annotation"
            )


@dataclass(frozen=True)
class Separation:
    """How well scores tell one person from two.

    Attributes
    ----------
    of : str
        What it was measured on: `IDENTITY`, `SERIES` (ids taken as true) or `HALVES` (within one
        room, which is easier); empty if there are too few pairs of any.
    same, different : int
        Numbers of pairs.
    eer : float
        Equal-error rate (0..1).
    d_prime : float
        Distance of the two medians in deviations, estimated from the median absolute deviation:
        a few ids that are not one person barely change it, unlike the equal-error rate.
    """

    of: str
    same: int
    different: int
    eer: float
    d_prime: float

    def __str__(self) -> str:
        if not self.of:
            return "nothing shows how well the encoder tells voices apart"
        return (
            f"equal-error rate {100 * self.eer:.1f} %, d' {self.d_prime:.2f} on {self.of} "
            f"({counted(self.same, 'pair')} of one person, {self.different} of two)"
        )


def measure_separation(labels: Labels, pairs: Pairs, same_id: float) -> Separation:
    """Measure how well scores tell people apart, on the most certain pairs available."""
    certain, series = pairs.truth != UNKNOWN, pairs.in_series & (same_id > 0)
    known_better = np.where(certain, pairs.truth == SAME, pairs.same_id)
    halves = half_scores(labels)
    for of, scores, same, least in (
        (IDENTITY, pairs.scores[certain], pairs.truth[certain] == SAME, ENOUGH),
        (SERIES, pairs.scores[series | certain], known_better[series | certain], FEW),
        (HALVES, *halves, FEW),
    ):
        if min(same.sum(), (~same).sum()) >= least:
            return _separation(of, scores, same)
    return Separation("", 0, 0, np.nan, np.nan)


def half_scores(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (k,) of first against second halves in a session, and which are one label."""
    whole = labels.of(~np.isnan(labels.halves).any(axis=(1, 2)))
    scores = unit(whole.halves[:, 0]) @ unit(whole.halves[:, 1]).T
    inside = whole.sessions[:, None] == whole.sessions
    return scores[inside], np.eye(len(whole), dtype=bool)[inside]


def _separation(of: str, scores: np.ndarray, same: np.ndarray) -> Separation:
    trials = VerificationTrials(scores[:, None], np.where(same, 0, -1))
    eer = equal_error_rate(*trials.rates(np.ones(len(scores))))
    (middle, deviation), (other, rest) = map(_robust, (scores[same], scores[~same]))
    d_prime = (middle - other) / max(np.sqrt((deviation**2 + rest**2) / 2), 1e-9)
    return Separation(of, int(same.sum()), int((~same).sum()), float(eer), float(d_prime))


def _robust(values: np.ndarray) -> tuple[float, float]:
    """Return the median, and a normal distribution's deviation from the median absolute one."""
    middle = float(np.median(values))
    return middle, float(1.4826 * np.median(np.abs(values - middle)))
