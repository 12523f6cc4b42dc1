"""Scores of pairs become probabilities that both are one person.

The scores of pairs of one person and of two are two normal distributions; what a score says is the
logarithm of their ratio, which never falls as the score rises (beyond the best it stays). Their
means, their variances, and how often sessions of different series share people are those of the
greatest likelihood (expectation maximisation): pairs of the identity file count as they are, pairs
of a series by how probable it is that an id stays one person there, all others by what was learnt
of them. A label is at most one label of another session, so what speaks for one of them speaks
against the others. Where nobody is known this is a guess about two overlapping heaps, which nothing
has checked. A few made-up pairs, as alike as the two halves of a label are, keep the heap of one
person in its place where there are none. It is also kept the narrower of the two: pairs of one
person differ less in how alike they are, and a wide heap would take in the most alike strangers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from .labels import Labels
from .pairs import SAME, UNKNOWN, Pairs, half_scores

ROUNDS, ENOUGH = 200, 1e-6  # of expectation maximisation, and the change that ends it
MADE_UP = 2.0  # pairs
SHARED = 0.2  # share of the people of another series that caution reckons with, at least
VARIES = 0.5, 0.75  # deviation of pairs of one person, at least and at most, in that of two
CERTAIN = 30.0  # log-odds, at most


@dataclass(frozen=True)
class ScoreModel:
    """Normal distributions of the scores of pairs, and how many pairs are one person.

    Attributes
    ----------
    same, same_deviation : float
        Of pairs of one person.
    different, different_deviation : float
        Of pairs of two.
    shared : float
        Share of the people of a session who are in another, where no ids tell (0..1).
    """

    same: float
    same_deviation: float
    different: float
    different_deviation: float
    shared: float

    @property
    def d_prime(self) -> float:
        """Return the distance of the means in deviations."""
        spread = np.sqrt((self.same_deviation**2 + self.different_deviation**2) / 2)
        return float((self.same - self.different) / spread)

    def log_ratio(self, scores: np.ndarray) -> np.ndarray:
        """Return how far scores (m,) speak for one person; it never falls as the score rises."""
        a, b = self.same_deviation**-2, self.different_deviation**-2
        if a != b:  # the ratio is a parabola: stay on the side that rises
            turn = (a * self.same - b * self.different) / (a - b)
            scores = np.minimum(scores, turn) if a > b else np.maximum(scores, turn)
        inner, outer = a * np.square(scores - self.same), b * np.square(scores - self.different)
        return np.asarray((outer - inner + np.log(a / b)) / 2)


@dataclass(frozen=True, eq=False)
class PairCalibration:
    """What scores mean.

    Attributes
    ----------
    model : ScoreModel
    log_odds : (m,) float64
        That a pair is one person, by score and by what is known before; of pairs of the identity
        file too, as if they were not known.
    cautious : (m,) float64
        The same if at least `SHARED` of the people of other series were shared: where scores
        overlap, that few are shared and that few are found look alike.
    """

    model: ScoreModel
    log_odds: np.ndarray
    cautious: np.ndarray


def calibrate_pairs(labels: Labels, pairs: Pairs, same_id: float) -> PairCalibration:
    """Learn what the scores of pairs mean, as the module says."""
    own, scores = _own_half_score(labels), pairs.scores
    middle, spread = float(np.median(scores)), max(float(scores.std()), 1e-6)
    model = ScoreModel(max(own, middle + 1e-3), spread, middle, spread, 0.5)
    rivals, before = Rivals(labels, pairs), np.full(len(scores), np.inf)
    for _ in range(ROUNDS):
        log_odds = rivals.less(model.log_ratio(scores) + prior(pairs, same_id, model.shared))
        if np.abs(log_odds - before).max(initial=0.0) < ENOUGH:
            break
        before = log_odds
        weight = np.where(pairs.truth == UNKNOWN, expit(log_odds), pairs.truth == SAME)
        model = _fitted(pairs, weight, own, same_id)
    before = prior(pairs, same_id, max(model.shared, SHARED))
    return PairCalibration(model, log_odds, rivals.less(model.log_ratio(scores) + before))


class Rivals:
    """The other labels of a session that a label could be instead."""

    def __init__(self, labels: Labels, pairs: Pairs) -> None:
        codes = np.unique(labels.sessions, return_inverse=True)[1]
        self._ends = []
        for label, other in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
            groups = label * (codes.max() + 1) + codes[other]
            self._ends.append(np.unique(groups, return_inverse=True)[1])

    def less(self, log_odds: np.ndarray) -> np.ndarray:
        """Return log-odds (m,) that a pair is one person and not one of its rivals."""
        odds = np.exp(np.clip(log_odds, -CERTAIN, CERTAIN))
        rest = sum(np.bincount(group, weights=odds)[group] - odds for group in self._ends)
        return np.asarray(np.clip(log_odds, -CERTAIN, CERTAIN) - np.log1p(np.maximum(rest, 0)))


def prior(pairs: Pairs, same_id: float, shared: float) -> np.ndarray:
    """Return the log-odds (m,) that a pair is one person, before it is heard.

    A person of one session is in the other with the probability `shared`, as any of its `people`;
    within a series with `same_id` as the same id, else as any other.
    """
    chance = shared / pairs.people
    if same_id > 0:
        other = (1 - same_id) / np.maximum(pairs.people - 1, 1)
        chance = np.where(pairs.in_series, np.where(pairs.same_id, same_id, other), chance)
    return np.asarray(logit(np.clip(chance, 1e-9, 1 - 1e-9)))


def _own_half_score(labels: Labels) -> float:
    """Return the mean score of a label's first half against its second; 1 where there are none."""
    scores, own = half_scores(labels)
    return float(scores[own].mean()) if own.any() else 1.0


def _fitted(pairs: Pairs, weight: np.ndarray, own: float, same_id: float) -> ScoreModel:
    """Return the model of pairs that are one person by `weight` (m,), and of `MADE_UP` more."""
    scores = np.append(pairs.scores, own)
    same, same_deviation = _moments(scores, np.append(weight, MADE_UP))
    different, different_deviation = _moments(scores, np.append(1 - weight, 0.0))
    least, most = (share * different_deviation for share in VARIES)
    across = ~pairs.in_series | (same_id == 0)  # whose chance is not given by their ids
    possible = (1 / pairs.people[across]).sum()  # people who could be in both
    shared = float((weight[across].sum() + 0.5) / (possible + 1.0))
    return ScoreModel(
        max(same, different),
        min(max(same_deviation, least), most),
        different,
        different_deviation,
        shared,
    )


def _moments(scores: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    total = max(float(weight.sum()), 1e-9)
    mean = float(weight @ scores) / total
    return mean, max(float(np.sqrt(weight @ np.square(scores - mean) / total)), 1e-6)
