"""The numbers of an evaluation, from plain arrays, and their bootstrap intervals.

Intervals are percentile intervals (95 %) of a two-layer bootstrap: meetings are drawn with
replacement, then segments within each drawn meeting. Where there is one meeting, or one task over
all labels, speakers are drawn instead, then their segments (`interval_groups`); such an interval
says nothing about other meetings. Resampled segments repeat, which raises the expected calibration
error: its interval may lie above its value.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

LEVEL = 0.95
RESAMPLES = 1000
ECE_BINS = 15  # Guo et al. (2017)
PRIOR = 0.01  # of a target trial in minDCF; both costs are 1, as in NIST SRE
LOWEST = 1e-15  # a probability of 0 costs -log(1e-15) = 34.5, not infinity


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean recall of the classes that occur in `truth` (n,) int >= 0."""
    support = np.bincount(truth)
    hits = np.bincount(truth[truth == predicted], minlength=len(support))
    return float(np.mean(hits[support > 0] / support[support > 0]))


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean F1 of the classes that occur in `truth` or `predicted`, (n,) int.

    A `predicted` of -1 is not a class.
    """
    classes = int(max(truth.max(), predicted.max())) + 1
    named = predicted[predicted >= 0]
    total = np.bincount(truth, minlength=classes) + np.bincount(named, minlength=classes)
    hits = np.bincount(truth[truth == predicted], minlength=classes)
    return float(np.mean(2 * hits[total > 0] / total[total > 0]))


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Return the expected calibration error, 15 equal bins (a, b] of confidence 0..1.

    The mean over segments of |share correct - mean confidence| in the segment's bin.
    """
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def log_loss(truth_probability: np.ndarray) -> float:
    """Return the mean negative natural log of the true label's probability (n,)."""
    return float(-np.mean(np.log(np.maximum(truth_probability, LOWEST))))


class VerificationTrials:
    """Verification trials: each segment against each candidate, ordered once for many resamples.

    Parameters
    ----------
    probabilities : (n, classes) float64
        NaN if the segment does not have that candidate.
    truth : (n,) int
        Column of the true label; -1 if it is not among the candidates.
    """

    def __init__(self, probabilities: np.ndarray, truth: np.ndarray) -> None:
        rows, columns = np.nonzero(~np.isnan(probabilities))
        scores = probabilities[rows, columns]
        order = np.argsort(-scores, kind="stable")
        self._rows = rows[order]
        self._targets = (columns == truth[rows])[order]
        self._last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)

    def rates(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return misses and false accepts (0..1) per threshold, from accept-none to accept-all.

        `weights` (n,) says how often each segment counts. Equal scores share a threshold.
        """
        weight = weights[self._rows].astype(np.float64)
        accepted = np.cumsum(np.where(self._targets, weight, 0))
        false = np.cumsum(np.where(self._targets, 0, weight))
        if not accepted[-1] or not false[-1]:
            return np.full(1, np.nan), np.full(1, np.nan)
        misses = 1 - np.append(0, accepted[self._last]) / accepted[-1]
        return misses, np.append(0, false[self._last]) / false[-1]


def equal_error_rate(misses: np.ndarray, false: np.ndarray) -> float:
    """Return the rate 0..1 at which misses equal false accepts, linear between thresholds."""
    if np.isnan(misses[0]):
        return float("nan")
    gap = false - misses
    after = int(np.argmax(gap >= 0))  # gap rises from -1 to 1, so `after` is at least 1
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(false[after - 1] + share * (false[after] - false[after - 1]))


def min_dcf(misses: np.ndarray, false: np.ndarray, prior: float = PRIOR) -> float:
    """Return the least detection cost over thresholds, 1 for the better trivial system."""
    costs = prior * misses + (1 - prior) * false
    return float(costs.min() / min(prior, 1 - prior))


def session_mean(values: np.ndarray, groups: np.ndarray) -> float:
    """Return the mean over groups (n,) int >= 0 of the mean value (n,) within the group."""
    counts = np.bincount(groups)
    sums = np.bincount(groups, weights=values)
    return float(np.mean(sums[counts > 0] / counts[counts > 0]))


def interval_groups(
    sessions: np.ndarray, speakers: np.ndarray, *, one_task: bool = False
) -> tuple[np.ndarray, str]:
    """Return what an interval draws before segments, (n,) int per segment, and its name.

    These are meetings; speakers, with a single meeting or `one_task` over all labels; or
    ``segments``, with only one of these too.

    >>> interval_groups(np.array(["m", "m"]), np.array(["b", "a"]))[1]
    'speakers'
    """
    by_speaker = one_task or len(np.unique(sessions)) == 1
    groups = np.unique(speakers if by_speaker else sessions, return_inverse=True)[1]
    single = len(groups) == 0 or groups.max() == 0
    return groups, "segments" if single else "speakers" if by_speaker else "meetings"


def resample(
    sessions: np.ndarray, count: int = RESAMPLES, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows (m,), group (m,)): segments drawn within drawn meetings (or speakers).

    `sessions` (n,) int names each segment's meeting; a meeting drawn twice is two groups.
    """
    members = [np.flatnonzero(sessions == code) for code in np.unique(sessions)]
    rng = np.random.default_rng(seed)
    for _ in range(count):
        drawn = [members[k] for k in rng.integers(len(members), size=len(members))]
        rows = [part[rng.integers(len(part), size=len(part))] for part in drawn]
        yield (
            np.concatenate(rows),
            np.repeat(np.arange(len(rows)), [len(part) for part in rows]),
        )


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """Return the interval (low, high) of resampled values; NaN if all are NaN."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def mean_interval(
    values: np.ndarray, sessions: np.ndarray, count: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the bootstrap interval of the mean of values -1, 0 or 1.

    For accuracy (0 or 1) and for the paired difference of two accuracies (-1, 0, 1). Drawing n
    segments of three kinds with replacement is a single multinomial draw, so no loop is needed.

    Parameters
    ----------
    values : (n,) int or bool
    sessions : (n,) int
        Each segment's meeting, or what else `interval_groups` draws.
    """
    _, meeting = np.unique(sessions, return_inverse=True)
    sizes = np.bincount(meeting)
    kinds = [np.bincount(meeting, weights=np.asarray(values) == kind) for kind in (-1, 1)]
    shares = np.stack([*kinds, sizes - kinds[0] - kinds[1]], axis=1) / sizes[:, None]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(sizes), size=(count, len(sizes)))
    counts = rng.multinomial(sizes[drawn], shares[drawn]).sum(axis=1)
    return percentiles((counts[:, 1] - counts[:, 0]) / counts.sum(axis=1))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the share `hits` / `count` (>= 1), within one session.

    Unlike a bootstrap interval, it has a width even if all or none are right. It assumes
    independent segments and says nothing about other sessions. Source: Wilson (1927), via SciPy.

    >>> [round(end, 3) for end in wilson(55, 61)]
    [0.802, 0.954]
    """
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
