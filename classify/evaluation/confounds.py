"""Confounds of a classifier over all labels: whether it recognises the person or the room.

AISHELL-4's labels are valid within one meeting, so recognising the room narrows them down. Three
accuracies on the same test segments show by how much: of the label; of the person, with the labels
of one person merged; and of the meeting, which the same layers and classifier learn instead of
speakers. Each is reported with the accuracy of always naming the most frequent class in train. A
meeting may be recognised by its room or by its participants; if meeting names encode a series, a
fourth accuracy is that of date and room alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...common.counts import counted
from ...common.engine.options import HERE
from ...common.errors import InputError
from ...extract.store.reader import FeatureStore
from ...manifests.formats.aishell4 import local_speaker, parse_session, series_speaker
from ...manifests.formats.build import read_identity
from ...manifests.splits.tasks import WITHIN_CORPUS, majority_label, make_tasks, rows_in_train
from ...manifests.table import SPLITS
from ..metrics import percentiles, resample, session_mean
from ..options import SweepSettings
from ..selection.candidates import Candidate, choose
from ..selection.cross_validation import add_folds
from ..selection.prepare import Prepared
from ..selection.sweep import sweep
from ..speaker_model import fit_model, name_segments
from .wording import IDENTITY, LABEL, MEETING, ROOM, SERIES

if TYPE_CHECKING:
    import pandas as pd


COLUMNS = (
    *("of", "classes", "accuracy", "low", "high", "majority"),
    *("mean", "mean_low", "mean_high", "mean_majority", "segments"),
)
COUNTS = ("classes", "segments")
Row = tuple[object, ...]


def confound_table(
    ready: Prepared,
    store: FeatureStore,
    chosen: Candidate,
    settings: SweepSettings,
    predictions: pd.DataFrame,
    *,
    identity: str | Path | None = None,
) -> pd.DataFrame:
    """Return the control of a choice over all labels: accuracy of label, person and meeting.

    Parameters
    ----------
    ready : the segment table that was swept, and its rows with features
    predictions : of the chosen one, on test
    identity : CSV `session,speaker,person`, optional
        Maps speakers to persons; without it, equal numbers within a series are one person.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`: what is recognised; its number of classes in train; accuracy over
        segments with its 95 % interval, and that of always naming the most frequent class in train;
        the same as mean over meetings; segments. There is no row of persons if they are not known,
        and a row with 0 segments for meetings if none of them is in train.

    Raises
    ------
    InputError
        The identity file lacks a speaker, or gives one label to several persons.
    """
    rows = speaker_and_person_rows(predictions, ready.whole, identity=identity)
    return _frame([*rows, *_of_meetings(ready, store, chosen, settings)])


def confound_tables(
    predictions: pd.DataFrame,
    table: pd.DataFrame,
    *,
    identity: str | Path | None = None,
    split: str = "test",
    seed: int = 0,
    beside: str | Path | None = None,
) -> dict[str, pd.DataFrame]:
    """Return {model: its control} for the models over all labels in a predictions table.

    Rows of label and person are as in `confound_table`. Rows of the meeting come from the file
    `beside`, written by `sweep`, if it belongs to these predictions; so do persons without
    `identity`.
    """
    rows = predictions if split == "all" else predictions[predictions["split"] == split]
    written = read_control(beside) if beside is not None and Path(beside).is_file() else None
    controls = {}
    for model, part in rows.groupby("model", sort=False):
        if WITHIN_CORPUS in str(model):
            here = _frame(speaker_and_person_rows(part, table, identity=identity, seed=seed))
            if written is not None and _same(written, here):
                rooms = _rows(written, (MEETING, ROOM))
                here = _frame([*here.itertuples(index=False), *rooms]) if identity else written
            controls[str(model)] = here
    return controls


def _same(written: pd.DataFrame, here: pd.DataFrame) -> bool:
    """Return whether two controls are of the same predictions: their rows of labels are equal."""
    values = ["classes", "accuracy", "majority", "mean", "mean_majority", "segments"]
    first, second = (
        frame.loc[frame["of"] == LABEL, values].to_numpy() for frame in (written, here)
    )
    return bool(np.allclose(first, second, equal_nan=True))


def _rows(frame: pd.DataFrame, names: tuple[str, ...]) -> list[Row]:
    return [row for row in frame.itertuples(index=False, name=None) if row[0] in names]


def read_control(path: str | Path) -> pd.DataFrame:
    """Read the ``control.csv`` of a sweep; raise `InputError` for other content."""
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype={"of": "str"})
        numbers = dict.fromkeys(COLUMNS[1:], "float64") | dict.fromkeys(COUNTS, "int64")
        frame = frame.astype(numbers)[list(COLUMNS)]
        labels = int((frame["of"] == LABEL).sum())
    except (OSError, ValueError, KeyError) as problem:  # pandas' own errors are ValueErrors
        raise InputError(f"{path}: cannot be read ({problem}); make the run again") from problem
    if labels != 1:
        raise InputError(
            f"{path}: {counted(labels, 'row', 'is')} of {LABEL!r}, expected one; make the run again"
        )
    return frame


def speaker_and_person_rows(
    predictions: pd.DataFrame,
    table: pd.DataFrame,
    *,
    identity: str | Path | None = None,
    seed: int = 0,
) -> list[Row]:
    """Return the rows of label and, where persons are known, of person."""
    persons = person_of_label(table, identity)
    train = rows_in_train(table) if "split" in table else table
    truth, named = (predictions[name].to_numpy(str) for name in ("speaker", "predicted"))
    learnt, sessions = train["speaker"].to_numpy(str), predictions["session"].to_numpy(str)
    rows = [_row(LABEL, (truth, named, learnt), sessions, seed, speakers=truth)]
    if persons is not None:
        folded = [np.array([persons.get(x, x) for x in part]) for part in (truth, named, learnt)]
        rows.append(_row(IDENTITY if identity else SERIES, folded, sessions, seed, speakers=truth))
    return rows


def person_of_label(
    table: pd.DataFrame, identity: str | Path | None = None
) -> dict[str, str] | None:
    """Return {label: person}; None if neither a file nor the meetings' names give persons.

    Without a file, labels of the same date, room and number are one person, which is almost always
    right (`manifests.formats.aishell4`).
    """
    pairs = sorted(set(zip(table["session"], table["speaker"], strict=True)))
    persons_of: dict[str, set[str]] = {}
    try:
        for session, label in pairs:
            person = series_speaker(session, label) if identity is None else ""
            persons_of.setdefault(label, set()).add(person)
    except InputError:
        return None
    if identity is not None:
        persons_of = _identified(pairs, identity)
    several = [label for label, persons in persons_of.items() if len(persons) > 1]
    if several and identity is None:
        return None
    if several:
        raise InputError(
            f"{identity}: label {several[0]!r} is "
            f"{counted(len(persons_of[several[0]]), 'person')}, first "
            f"{min(persons_of[several[0]])!r}, expected one; make the table with spk-manifests "
            "rttm --scope session"
        )
    return {label: next(iter(persons)) for label, persons in persons_of.items()}


def _identified(pairs: list[tuple[str, str]], identity: str | Path) -> dict[str, set[str]]:
    identities: Mapping[tuple[str, str], str] = read_identity(identity)
    persons = set(identities.values())
    persons_of: dict[str, set[str]] = {}
    for session, label in pairs:
        local = local_speaker(session, label)
        person = identities.get((session, local), label if label in persons else None)
        if person is None:
            raise InputError(
                f"{identity}: {local!r} of session {session!r} has no person, expected one; "
                "add its row"
            )
        persons_of.setdefault(label, set()).add(person)
    return persons_of


def _of_meetings(
    ready: Prepared, store: FeatureStore, chosen: Candidate, settings: SweepSettings
) -> list[Row]:
    """Train the chosen layers and classifier on sessions, with a penalty from validation.

    Evaluated on the test segments whose meeting is in train, by meeting and by date and room.
    Returns no rows if there is no meeting to choose by.
    """
    table, learnt = ready.table, rows_in_train(ready.whole)
    train = learnt["session"].to_numpy(str)
    present = set(rows_in_train(table)["session"])
    tested = table[(table["split"] == "test") & table["session"].isin(present)]
    truth = tested["session"].to_numpy(str)
    named = truth if len(present) < 2 or not len(tested) else None
    if named is None:
        named_rows = _named_meetings(ready, store, chosen, settings, tested)
        if named_rows is None:
            return []
        truth, named = (named_rows[name].to_numpy(str) for name in ("session", "predicted"))
    rows = [_row(MEETING, (truth, named, train), truth, settings.seed)]
    try:
        room = {name: parse_session(name).series for name in sorted(set(table["session"]))}
        room |= {name: parse_session(name).series for name in sorted(set(train))}
    except InputError:
        return rows
    if 1 < len({room[name] for name in train}) < len(set(train)):
        folded = [np.array([room[name] for name in part], str) for part in (truth, named, train)]
        rows.append(_row(ROOM, folded, truth, settings.seed))
    return rows


def _named_meetings(
    ready: Prepared,
    store: FeatureStore,
    chosen: Candidate,
    settings: SweepSettings,
    tested: pd.DataFrame,
) -> pd.DataFrame | None:
    """Return the predicted meeting of each segment; None if there is nothing to choose by."""
    table = ready.table
    needed = ("train", "test") if settings.folds else SPLITS
    tasks, _ = make_tasks(table, "corpus", needed=needed, target="session", whole=ready.whole)
    if settings.folds:
        tasks, _ = add_folds(tasks, table, settings.folds, gap=settings.gap)
    if not any(np.any(task.codes["valid"] >= 0) for task in tasks):
        return None
    layers = ",".join(map(str, chosen.layers.layers))
    same = replace(settings, layers=layers, classifiers=chosen.classifier, jobs=1, **HERE)
    model = fit_model(table, store, tasks, choose(sweep(table, store, tasks, same)), same)
    return name_segments(model, tested.reset_index(drop=True), store)[0]


def _row(
    of: str,
    labels: Sequence[np.ndarray],
    sessions: np.ndarray,
    seed: int,
    *,
    speakers: np.ndarray | None = None,
) -> Row:
    """Return a row of `COLUMNS` from the true, the predicted and the training labels.

    Intervals resample `speakers` (n,) and then segments or, without `speakers`, meetings.
    """
    truth, named, learnt = labels
    classes = set(map(str, learnt))
    if not len(truth):
        return (of, len(classes), *[np.nan] * 8, 0)
    right, usual = truth == named, truth == majority_label(map(str, learnt), classes)
    meetings = np.unique(sessions, return_inverse=True)[1]
    first = meetings if speakers is None else np.unique(speakers, return_inverse=True)[1]
    drawn = [
        (right[k].mean(), session_mean(right[k], group if speakers is None else meetings[k]))
        for k, group in resample(first, seed=seed)
    ]
    ends, mean_ends = (percentiles(values) for values in np.array(drawn).T)
    over_meetings = (session_mean(right, meetings), *mean_ends, session_mean(usual, meetings))
    return (of, len(classes), right.mean(), *ends, usual.mean(), *over_meetings, len(truth))


def _frame(rows: list[Row]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(COLUMNS))
