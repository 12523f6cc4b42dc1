"""Stretches: enrolled speech as sums over about five seconds of one person in one session.

For each stretch, these are kept: the person, the session, the seconds, and the sum of the segments'
vectors, each multiplied by its seconds. Sums of stretches give those of a session, a person or
everybody, so each of these can be added, removed or left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from ...common.counts import counted

STRETCH = 5.0  # s of speech after which a stretch is complete


@dataclass(frozen=True, eq=False)
class Stretches:
    """Sums of the vectors of n stretches of speech.

    Attributes
    ----------
    persons, sessions : (n,) str
    seconds : (n,) float64
        Of speech, > 0.
    sums : (n, dim) float32
        Sum of each segment's vector times its seconds.
    """

    persons: np.ndarray
    sessions: np.ndarray
    seconds: np.ndarray
    sums: np.ndarray

    def __len__(self) -> int:
        return len(self.seconds)

    def __repr__(self) -> str:
        """Return the amount of speech and the number of people, in one line."""
        minutes = self.seconds.sum() / 60
        return f"<Stretches {len(self)} of {counted(len(self.names), 'person')}, {minutes:.1f} min>"

    @property
    def names(self) -> list[str]:
        """Return the persons, sorted."""
        return sorted({*map(str, self.persons)})

    @property
    def means(self) -> np.ndarray:
        """Return the mean vector (n, dim) float64 of each stretch."""
        return self.sums.astype(np.float64) / self.seconds[:, None]

    def of(self, rows: np.ndarray) -> Stretches:
        """Return some of the stretches, selected by a mask (n,) bool or row numbers."""
        return Stretches(*(getattr(self, field.name)[rows] for field in fields(self)))

    def plus(self, other: Stretches) -> Stretches:
        """Return these stretches followed by others."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Stretches(*(np.concatenate(pair) for pair in pairs))

    def mean(self) -> np.ndarray:
        """Return the mean (dim,) of all stretches, weighted by seconds."""
        return np.asarray(self.sums.sum(axis=0, dtype=np.float64) / self.seconds.sum())


def no_stretches(dim: int) -> Stretches:
    """Return an empty set of stretches."""
    names = np.zeros(0, dtype="U1")
    return Stretches(names, names, np.zeros(0), np.zeros((0, dim), np.float32))


def make_stretches(
    X: np.ndarray, seconds: np.ndarray, persons: np.ndarray, sessions: np.ndarray
) -> Stretches:
    """Sum segments to stretches; the remainder of a session joins its last stretch.

    Parameters
    ----------
    X : (n, dim) float
        Vectors of segments, in order of time within each session.
    seconds : (n,) float, > 0
    persons, sessions : (n,) str
    """
    groups = [*_groups(seconds, persons, sessions)]
    if not groups:
        return no_stretches(X.shape[1])
    sums = np.stack([seconds[rows] @ X[rows].astype(np.float64) for rows in groups])
    return Stretches(
        np.array([str(persons[rows[0]]) for rows in groups]),
        np.array([str(sessions[rows[0]]) for rows in groups]),
        np.array([seconds[rows].sum() for rows in groups]),
        sums.astype(np.float32),
    )


def _groups(seconds: np.ndarray, persons: np.ndarray, sessions: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the row numbers of each stretch."""
    pairs = sorted({*zip(map(str, sessions), map(str, persons), strict=True)})
    for session, person in pairs:
        rows = np.flatnonzero((sessions == session) & (persons == person))
        number = (np.cumsum(seconds[rows]) - seconds[rows]) // STRETCH
        starts = np.flatnonzero(np.diff(number, prepend=-1))
        parts = np.split(rows, starts[1:])
        if len(parts) > 1 and seconds[parts[-1]].sum() < STRETCH / 2:
            parts[-2:] = [np.concatenate(parts[-2:])]
        yield from parts
