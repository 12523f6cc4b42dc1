"""Open-set identification error by time, and its parts.

At every moment, the people who speak are compared with those who are named. Persons who are not
enrolled are `unknown` on both sides. A speaker whose name is among the named is correct. As many of
the others as possible are paired as confusions (`wrong` name, `missed` known person called unknown,
`stranger` with a name); the rest are missed speech or false alarms. The error is the duration of
all five over the duration of speech in the reference, as in `pyannote.metrics.identification`
without a collar. Source: Bredin (2017), pyannote.metrics.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...manifests.formats.registry import read_turns
from ...manifests.formats.uem import read_uem
from ...manifests.formats.writing import underscored
from ..metrics import percentiles
from .clusters import Spans, merge, turns_table
from .output import read_named
from .voices import RESERVED, UNKNOWN

if TYPE_CHECKING:
    import pandas as pd

    from ...manifests.formats.turns import Annotation

PARTS = ("known_missed", "wrong_name", "stranger_named", "missed_speech", "false_alarm")
RESAMPLES = 1000
Row = dict[str, float]


def score(
    named: str | Path,
    reference: str | Path,
    *,
    uem: str | Path | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score a folder that `apply` wrote against a reference with names.

    Parameters
    ----------
    named
        The folder.
    reference
        RTTM, or another diarization, whose speakers have the names of the enrolled persons.
    uem
        File of ``session channel start end`` lines: the regions to score. Without it, each
        session is scored from 0 to its last turn.
    seed
        For the draws of the interval.

    Returns
    -------
    DataFrame
        A row for each session and one for ``all``: `session`, `error` (0 or more), `low`, `high`
        (95 % interval over sessions, for ``all`` with several sessions), `speech` (s in the
        reference), and the seconds of each of `PARTS`.

    Raises
    ------
    InputError
        A file cannot be read, the reference lacks a session, or nothing is scored.
    """
    turns, enrolled = read_named(named)
    truth = turns_table(_read_reference(reference).turns, reference)
    _check_sessions(turns, truth, reference)
    spans = {} if uem is None else {s: merge(parts) for s, parts in read_uem(uem).items()}
    enrolled_names = {underscored(name) for name in enrolled}
    rows: dict[str, Row] = {}
    for session in sorted({*truth["session"]} & {*turns["session"]}):
        said, heard = truth[truth["session"] == session], turns[turns["session"] == session]
        if uem is not None and session not in spans:
            raise InputError(
                f"{uem}: session {session!r} is missing, expected its spans; add a line"
            )
        rows[session] = error_seconds(
            labelled(said, enrolled_names), labelled(heard, enrolled_names), spans.get(session)
        )
    return error_table(rows, seed=seed)


def _read_reference(reference: str | Path) -> Annotation:
    """Read the reference; a folder with several formats is refused, as no option selects one."""
    try:
        return read_turns(reference)
    except InputError as problem:
        raise InputError(re.sub("say which, format=.*", "name the RTTM", str(problem))) from None


def _check_sessions(turns: pd.DataFrame, truth: pd.DataFrame, reference: str | Path) -> None:
    missing = sorted({*turns["session"]} - {*truth["session"]})
    if missing:
        raise InputError(
            f"{reference}: {counted(len(missing), 'named session', 'is')} missing, first "
            f"{missing[0]!r}, found {sorted({*truth['session']})[:5]}; name the reference of the "
            "same sessions"
        )


def labelled(turns: pd.DataFrame, enrolled_names: set[str]) -> list[tuple[str, str, float, float]]:
    """Return (speaker, label, start, end) of turns; speakers not enrolled have the label `unknown`.

    Turns of one speaker that touch or overlap are merged.
    """
    rows = []
    for cluster, part in turns.groupby("cluster", sort=True):
        name = underscored(str(cluster))
        label = name if name in enrolled_names and not RESERVED.fullmatch(name) else UNKNOWN
        for start, end in merge(zip(part["start"], part["end"], strict=True)):
            rows.append((name, label, float(start), float(end)))
    return rows


