"""Represent each label by one vector per speaker and session, with the room removed.

A label's vector is the mean over its speech, scaled and whitened by the differences between its own
stretches of about five seconds (`naming.scoring`). What the labels of a session have in common is
its room, its microphone, and the chance of who was there. Labels of one session are different
people, so their spread shows how far the mean of n labels varies by chance; any further spread of
session means is due to the room. That share of the session's mean is removed, which is the best
linear prediction of the room if sessions draw their people independently. If the same people meet
again, the session means agree, and less than the room is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...extract.store.reader import FeatureStore
from ...manifests.formats.aishell4 import local_speaker, parse_session
from ...manifests.table import as_table
from ..features import Log, rows_with_features
from ..naming.enrolment import usable_speech
from ..naming.scoring import fit_whitening, person_means
from ..naming.stretches import Stretches, make_stretches

if TYPE_CHECKING:
    import pandas as pd

Label = tuple[str, str]  # session, and the speaker's id there


@dataclass(frozen=True, eq=False)
class Labels:
    """The n labels with usable speech.

    Attributes
    ----------
    sessions, speakers : (n,) str
        Speakers as annotated, valid within their session.
    series : (n,) str
        Date and room of AISHELL-4's sessions; empty if the name does not give them.
    seconds : (n,) float64
        Of speech used.
    vectors : (n, dim) float64
        Scaled and whitened, with the room removed.
    halves : (n, 2, dim) float64
        The same for the first and the second half of the speech; NaN if there are not two.
    rooms : (n,) float64
        Share of the session's mean that was removed.
    """

    sessions: np.ndarray
    speakers: np.ndarray
    series: np.ndarray
    seconds: np.ndarray
    vectors: np.ndarray
    halves: np.ndarray
    rooms: np.ndarray

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def pairs(self) -> list[Label]:
        """Return the session and speaker of each label."""
        return [*zip(map(str, self.sessions), map(str, self.speakers), strict=True)]

    def of(self, rows: np.ndarray) -> Labels:
        """Return some of the labels, selected by a mask (n,) bool or row numbers."""
        return Labels(*(getattr(self, field.name)[rows] for field in fields(self)))


class Speech(NamedTuple):
    """The segments used, and every label of the table with its seconds of them."""

    rows: pd.DataFrame
    seconds: Mapping[Label, float]


def usable_rows(table: pd.DataFrame | str | Path, store: FeatureStore, log: Log) -> Speech:
    """Return the segments that are usable to identify a voice; `log` receives lines on the others.

    Raises
    ------
    InputError
        The table has only one session, or the store lacks segments.
    """
    whole = as_table(table)
    pairs = zip(whole["session"], whole["speaker"], strict=True)
    whole = whole.assign(person=[local_speaker(*pair) for pair in pairs])
    sessions = whole["session"].nunique()
    if sessions < 2:
        raise InputError(
            f"table: holds {counted(sessions, 'session')}, expected at least 2 to link; "
            "make one table of a folder with the annotations of several"
        )
    rows, rejected = rows_with_features(whole, store)
    if len(rejected):
        log(f"left out: {counted(len(rejected), 'segment')} that extraction rejected")
    rows = usable_speech(rows, log)
    rows = rows.assign(seconds=rows["end"] - rows["start"])
    seconds = dict.fromkeys(sorted({*zip(whole["session"], whole["person"], strict=True)}), 0.0)
    return Speech(rows, seconds | rows.groupby(["session", "person"])["seconds"].sum().to_dict())


def read_labels(rows: pd.DataFrame, store: FeatureStore, layer: int) -> Labels:
    """Return the labels of segments (`usable_rows`), sorted by session and speaker."""
    X = store.read(rows["segment_id"], layer)
    sessions, speakers = (rows[name].to_numpy(str) for name in ("session", "person"))
    keys, codes = np.unique(np.stack([sessions, speakers], axis=1), axis=0, return_inverse=True)
    codes = codes.reshape(-1)
    width = len(str(len(keys)))
    numbers = np.array([f"{code:0{width}d}" for code in codes])  # sort like the labels
    stretches = make_stretches(X, rows["seconds"].to_numpy(float), numbers, sessions)
    whitening = fit_whitening(stretches)
    vectors = whitening.apply(person_means(stretches))
    rooms, shares = room_of(vectors, keys[:, 0])
    halves = whitening.apply(_halves(stretches).reshape(-1, X.shape[1]))
    return Labels(
        keys[:, 0],
        keys[:, 1],
        np.array([_series(session) for session in keys[:, 0]]),
        np.bincount(codes, weights=rows["seconds"]),
        vectors - rooms,
        halves.reshape(len(keys), 2, -1) - rooms[:, None],
        shares,
    )


def _series(session: str) -> str:
    try:
        return parse_session(session).series
    except InputError:
        return ""


def _halves(stretches: Stretches) -> np.ndarray:
    """Return the mean (n, 2, dim) of the first and of the second half of each label's stretches."""
    means = np.full((len(stretches.names), 2, stretches.sums.shape[1]), np.nan)
    for number, name in enumerate(stretches.names):
        rows = np.flatnonzero(stretches.persons == name)
        if len(rows) > 1:
            for half, part in enumerate(np.array_split(rows, 2)):
                means[number, half] = stretches.of(part).mean()
    return means


def room_of(vectors: np.ndarray, sessions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the room's part of each label's vector (n, dim), and the share of the session mean.

    The room's share of the variance of a session's mean is r / (r + p / n), where p is the variance
    between the n labels of a session and r the variance of session means beyond p / n (Henderson,
    1975: best linear prediction), both as means over features.
    """
    codes = np.unique(sessions, return_inverse=True)[1]
    counts = np.bincount(codes)
    means = np.stack([vectors[codes == code].mean(axis=0) for code in range(len(counts))])
    centre = means.mean(axis=0)
    people = np.square(vectors - means[codes]).sum(axis=0) / max(1, len(vectors) - len(counts))
    spread = np.square(means - centre).sum(axis=0) / max(1, len(counts) - 1)
    between = people.mean()
    room = max(0.0, spread.mean() - between * np.mean(1 / counts))
    share = room / (room + between / counts) if room > 0 else np.zeros(len(counts))
    return centre + (share[:, None] * (means - centre))[codes], share[codes]
