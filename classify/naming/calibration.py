"""Convert scores into probabilities of the persons and `unknown`, using the enrolment alone.

Enrolled sessions (or single clips, if each session is one person's) are left out in turn. Speech of
a left-out session is a trial against the voices made from the others: a trial of a known person if
those include the speaker, or of a stranger if the speaker is left out of them completely. Trials
are as long as clusters are: a few stretches, or all. The probability of a person is a softmax over
persons of

    a * score + b * (score - the best other score) + c * log(seconds / 10) + d

and 0 for `unknown`. The four coefficients maximise the likelihood with a light penalty and with
a, b >= 0, so that a higher score never makes its person less probable. Known persons and strangers
have equal weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..evaluation.open_set import find_threshold
from .scoring import FEW, fit_scorer
from .stretches import STRETCH, Stretches

MOST_FOLDS, MOST_GROUPS = 8, 8  # of sessions, and of groups of persons, left out
LENGTHS = (5.0, 15.0, 45.0, np.inf)  # s of a trial
DRAWS = 3  # of each length per session
FEWEST_TRIALS = 6  # known persons in left-out sessions
PENALTY = 2e-4  # on the squared coefficients, to bound them
UNIT = 10.0  # s
SCORE = 0.5  # a cosine


@dataclass(frozen=True, eq=False)
class Trials:
    """Scores of left-out speech.

    Attributes
    ----------
    names : list of str
        The P persons.
    scores : (n, P) float64
        NaN if a person was left out.
    seconds : (n,) float64
    truth : (n,) int
        Column of the speaker; -1: a stranger.
    weights : (n,) float64
        The trials of one person in one session have a total weight of 1, as known or as stranger.
    """

    names: list[str]
    scores: np.ndarray
    seconds: np.ndarray
    truth: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Calibrator:
    """The four coefficients; see the module."""

    score: float
    margin: float
    length: float
    offset: float

    def log_probabilities(self, scores: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Return natural logs (n, P + 1) of probabilities that sum to 1, `unknown` last.

        Parameters
        ----------
        scores : (n, P) float
            NaN if a person is not a candidate and has probability 0.
        seconds : (n,) float
            Amount of speech behind each score, > 0.
        """
        numbers = np.array([self.score, self.margin, self.length, self.offset])
        return _log_softmax(_features(scores, seconds) @ numbers)


@dataclass(frozen=True, eq=False)
class Calibration:
    """Result of leaving speech out.

    Attributes
    ----------
    calibrator : Calibrator, optional
        None if there is too little enrolled speech; then scores alone decide.
    strangers : (k,) float64
        For each trial of a stranger, the probability of the most probable person.
    threshold_score : float
        Lowest score that names a cluster, for use without a calibrator.
    loss : float
        Log-loss of the trials, known persons and strangers weighted equally; infinite without a
        calibrator.
    known_trials, trials : int
        Trials of known persons, and all.
    """

    calibrator: Calibrator | None
    strangers: np.ndarray = field(repr=False)
    threshold_score: float
    loss: float = np.inf
    known_trials: int = 0
    trials: int = 0

    def threshold(self, false_accepts: float) -> float:
        """Return the least that names a cluster: a probability, or a score without calibrator.

        At most the share `false_accepts` of the strangers' trials has a person above it.
        """
        if self.calibrator is None:
            return self.threshold_score
        return find_threshold(self.strangers, false_accepts)


def calibrate(stretches: Stretches) -> Calibration:
    """Learn from the enrolment what its scores mean, as the module describes."""
    plain = score_threshold(stretches)
    trials = make_trials(stretches)
    if trials is None:
        return Calibration(None, np.zeros(0), plain)
    calibrator = fit_calibrator(trials)
    logs = calibrator.log_probabilities(trials.scores, trials.seconds)
    loss = -_balanced(trials) @ logs[np.arange(len(logs)), trials.truth]
    strange = trials.truth < 0
    strangers = np.exp(logs[strange, :-1].max(axis=1))
    known_trials = int((~strange).sum())
    return Calibration(calibrator, strangers, plain, float(loss), known_trials, len(logs))