def error_seconds(
    truth: Sequence[tuple[str, str, float, float]],
    named: Sequence[tuple[str, str, float, float]],
    spans: Spans | None = None,
) -> Row:
    """Return seconds of each of `PARTS` and of `speech`.

    Parameters
    ----------
    truth, named
        (speaker, label, start, end) as returned by `labelled`.
    spans
        The regions to score (s), merged; None: everything.
    """
    events: list[tuple[float, int, str, int]] = []
    for side, rows in enumerate((truth, named)):
        for _, label, start, end in rows:
            events += [(start, side, label, 1), (end, side, label, -1)]
    edges = (
        [] if spans is None else [(edge, 2, "", sign) for s in spans for edge, sign in _edges(s)]
    )
    seconds = dict.fromkeys((*PARTS, "speech"), 0.0)
    speaking: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    scored, before = int(spans is None), 0.0
    for time, side, label, sign in sorted([*events, *edges]):
        if scored and time > before:
            for part, count in count_errors(*speaking).items():
                seconds[part] += count * (time - before)
        before = time
        if side == 2:
            scored += sign
        else:
            speaking[side][label] += sign
    return seconds


def _edges(span: tuple[float, float]) -> tuple[tuple[float, int], tuple[float, int]]:
    return (span[0], 1), (span[1], -1)


def count_errors(truth: Mapping[str, int], named: Mapping[str, int]) -> dict[str, int]:
    """Return how many speakers are wrong in each way, and how many speak (`speech`).

    >>> counts = count_errors({"Ann": 1, "unknown": 1}, {"Ann": 1, "Bo": 1})
    >>> counts["stranger_named"], counts["speech"]
    (1, 2)
    """
    left, over = Counter(truth), Counter(named)
    speech, names = left.total(), over.total()
    left, over = left - over, over - left
    persons_left, strangers = left.total() - left[UNKNOWN], left[UNKNOWN]
    persons_over, unknown_over = over.total() - over[UNKNOWN], over[UNKNOWN]
    wrong = min(persons_left, persons_over)
    return {
        "known_missed": min(persons_left - wrong, unknown_over),
        "wrong_name": wrong,
        "stranger_named": min(strangers, persons_over - wrong),
        "missed_speech": max(0, speech - names),
        "false_alarm": max(0, names - speech),
        "speech": speech,
    }


def error_table(rows: Mapping[str, Row], *, seed: int = 0) -> pd.DataFrame:
    """Return the table of `score` from each session's seconds."""
    import pandas as pd

    values = np.array([[row[name] for name in (*PARTS, "speech")] for row in rows.values()])
    if not len(values) or not values[:, -1].sum() > 0:
        raise InputError("reference: holds 0 s of speech where it is scored, expected some; check")
    low, high = _interval(values, seed)
    table = pd.DataFrame(values, columns=[*PARTS, "speech"])
    table.insert(0, "session", list(rows))
    total = {"session": "all", **table[[*PARTS, "speech"]].sum().to_dict()}
    table = pd.concat([table, pd.DataFrame([total])], ignore_index=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        table.insert(1, "error", table[list(PARTS)].sum(axis=1) / table["speech"])
    table.insert(2, "low", [np.nan] * len(rows) + [low])
    table.insert(3, "high", [np.nan] * len(rows) + [high])
    return table


def _interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the interval of the pooled error, with sessions drawn with replacement."""
    if len(values) < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    sums = values[draws].sum(axis=1)
    return percentiles(sums[:, :-1].sum(axis=1) / np.where(sums[:, -1] > 0, sums[:, -1], np.nan))


def error_lines(table: pd.DataFrame, log: Callable[[str], object]) -> None:
    """Log the result of `score`: the total, its parts, and each session."""
    whole = table.iloc[-1]
    interval = (
        "" if np.isnan(whole["low"]) else f" ({100 * whole['low']:.1f}-{100 * whole['high']:.1f})"
    )
    log(
        f"open-set identification error {100 * whole['error']:.1f} %{interval} of "
        f"{whole['speech']:.1f} s of speech"
    )
    for part in PARTS:
        share = 100 * whole[part] / whole["speech"]
        log(f"  {part.replace('_', ' ')}: {whole[part]:.1f} s, {share:.1f} %")
    for row in table.iloc[:-1].to_dict("records") if len(table) > 2 else []:
        log(f"  {row['session']}: {100 * row['error']:.1f} % of {row['speech']:.1f} s")
