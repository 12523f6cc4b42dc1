"""Run an audit: judge every turn out of fold, classify doubtful labels, propose names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.errors import InputError
from ...common.extras import check_extra
from ...common.log import log
from ...extract.store.reader import FeatureStore
from ...manifests.splits.overlap import has_common_clock
from ...manifests.splits.tasks import Task
from ...manifests.table import as_table
from ..evaluation.confounds import person_of_label
from ..features import Log, open_store, read_features
from ..selection.prepare import Prepared
from .exchanges import exchanged_sessions, exchanged_stretches
from .findings import COLUMNS, EXCHANGE, OUTLIER, SESSION, SWAP, TWO, Audit
from .halves import SURE, extract_halves, two_voices
from .held_out import NEVER_LEARNT, Judged, Learner, choose_learner, judge, prepare
from .label_issues import Issues, doubt, find_issues
from .options import AuditOptions
from .trial import Labels, Trial, try_planted, without
from .wording import facts

if TYPE_CHECKING:
    import pandas as pd


def audit(
    table: pd.DataFrame | str | Path,
    store: FeatureStore | str | Path,
    *,
    log: Log = log,
    **options: Any,
) -> pd.DataFrame:
    """Rank the turns of a table by how likely their label is wrong.

    Parameters
    ----------
    table
        Segment table, or its file; its split is ignored.
    store
        Pooled features of its segments, or their folder.
    log
        Receives lines on findings and on what was left out.
    options
        Fields of `AuditOptions`.

    Returns
    -------
    DataFrame
        A row per turn, the most doubtful first: the label (`labelled`), the `suggested` speaker
        with its calibrated `probability`, the `quality` of the label (0 to 1), `issue` if cleanlab
        suspects it, the `kind` (``swap``, ``exchange``, ``exchanged session``, ``outlier``, ``two
        voices``), whether a correction is `proposed`, and the `reason` if a turn was not judged.

    Raises
    ------
    InputError
        Cleanlab is not installed, segments have no features, or no session can be judged.

    Examples
    --------
    >>> turns = audit("table.csv", "features")  # doctest: +SKIP
    >>> turns[turns["proposed"]][["segment_id", "labelled", "suggested"]]  # doctest: +SKIP
    """
    done = run_audit(as_table(table), store, AuditOptions(**options), log=log)
    for line in facts(done):
        log(line)
    return done.turns


def run_audit(
    table: pd.DataFrame,
    store: FeatureStore | str | Path,
    options: AuditOptions,
    *,
    cache: Path | None = None,
    log: Log = lambda text: None,
) -> Audit:
    """Audit a segment table; parameters and errors are those of `audit`.

    If `options` name the recordings, halves of turns are extracted into the folder `cache`.
    """
    check_extra("audit", "audit")
    opened = open_store(store)
    ready, tasks, skipped = prepare(table, opened, options)
    learner = choose_learner(ready.table, opened, tasks, options)
    ids = ready.table["segment_id"].to_numpy(str)
    X = read_features(opened, ids, learner.layers, learner.pooling_part)
    data = _Data(ready.table, tasks, X, learner, options)
    judged, issues = _judge(data)
    trial = _trial(data, issues)
    person_of = person_of_label(ready.table, options.identity) or {}
    pairs = exchanged_sessions(ready.table, X, person_of, seed=options.seed) if person_of else {}
    voices = None
    if options.audio_root is not None:
        place = {"audio_root": options.audio_root, "log": log}
        halves = _halves(ready.table, opened, learner, cache, place)
        voices = two_voices(tasks, ready.table, X, halves, learner, seed=options.seed)
    frames = [_rows(*both, data, pairs, voices) for both in zip(judged, issues, strict=True)]
    turns = _ranked(_all_turns(ready, skipped, frames))
    return Audit(
        turns if trial.carries else turns.assign(proposed=False),
        ready.whole,
        options,
        learner,
        opened,
        trial,
        accuracy=_accuracy(judged),
        listened=voices is not None,
        related=_share_people(ready.table, person_of),
    )


@dataclass(frozen=True, eq=False)
class _Data:
    """Input of the judgement: the rows with features, folded tasks, X (n, d), a learner."""

    table: pd.DataFrame
    tasks: Sequence[Task]
    X: np.ndarray
    learner: Learner
    options: AuditOptions


def _share_people(table: pd.DataFrame, person_of: Mapping[str, str] | None) -> bool:
    """Return whether any person is known to be in two sessions."""
    if person_of is None:
        return False
    heard = {*zip(table["session"], table["speaker"].map(person_of), strict=True)}
    return len(heard) > len({person for _, person in heard})


def _halves(
    table: pd.DataFrame,
    store: FeatureStore,
    learner: Learner,
    cache: Path | None,
    place: Mapping[str, Any],
) -> FeatureStore:
    if cache is None:
        raise InputError(
            "audio-root: is given without a folder to keep the halves of turns in, expected one; "
            "run spk-classify audit, which keeps them in OUT, or leave audio_root out"
        )
    return extract_halves(table, store, learner, cache, **place)


def _accuracy(judged: Sequence[Judged]) -> float:
    """Return the share of turns whose most probable speaker is the label."""
    right = [session.codes == session.chances.argmax(axis=1) for session in judged]
    return float(np.concatenate(right).mean())


def _judge(data: _Data, labels: Labels | None = None) -> tuple[list[Judged], list[Issues]]:
    """Judge all sessions, with `labels` instead of the tasks' own if given."""
    seed, learner = data.options.seed, data.learner
    judged = judge(data.tasks, data.X, learner, seed=seed, labels=labels)
    nearest = replace(learner, classifier="centroid", penalty=None)
    near = judge(data.tasks, data.X, nearest, seed=seed, labels=labels)
    seconds = (data.table["end"] - data.table["start"]).to_numpy(np.float64)
    return judged, [
        find_issues(session, other.scores.max(axis=1), seconds[session.rows])
        for session, other in zip(judged, near, strict=True)
    ]