def score_threshold(stretches: Stretches) -> float:
    """Return the lowest score that names a cluster, for use without a calibrator.

    Voices are made from every other stretch, and the rest is scored. The threshold is halfway
    between the median of persons' own scores and the median of the best other person's. With a
    single person, it is the score that 95 % of the person's stretches reach; if no person has two
    stretches, it is `SCORE`.
    """
    own, other = halves(stretches)
    if not len(own):
        return SCORE
    if np.isnan(other).all():
        return float(np.percentile(own, 5))
    return float((np.median(own) + np.nanmedian(other)) / 2)


def halves(stretches: Stretches) -> tuple[np.ndarray, np.ndarray]:
    """Return the own score (k,) of every other stretch, and the best other person's or NaN.

    Only persons with at least two stretches are scored; voices are made from the rest.
    """
    persons = np.searchsorted(stretches.names, stretches.persons)
    rank = np.array([(persons[:row] == persons[row]).sum() for row in range(len(persons))], int)
    scored = rank % 2 == 1
    if not scored.any():
        return np.zeros(0), np.zeros(0)
    scorer = fit_scorer(stretches.of(~scored))
    scores = scorer.scores(stretches.of(scored).means)
    rows, truth = np.arange(len(scores)), persons[scored]
    others = scores.copy()
    others[rows, truth] = -np.inf
    best = others.max(axis=1)
    return scores[rows, truth], np.where(np.isinf(best), np.nan, best)


