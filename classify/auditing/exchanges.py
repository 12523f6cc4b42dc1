"""Find two speakers of a session whose labels are exchanged, for a while or throughout.

Within a session, an exchange for a while can be detected, since the rest of the session tells the
two apart: it is the run of turns of both in which the other's label is more probable by the largest
sum. If it is as long as the rest, both readings are equally good, folds learn a mixture, and
nothing is found. Labels that are exchanged throughout are consistent within the session; only other
sessions, whose labels are known to be the same persons, can show it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from ..classifiers.linear import unit
from .held_out import Judged

if TYPE_CHECKING:
    import pandas as pd

LIMIT = 5.0  # limit of one turn's evidence, natural logarithm of a ratio of probabilities
FEWEST = 3  # turns of each of the two that fit the other
AGREED = 0.8  # share of each speaker's turns in the run
DRAWS, SURE = 200, 0.95  # draws of turns, and the share of them that must show the exchange


def exchanged_stretches(judged: Judged, start: np.ndarray) -> np.ndarray:
    """Return each turn's label after the exchange it lies in, (n,) int; -1 outside exchanges.

    Parameters
    ----------
    start : (n,) float
        Seconds, on one clock.
    """
    other = np.full(len(judged.rows), -1)
    for a, b in combinations(range(len(judged.labels)), 2):
        turns = np.flatnonzero(np.isin(judged.codes, (a, b)))
        turns = turns[np.argsort(start[turns], kind="stable")]
        is_a = judged.codes[turns] == a
        gain = _gain(judged.chances[turns][:, [a, b]], is_a)
        first, stop = best_run(gain)
        for own in (is_a[first:stop], ~is_a[first:stop]):
            fits = gain[first:stop][own] > 0
            if fits.sum() < FEWEST or fits.mean() < AGREED:
                break
        else:
            run = turns[first:stop]
            other[run] = np.where(is_a[first:stop], b, a)
    return other


def _gain(chances: np.ndarray, is_a: np.ndarray) -> np.ndarray:
    """Return by how much the other label is more probable (n,), from probabilities (n, 2)."""
    ratio = np.log(np.maximum(chances, np.finfo(float).tiny))
    return np.clip(np.where(is_a, 1, -1) * (ratio[:, 1] - ratio[:, 0]), -LIMIT, LIMIT)


def best_run(gain: np.ndarray) -> tuple[int, int]:
    """Return the start and stop of the run with the greatest sum; (0, 0) if none is above 0.

    >>> best_run(np.array([-1.0, 2.0, -1.0, 3.0, -4.0]))
    (1, 4)
    """
    total = np.concatenate([[0.0], np.cumsum(gain)])
    lowest = np.minimum.accumulate(total)
    stop = int(np.argmax(total - lowest))
    return int(np.argmin(total[: stop + 1])), stop


def exchanged_sessions(
    table: pd.DataFrame, X: np.ndarray, person_of: Mapping[str, str], *, seed: int = 0
) -> dict[tuple[str, str], tuple[str, bool]]:
    """Return {(session, label): (the label it is exchanged with, whether surely in this one)}.

    Each label's mean vector, after centring and scaling per session, is compared with each person's
    mean over the other sessions. Two labels are exchanged if each is nearer to the other's person
    than to its own, also when turns are resampled. If two sessions disagree, each may appear
    exchanged relative to the other, and it is unclear which one is: the second value is true only
    if two other sessions with both persons agree.

    Parameters
    ----------
    table : n rows
    X : (n, d) float
    person_of : {label: person}
    """
    rng = np.random.default_rng(seed)
    sessions = table["session"].to_numpy(str)
    labels = table["speaker"].to_numpy(str)
    persons = np.array([person_of[label] for label in labels])
    centred = np.zeros(X.shape, np.float64)
    for session in np.unique(sessions):
        rows = np.flatnonzero(sessions == session)
        centred[rows] = _centred(X[rows], labels[rows])
    pairs = list[tuple[str, str, str]]()
    for session in np.unique(sessions):
        here = sessions == session
        pairs += [(str(session), *pair) for pair in _pairs(centred, labels, persons, here, rng)]
    disagree = Counter(frozenset((person_of[a], person_of[b])) for _, a, b in pairs)
    present = [{*persons[sessions == session].tolist()} for session in np.unique(sessions)]
    exchanged: dict[tuple[str, str], tuple[str, bool]] = {}
    for session, a, b in pairs:
        both = frozenset((person_of[a], person_of[b]))
        certain = disagree[both] == 1 and sum(both <= others for others in present) > 2
        exchanged[session, a], exchanged[session, b] = (b, certain), (a, certain)
    return exchanged


def _centred(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Remove the mean of the speakers' means, and scale by the deviation of the turns."""
    means = np.array([rows[labels == label].mean(axis=0) for label in np.unique(labels)])
    spread = rows.std(axis=0, dtype=np.float64)
    return (rows - means.mean(axis=0)) / np.where(spread > 0, spread, 1)


def _pairs(
    X: np.ndarray,
    labels: np.ndarray,
    persons: np.ndarray,
    here: np.ndarray,
    rng: np.random.Generator,
) -> Iterator[tuple[str, str]]:
    """Yield the pairs of labels of a session (`here`, (n,) bool) that are exchanged."""
    person = {str(k): str(v) for k, v in zip(labels[here], persons[here], strict=True)}
    elsewhere = {*persons[~here]}
    shared = sorted(label for label, name in person.items() if name in elsewhere)
    voice = {k: X[~here & (persons == person[k])].mean(axis=0) for k in shared}
    turns = {k: X[here & (labels == k)] for k in shared}
    for a, b in combinations(shared, 2):
        if person[a] == person[b] or min(len(turns[a]), len(turns[b])) < FEWEST:
            continue
        voices = unit(np.stack([voice[a], voice[b]]))
        seen = [_is_exchanged(turns[a], turns[b], voices)]
        if seen[0]:
            for _ in range(DRAWS):
                of_a, of_b = (t[rng.integers(len(t), size=len(t))] for t in (turns[a], turns[b]))
                seen.append(_is_exchanged(of_a, of_b, voices))
            if np.mean(seen) >= SURE:
                yield a, b


def _is_exchanged(of_a: np.ndarray, of_b: np.ndarray, voices: np.ndarray) -> bool:
    means = unit(np.stack([of_a.mean(axis=0), of_b.mean(axis=0)]))
    near = means @ voices.T
    return bool(near[0, 1] > near[0, 0] and near[1, 0] > near[1, 1])
