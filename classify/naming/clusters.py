"""A diarization's clusters: their speech, the part without overlap, and simultaneous speech.

A cluster is one label of one session. Its evidence is the spans of at least `LEAST` s in which
nobody else speaks; those longer than `LONGEST` s are divided evenly, so that a wrong turn is not
hidden in a long one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from ...manifests.formats.turns import Turn

LEAST, LONGEST = 0.8, 10.0  # s of a segment of evidence
ROUNDING = 1e-6  # s
Spans = list[tuple[float, float]]  # (start, end), sorted and disjoint


def turns_table(turns: Iterable[Turn], where: str | Path) -> pd.DataFrame:
    """Return turns as rows `session`, `cluster`, `start`, `end`, `channel`, `text`, by time.

    `where` is the file they were read from.
    """
    import pandas as pd

    rows = [(turn.session, turn.speaker, *turn[2:4], turn.channel, turn.text) for turn in turns]
    if not rows:
        raise InputError(
            f"{where}: holds 0 turns with a speaker, expected at least 1; diarize the recording "
            "first (whisperx --diarize), or name another file"
        )
    table = pd.DataFrame(rows, columns=["session", "cluster", "start", "end", "channel", "text"])
    order = ["session", "start", "end", "cluster"]
    return table.sort_values(order, kind="stable", ignore_index=True)


def merge(spans: Iterable[tuple[float, float]]) -> Spans:
    """Return spans in order, with touching ones joined.

    >>> merge([(3, 4), (0, 2), (1, 3)])
    [(0, 4)]
    """
    merged: Spans = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged


def subtract(spans: Spans, others: Spans) -> Spans:
    """Return the parts of merged spans that lie outside merged others.

    >>> subtract([(0, 10)], [(2, 3), (9, 12)])
    [(0, 2), (3, 9)]
    """
    left: Spans = []
    place = 0
    for first, last in spans:
        start = first
        while place < len(others) and others[place][1] <= start:
            place += 1
        for other_start, other_end in others[place:]:
            if other_start >= last:
                break
            if other_start > start:
                left.append((start, other_start))
            start = max(start, other_end)
        if start < last:
            left.append((start, last))
    return left


def seconds_of(spans: Spans) -> float:
    """Return the length of merged spans (s)."""
    return math.fsum(end - start for start, end in spans)


def speech_of(turns: pd.DataFrame) -> dict[str, Spans]:
    """Return {cluster: its speech} for one session's turns, clusters in order of name."""
    return {
        str(cluster): merge(zip(rows["start"].tolist(), rows["end"].tolist(), strict=True))
        for cluster, rows in turns.groupby("cluster", sort=True)
    }


def together(speech: dict[str, Spans]) -> dict[tuple[str, str], float]:
    """Return for each pair of clusters how long (s) both speak at once."""
    names = list(speech)
    return {
        (a, b): seconds_of(speech[a]) - seconds_of(subtract(speech[a], speech[b]))
        for place, a in enumerate(names)
        for b in names[place + 1 :]
    }


def evidence(turns: pd.DataFrame) -> pd.DataFrame:
    """Return the segments of evidence: `session`, `cluster`, `start`, `end`, `channel`.

    All are read from one channel: the one that most of the cluster's turns name.
    """
    import pandas as pd

    rows: list[tuple[str, str, float, float, str]] = []
    for session, part in turns.groupby("session", sort=True):
        speech = speech_of(part)
        channels = part.groupby("cluster")["channel"].agg(lambda names: names.mode().iloc[0])
        for cluster, spans in speech.items():
            others = merge(
                span for name, some in speech.items() if name != cluster for span in some
            )
            for start, end in _pieces(subtract(spans, others)):
                rows.append((str(session), cluster, start, end, str(channels[cluster])))
    return pd.DataFrame(rows, columns=["session", "cluster", "start", "end", "channel"])


def _pieces(spans: Sequence[tuple[float, float]]) -> Spans:
    pieces: Spans = []
    for start, end in spans:
        if end - start < LEAST - ROUNDING:
            continue
        count = math.ceil((end - start) / LONGEST - ROUNDING)
        edges = [start + (end - start) * k / count for k in range(count)] + [end]
        pieces += pairwise(edges)
    return pieces