def _features(scores: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return the inputs (n, P, 4) of the four coefficients; NaN where a score is."""
    margin = scores - best_other(scores)
    length = np.broadcast_to(np.log(seconds / UNIT)[:, None], scores.shape)
    return np.stack([scores, margin, length, np.ones_like(scores)], axis=2)


def best_other(scores: np.ndarray) -> np.ndarray:
    """Return (n, P) the best score of another person; the score itself if there is none."""
    filled = np.where(np.isnan(scores), -np.inf, scores)
    if scores.shape[1] < 2:
        return scores
    order = np.sort(filled, axis=1)
    best, next_best = order[:, -1:], order[:, -2:-1]
    other = np.where(filled == best, next_best, best)
    return np.where(np.isinf(other), scores, other)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    from scipy.special import logsumexp

    logits = np.where(np.isnan(logits), -np.inf, logits)
    logits = np.concatenate([logits, np.zeros((len(logits), 1))], axis=1)
    return np.asarray(logits - logsumexp(logits, axis=1, keepdims=True))


def fit_calibrator(trials: Trials) -> Calibrator:
    """Return the coefficients of greatest penalised likelihood; needs trials of both kinds."""
    from scipy.optimize import minimize

    features = _features(trials.scores, trials.seconds)
    truth, rows = trials.truth, np.arange(len(trials.truth))
    is_known, weights = truth >= 0, _balanced(trials)
    own = np.where(is_known[:, None], features[rows, truth], 0.0)
    filled = np.nan_to_num(features)
    size = PENALTY / features.shape[2]

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        logs = _log_softmax(features @ numbers)
        gain = filled * np.exp(logs[:, :-1, None])
        slope = weights @ (gain.sum(axis=1) - own)
        value = -weights @ logs[rows, truth]  # -1 is the last column, `unknown`
        return value + size * numbers @ numbers / 2, slope + size * numbers

    free = (None, None)
    result = minimize(
        loss, np.array([1.0, 0.0, 0.0, 0.0]), jac=True, bounds=[(0, None), (0, None), free, free]
    )
    return Calibrator(*map(float, result.x))


def _balanced(trials: Trials) -> np.ndarray:
    """Return weights (n,) that sum to 1/2 over known persons and 1/2 over strangers."""
    is_known, weights = trials.truth >= 0, trials.weights.copy()
    for kind in (is_known, ~is_known):
        weights[kind] *= 0.5 / weights[kind].sum()
    return weights


def folds_of(stretches: Stretches) -> np.ndarray:
    """Return which stretches are left out together (n,) int: sessions, or clips by their rank.

    A session of several persons is left out as a whole. Of sessions with one person each, the first
    of every person are left out together, then the second, and so on.
    """
    pairs = sorted({*zip(map(str, stretches.sessions), map(str, stretches.persons), strict=True)})
    people: dict[str, list[str]] = {}
    for session, person in pairs:
        people.setdefault(session, []).append(person)
    fold: dict[str, int] = {}
    count: dict[str, int] = {}
    shared = 0
    for session, persons in people.items():
        if len(persons) > 1:
            fold[session], shared = shared % MOST_FOLDS, shared + 1
        else:
            rank = count.get(persons[0], 0)
            fold[session], count[persons[0]] = rank % MOST_FOLDS, rank + 1
    return np.array([fold[str(session)] for session in stretches.sessions], dtype=int)


def make_trials(stretches: Stretches) -> Trials | None:
    """Leave sessions and persons out in turn; None if there is too little enrolled speech.

    This needs `FEW` persons besides those left out, and at least `FEWEST_TRIALS` cases of a person
    in a left-out session who is also in other sessions.
    """
    folds, names = folds_of(stretches), stretches.names
    persons = np.searchsorted(names, stretches.persons)
    groups = np.arange(len(names)) % min(MOST_GROUPS, len(names))
    parts: list[tuple[np.ndarray, ...]] = []
    for fold in np.unique(folds):
        away = folds == fold
        for group in (-1, *np.unique(groups)):
            strange = groups[persons] == group
            learnt = ~away & ~strange
            scored = away & strange if group >= 0 else away & np.isin(persons, persons[learnt])
            if len(np.unique(persons[learnt])) >= FEW and scored.any():
                parts += _score_left_out(stretches, persons, learnt, scored, folds, group < 0)
    if not parts:
        return None
    scores, seconds, truth, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    if len(_pairs(persons, folds, truth)) < FEWEST_TRIALS or not (truth < 0).any():
        return None
    return Trials(names, scores, seconds, truth, weights)


def _pairs(persons: np.ndarray, folds: np.ndarray, truth: np.ndarray) -> set[tuple[int, int]]:
    """Return the (person, fold) pairs of persons who are known in some trial."""
    known_persons = set(truth[truth >= 0].tolist())
    return {
        (p, f) for p, f in zip(persons.tolist(), folds.tolist(), strict=True) if p in known_persons
    }


def _score_left_out(
    stretches: Stretches,
    persons: np.ndarray,
    learnt: np.ndarray,
    scored: np.ndarray,
    folds: np.ndarray,
    are_known: bool,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield scores (k, P), seconds, truth and weights of the trials of each person and session."""
    scorer = fit_scorer(stretches.of(learnt))
    columns = np.unique(persons[learnt])
    width = int(persons.max()) + 1
    alone = _of_one_person(stretches)
    sessions = np.where(alone, folds.astype(str), stretches.sessions)
    for person in np.unique(persons[scored]):
        mine = scored & (persons == person)
        for session in np.unique(sessions[mine]):
            rows = np.flatnonzero(mine & (sessions == session))
            drawn = [*_draws(rows)]
            seconds = np.array([stretches.seconds[k].sum() for k in drawn])
            sums = np.stack([stretches.sums[k].sum(axis=0, dtype=np.float64) for k in drawn])
            scores = np.full((len(drawn), width), np.nan)
            scores[:, columns] = scorer.scores(sums / seconds[:, None])
            truth = np.full(len(drawn), person if are_known else -1)
            yield scores, seconds, truth, np.full(len(drawn), 1 / len(drawn))


def _of_one_person(stretches: Stretches) -> np.ndarray:
    """Return which stretches (n,) bool are in sessions of one person."""
    pairs = {*zip(map(str, stretches.sessions), map(str, stretches.persons), strict=True)}
    sessions = [session for session, _ in pairs]
    return np.array([sessions.count(str(session)) == 1 for session in stretches.sessions])


def _draws(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield runs of neighbouring stretches, about as long as each length, evenly spread."""
    for length in LENGTHS:
        count = len(rows) if np.isinf(length) else max(1, round(length / STRETCH))
        if count > len(rows) or (count == len(rows) and not np.isinf(length)):
            continue
        last = len(rows) - count
        for first in np.unique(np.linspace(0, last, min(DRAWS, last + 1)).astype(int)):
            yield rows[first : first + count]