def _trial(data: _Data, issues: Sequence[Issues]) -> Trial:
    """Return how many errors are found that were planted in turns above suspicion."""
    pairs = zip(data.tasks, issues, strict=True)
    above = [without(task, issue.suspect | np.isnan(issue.quality)) for task, issue in pairs]
    tasks = [task for task in above if task.cuts]
    rest = replace(data, tasks=tasks)
    seconds = (data.table["end"] - data.table["start"]).to_numpy()

    def propose(labels: Labels) -> list[tuple[Judged, np.ndarray]]:
        judged, again = _judge(rest, labels)
        return [
            (session, np.where(issue.proposed(data.options), issue.better, -1))
            for session, issue in zip(judged, again, strict=True)
        ]

    long = {task.name: seconds[task.rows["valid"]] >= data.options.min_seconds for task in tasks}
    before = sum(int(issue.proposed(data.options).sum()) for issue in issues)
    if not tasks:
        return Trial(0, 0, 0)
    return try_planted(tasks, long, propose, before=before, seed=data.options.seed)


def _rows(
    judged: Judged,
    issues: Issues,
    data: _Data,
    pairs: Mapping[tuple[str, str], tuple[str, bool]],
    voices: np.ndarray | None,
) -> pd.DataFrame:
    """Return the rows of a session's judged turns, without their rank."""
    labels = np.array(judged.labels)
    part = data.table.iloc[judged.rows]
    stretch = np.full(len(part), -1)
    if has_common_clock(part):
        stretch = exchanged_stretches(judged, part["start"].to_numpy())
    exchanged = [pairs.get((judged.name, label), ("", True)) for label in part["speaker"]]
    session, certain = (np.array(column) for column in zip(*exchanged, strict=True))
    sure = np.full(len(part), np.nan) if voices is None else voices[judged.rows]
    swap = issues.proposed(data.options)
    ways = [session != "", stretch >= 0, sure >= SURE, issues.outlier, swap]
    kind = np.select(ways, [SESSION, EXCHANGE, TWO, OUTLIER, SWAP], default="")
    suggested = np.where(stretch >= 0, stretch, issues.better)
    usable = judged.codes >= 0
    chances = judged.chances[np.arange(len(part)), suggested]
    return part[["segment_id", "session", "start", "end"]].assign(
        labelled=part["speaker"],
        suggested=np.where(session != "", session, labels[suggested]),
        probability=np.where(session != "", np.nan, chances),
        labelled_probability=np.where(usable, judged.own, np.nan),
        quality=issues.quality,
        issue=issues.suspect,
        kind=np.where(usable, kind, ""),
        proposed=usable & np.isin(kind, (SESSION, EXCHANGE, SWAP)) & certain,
        fit=issues.fit,
        two_voices=sure,
        scores=[_as_json(labels, chance) for chance in judged.chances],
        reason=np.where(usable, "", NEVER_LEARNT),
    )


def _as_json(labels: np.ndarray, chances: np.ndarray) -> str:
    pairs = zip(map(str, labels), chances, strict=True)
    return json.dumps({label: round(float(chance), 6) for label, chance in pairs})


def _all_turns(
    ready: Prepared, skipped: Mapping[str, str], frames: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """Return the judged turns and those that could not be judged, with all `COLUMNS`."""
    import pandas as pd

    whole = ready.whole.rename(columns={"speaker": "labelled"})
    judged = {name for frame in frames for name in frame["segment_id"]}
    rest = whole[~whole["segment_id"].isin(judged)]
    rejected = rest["segment_id"].isin(set(ready.rejected["segment_id"]))
    reasons = rest["session"].map(dict(skipped)).mask(rejected, "rejected at extraction")
    names = [name for name in COLUMNS if name in rest]
    rest = rest[names].assign(reason=reasons.fillna(NEVER_LEARNT))
    filled = [
        frame.assign(**{name: blank for name, blank in COLUMNS.items() if name not in frame})
        for frame in (*frames, rest)
    ]
    return pd.concat([frame[list(COLUMNS)] for frame in filled if len(frame)])


def _ranked(turns: pd.DataFrame) -> pd.DataFrame:
    """Order turns by doubt in their label; turns of exchanged speakers come first."""
    whole = turns["kind"].isin((SESSION, EXCHANGE))
    certain = -doubt(turns["quality"], turns["end"] - turns["start"])
    order = turns.assign(later=~whole, certain=certain).sort_values(
        ["later", "certain", "segment_id"], kind="stable", na_position="last"
    )
    order = order.drop(columns=["later", "certain"]).reset_index(drop=True)
    ranks = np.arange(1, len(order) + 1, dtype=float)
    return order.assign(rank=np.where(order["quality"].notna(), ranks, np.nan))
