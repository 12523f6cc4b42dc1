"""Select segments by session, duration, overlap and number per speaker, and describe a table.

Rules apply in this order: sessions, min_seconds, max_seconds, max_overlap, min_segments (so that
segments per speaker are counted after all other rules). A segment's overlap is computed from *all*
turns of the table before anything is dropped; an existing column `overlap` is kept, since it was
computed from more turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...common.counts import counted
from ...common.errors import InputError
from ...common.names import normal_name
from .overlap import RECORDING, group_codes, has_common_clock, overlap_timeline
from .roll_call import roll_call_mask

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
RESOLUTION = 6  # decimals; anything finer is rounding error, not annotation


def segment_durations(table: pd.DataFrame) -> np.ndarray:
    """Return the durations (n,) in s, rounded so that 1.4999999999 counts as 1.5."""
    return np.round(table["end"].to_numpy() - table["start"].to_numpy(), RESOLUTION)


def overlap_share(table: pd.DataFrame) -> np.ndarray:
    """Return the share (n,), 0..1, of each segment during which somebody else speaks too.

    Computed from all turns of the table; several others speaking at once count once.

    Raises
    ------
    InputError
        A session has several audio files, so its times are not comparable.
    """
    if not len(table):
        return np.zeros(0)
    length = table["end"].to_numpy() - table["start"].to_numpy()
    # The segment's own speaker speaks throughout, so two speakers mean one other.
    return np.clip(np.round(overlap_timeline(table).within(2) / length, RESOLUTION), 0, 1)


def select_segments(  # noqa: PLR0913  (the options of the command)
    table: pd.DataFrame,
    *,
    sessions: Sequence[str] | None = None,
    min_seconds: float = 0.0,
    max_seconds: float | None = None,
    max_overlap: float | None = None,
    min_segments: int = 1,
    keep_roll_call: bool = False,
    dropped: dict[str, list[str]] | None = None,
) -> pd.DataFrame:
    """Return the segments that pass every rule, in order.

    Parameters
    ----------
    table
        Segment table.
    sessions
        Names of the sessions to keep; None or empty: all.
    min_seconds
        Shortest duration in s that is kept.
    max_seconds
        Longest duration in s that is kept; None: no limit.
    max_overlap
        Greatest share, 0..1, in which somebody else speaks too; None: no limit.
    min_segments
        Speakers with fewer segments in a session, after all other rules, are dropped there.
    keep_roll_call
        The opening roll call is kept whatever its duration and overlap (enrolment).
    dropped
        Is filled with the ids of the segments that each rule dropped, in the order of the rules.

    Returns
    -------
    DataFrame
        Rows of the table with its column `overlap`.

    Raises
    ------
    InputError
        A limit is out of range, a session is unknown, or no segment is left.

    Examples
    --------
    >>> table = pd.DataFrame({"segment_id": ["a", "b"], "audio": "a.wav", "start": [0.0, 3.0]})
    >>> table = table.assign(end=[2.0, 4.0], speaker="A", session="S")
    >>> dropped = {}
    >>> list(select_segments(table, min_seconds=1.5, dropped=dropped)["segment_id"]), dropped
    (['a'], {'min_seconds 1.5': ['b']})
    """
    sessions = [normal_name(name) for name in sessions or ()]
    _check_sessions(table, sessions)
    _check_limits(min_seconds, max_seconds, max_overlap, min_segments)
    table = _with_overlap(table, needed=max_overlap is not None)
    spared = roll_call_mask(table) if keep_roll_call else np.zeros(len(table), dtype=bool)
    duration = segment_durations(table)
    rules: list[tuple[str, np.ndarray]] = []
    if sessions:
        rules.append(("sessions", table["session"].isin(sessions).to_numpy()))
    if min_seconds > 0:
        rules.append((f"min_seconds {min_seconds:g}", (duration >= min_seconds) | spared))
    if max_seconds is not None:
        rules.append((f"max_seconds {max_seconds:g}", (duration <= max_seconds) | spared))
    if max_overlap is not None:
        rules.append(
            (f"max_overlap {max_overlap:g}", (table["overlap"] <= max_overlap).to_numpy() | spared)
        )
    chosen, by_rule = _apply(table, rules, min_segments)
    if dropped is not None:
        dropped.update(by_rule)
    return chosen


def _apply(
    table: pd.DataFrame, rules: list[tuple[str, np.ndarray]], min_segments: int
) -> tuple[pd.DataFrame, list[tuple[str, list[str]]]]:
    left = np.ones(len(table), dtype=bool)
    if min_segments > 1:
        fine = np.logical_and.reduce([left, *(passed for _, passed in rules)])
        speaker = group_codes(table, ("session", "speaker"))
        count = np.bincount(speaker, weights=fine)[speaker] if len(table) else speaker
        rules = [*rules, (f"min_segments {min_segments}", count >= min_segments)]
    dropped = []
    for rule, passed in rules:
        dropped.append((rule, table["segment_id"][left & ~passed].tolist()))
        left &= passed
    if not left.any():
        effects = ", ".join(f"{rule} drops {len(ids)}" for rule, ids in dropped) or "it is empty"
        raise InputError(
            f"table: {counted(0, 'segment', 'is', of=len(table))} left ({effects}); loosen the "
            "rules"
        )
    return table[left].reset_index(drop=True), dropped


def _with_overlap(table: pd.DataFrame, *, needed: bool) -> pd.DataFrame:
    table = table.reset_index(drop=True)
    if "overlap" not in table and (needed or has_common_clock(table)):
        table["overlap"] = overlap_share(table)
    return table


def _check_sessions(table: pd.DataFrame, sessions: Sequence[str]) -> None:
    unknown = sorted(set(sessions) - set(table["session"]))
    if unknown:
        raise InputError(
            f"sessions: {len(unknown)} are not in the table, first {unknown[0]!r}, "
            f"expected some of its {table['session'].nunique()}; correct the names"
        )


def _check_limits(
    min_seconds: float, max_seconds: float | None, max_overlap: float | None, min_segments: int
) -> None:
    if not min_seconds >= 0:
        raise InputError(f"min_seconds: is {min_seconds:g} s, expected >= 0; correct it")
    if max_seconds is not None and not max_seconds >= max(min_seconds, 1e-6):
        raise InputError(
            f"max_seconds: is {max_seconds:g} s, expected > 0 and >= {min_seconds:g}; correct it"
        )
    if max_overlap is not None and not 0 <= max_overlap <= 1:
        raise InputError(f"max_overlap: is {max_overlap:g}, expected 0..1; correct it")
    if min_segments < 1:
        raise InputError(f"min_segments: is {min_segments}, expected >= 1; correct it")


def describe(table: pd.DataFrame) -> pd.DataFrame:
    """Count speakers, segments, minutes and overlap, per session and (last row) overall.

    Returns
    -------
    DataFrame
        `session` (the last is "all"), `speakers`, `segments`, `minutes` (of segments), `overlap`
        (share of speech time during which several people speak, from the turns of this table; NaN
        if its times are not comparable), `overlapped` (share of segments in which somebody else
        speaks too), and quantiles of the duration in s, `q05` ... `q95`, `longest`.
    """
    table = _with_overlap(table, needed=False)
    parts = [(str(name), part) for name, part in table.groupby("session", sort=True)]
    rows = [_described(name, part) for name, part in [*parts, ("all", table)]]
    return pd.DataFrame(rows)


def _described(name: str, table: pd.DataFrame) -> dict[str, object]:
    duration = segment_durations(table)
    row: dict[str, object] = {
        "session": name,
        "speakers": table["speaker"].nunique(),
        "segments": len(table),
        "minutes": float(duration.sum() / 60),
        "overlap": _overlap_of_speech(table),
        "overlapped": float((table["overlap"] > 0).mean()) if "overlap" in table else np.nan,
    }
    values = np.quantile(duration, QUANTILES) if len(table) else [np.nan] * len(QUANTILES)
    row |= {f"q{round(100 * q):02d}": float(v) for q, v in zip(QUANTILES, values, strict=True)}
    return row | {"longest": float(duration.max(initial=0.0))}


def _overlap_of_speech(table: pd.DataFrame) -> float:
    if not len(table) or not has_common_clock(table):
        return float("nan")
    swept = overlap_timeline(table)
    recordings = int(group_codes(table, RECORDING).max()) + 1
    return float(swept.total(2, recordings).sum() / swept.total(1, recordings).sum())
