"""Convert scores of label pairs into probabilities that both labels are one person.

The scores of pairs of one person, and of pairs of two, are modelled as two normal distributions.
The evidence of a score is the logarithm of their ratio, held constant beyond its maximum so that it
never falls as the score rises. Expectation maximisation fits the means, the variances and the
share of people whom sessions of different series have in common. In it, a pair from the identity
file has its known answer, a pair within a series the prior probability that an id stays one person
there, and every other pair the learnt share. A label matches at most one label of another session,
so evidence for one match counts against the others.

If nobody is known, this is a guess about two overlapping distributions, which nothing verifies. A
few made-up pairs, as similar as the two halves of a label are, hold the distribution of one person
in place when there are no such pairs. It is also kept the narrower of the two: pairs of one person
vary less in similarity, and a wide distribution would take in the most similar strangers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from .labels import Labels
from .pairs import SAME, UNKNOWN, Pairs, half_scores

ROUNDS, ENOUGH = 200, 1e-6  # of expectation maximisation, and the change at which it stops
MADE_UP = 2.0  # pairs of one person
SHARED = 0.2  # assumed share of people common to different series, at least, for cautious odds
VARIES = 0.5, 0.75  # bounds of one person's deviation, as shares of the deviation of two
CERTAIN = 30.0  # largest log-odds


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
        Share of a session's people who are also in another, if their ids do not tell (0..1).
    """

    same: float
    same_deviation: float
    different: float
    different_deviation: float
    shared: float

    @property
    def d_prime(self) -> float:
        """Return the distance of the two means, in standard deviations."""
        spread = np.sqrt((self.same_deviation**2 + self.different_deviation**2) / 2)
        return float((self.same - self.different) / spread)

    def log_ratio(self, scores: np.ndarray) -> np.ndarray:
        """Return the evidence (m,) of scores for one person; it never falls as the score rises."""
        a, b = self.same_deviation**-2, self.different_deviation**-2
        if a != b:  # the ratio is a parabola: stay on its rising side
            turn = (a * self.same - b * self.different) / (a - b)
            scores = np.minimum(scores, turn) if a > b else np.maximum(scores, turn)
        inner, outer = a * np.square(scores - self.same), b * np.square(scores - self.different)
        return np.asarray((outer - inner + np.log(a / b)) / 2)


@dataclass(frozen=True, eq=False)
class PairCalibration:
    """Calibrated scores.

    Attributes
    ----------
    model : ScoreModel
    log_odds : (m,) float64
        That a pair is one person, from its score and the prior; for pairs of the identity file
        too, as if they were unknown.
    cautious : (m,) float64
        The same with at least `SHARED` of the people common to other series: if scores overlap,
        few common people cannot be told from common people who were not found.
    """

    model: ScoreModel
    log_odds: np.ndarray
    cautious: np.ndarray


def calibrate_pairs(labels: Labels, pairs: Pairs, same_id: float) -> PairCalibration:
    """Fit the distributions and return the log-odds of each pair, as the module describes."""
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
    """The competing matches of each pair: other labels in either of its sessions."""

    def __init__(self, labels: Labels, pairs: Pairs) -> None:
        codes = np.unique(labels.sessions, return_inverse=True)[1]
        self._ends = []
        for label, other in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
            groups = label * (codes.max() + 1) + codes[other]
            self._ends.append(np.unique(groups, return_inverse=True)[1])

    def less(self, log_odds: np.ndarray) -> np.ndarray:
        """Return the log-odds (m,) that a pair is one person and none of its rivals is."""
        odds = np.exp(np.clip(log_odds, -CERTAIN, CERTAIN))
        rest = sum(np.bincount(group, weights=odds)[group] - odds for group in self._ends)
        return np.asarray(np.clip(log_odds, -CERTAIN, CERTAIN) - np.log1p(np.maximum(rest, 0)))


def prior(pairs: Pairs, same_id: float, shared: float) -> np.ndarray:
    """Return the log-odds (m,) that a pair is one person, before its score is known.

    A person is also in the other session with probability `shared`, and is then any of its `people`
    with equal probability. Within a series, the person has the same id with probability `same_id`,
    and otherwise is any of the other people.
    """
    chance = shared / pairs.people
    if same_id > 0:
        other = (1 - same_id) / np.maximum(pairs.people - 1, 1)
        chance = np.where(pairs.in_series, np.where(pairs.same_id, same_id, other), chance)
    return np.asarray(logit(np.clip(chance, 1e-9, 1 - 1e-9)))


def _own_half_score(labels: Labels) -> float:
    """Return the mean score of labels' first halves against their second; 1 if there are none."""
    scores, own = half_scores(labels)
    return float(scores[own].mean()) if own.any() else 1.0


def _fitted(pairs: Pairs, weight: np.ndarray, own: float, same_id: float) -> ScoreModel:
    """Return the model of pairs that are one person with `weight` (m,), plus `MADE_UP` pairs."""
    scores = np.append(pairs.scores, own)
    same, same_deviation = _moments(scores, np.append(weight, MADE_UP))
    different, different_deviation = _moments(scores, np.append(1 - weight, 0.0))
    least, most = (share * different_deviation for share in VARIES)
    across = ~pairs.in_series | (same_id == 0)  # their ids do not determine the prior
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
