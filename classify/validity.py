"""Why a score may be meaningless: segments used in training, speakers that cannot be named.

A segment counts as used if a training row has its id, or shares audio with it in the same recording
(whatever the folder). Validation rows count too, since layers, penalty and calibration were chosen
on them. Segments that the table itself marks train or valid are expected to be used, and are not
counted. Predictions carry the count in the model's name, so that it is visible when they are scored
later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from ..common.counts import agree, counted
from ..common.names import normal_name
from ..manifests.predictions import names_nobody, parse_scores
from ..manifests.split_record import UNKNOWN
from ..manifests.splits.overlap import RECORDING, count_neighbours
from ..manifests.splits.tasks import WITHIN_CORPUS, Task, rows_in_train
from ..manifests.table import UNKNOWN_SPEAKER

if TYPE_CHECKING:
    import pandas as pd


_File = tuple[tuple[str, ...], str]  # a path's parts, without suffix, and the session
LEARNT_COLUMNS = ("segment_id", "session", "audio", "start", "end", "split")
USES = ("train", "valid")  # strongest use of a row by a model first
MARK = re.compile(r", (\d+) training segments?$")
UNKNOWN_ORIGIN = (
    "the model does not say which segments it learnt from (older versions did not record that), so "
    "nobody can tell whether these are among them; fit it again to know"
)


def learnt_rows(table: pd.DataFrame, tasks: Sequence[Task]) -> pd.DataFrame:
    """Return the rows (`LEARNT_COLUMNS`) that tasks train on and those used for selection."""
    import pandas as pd

    parts = []
    rest = np.ones(len(table), bool)
    for use in USES:
        rows = np.unique(np.concatenate([task.rows[use] for task in tasks]))
        rows = rows[rest[rows]]  # with folds, validation rows are training rows too
        rest[rows] = False
        parts.append(table.iloc[rows].assign(split=use))
    return pd.concat(parts, ignore_index=True)[list(LEARNT_COLUMNS)]


def learnt_from(rows: pd.DataFrame, learnt: pd.DataFrame) -> np.ndarray:
    """Return which of `rows` (n,) bool were used for training or selection despite their split.

    Parameters
    ----------
    rows, learnt : segment tables
        `learnt` needs `LEARNT_COLUMNS`; `rows` needs the same except `split`.
    """
    split = rows["split"].to_numpy(str) if "split" in rows else np.full(len(rows), "")
    declared = np.select([split == "train", split == "valid"], [0, 1], 2)
    mask = np.zeros(len(rows), bool)
    for number, use in enumerate(USES):
        undeclared = declared > number
        part = learnt[learnt["split"] == use]
        mask |= undeclared & rows["segment_id"].isin(set(part["segment_id"])).to_numpy()
        mask |= undeclared & _shares_audio(rows, part)
    return mask


def _shares_audio(rows: pd.DataFrame, learnt: pd.DataFrame) -> np.ndarray:
    """Return which rows (n,) bool share audio with a row of `learnt` in the same recording."""
    import pandas as pd

    if not len(learnt) or not len(rows):
        return np.zeros(len(rows), bool)
    columns = ["session", "audio", "start", "end"]
    both = pd.concat([learnt[columns], rows[columns]], ignore_index=True)
    both = both.assign(audio=_recordings(both))
    among = np.arange(len(both)) < len(learnt)
    return count_neighbours(both, ~among, among, by=RECORDING) > 0


def _recordings(table: pd.DataFrame) -> list[str]:
    """Return a name for each row's recording that does not depend on its folder or suffix.

    Two files are the same recording if they have the same stem and session, or if one path ends
    with the other.
    """
    by_stem: dict[str, list[tuple[_File, str]]] = {}
    names: dict[tuple[str, str], str] = {}
    for pair in dict.fromkeys(zip(table["audio"], table["session"], strict=True)):
        path = PurePosixPath(normal_name(str(pair[0])).replace("\\", "/"))
        file = ((*path.parts[:-1], path.stem), normal_name(str(pair[1])))
        alike = by_stem.setdefault(path.stem, [])
        new = f"{path.stem}/{len(alike)}"
        names[pair] = next((name for other, name in alike if _same(file, other)), new)
        alike.append((file, names[pair]))
    return [names[pair] for pair in zip(table["audio"], table["session"], strict=True)]


def _same(a: _File, b: _File) -> bool:
    shorter = min(len(a[0]), len(b[0]))
    return a[1] == b[1] or a[0][-shorter:] == b[0][-shorter:]


def learnt_note(mask: np.ndarray, ids: Sequence[str]) -> list[str]:
    """Return a note on how many of the segments `ids` (n,) were used in training; [] if none."""
    if not mask.any():
        return []
    first, count = np.asarray(ids)[mask][0], int(mask.sum())
    return [
        f"{counted(count, 'segment', 'was', of=len(mask))} learnt from or chosen on, or "
        f"{agree(count, 'shares', 'share')} audio with such a segment, first {str(first)!r}: "
        "figures on them say little about others"
    ]


def marked(model: str, mask: np.ndarray) -> str:
    """Append to a model's name the number of predicted segments used in its training."""
    return f"{model}, {counted(int(mask.sum()), 'training segment')}" if mask.any() else model


def doubts_of(predictions: pd.DataFrame, table: pd.DataFrame | None = None) -> list[str]:
    """Return, for each model in a predictions table, why its scores may be meaningless.

    Parameters
    ----------
    table : segment table, optional
        Its training rows are assumed to be the model's.
    """
    lines = []
    groups = list(predictions.groupby("model", sort=False))
    for model, rows in groups:
        doubts = [
            *_by_split(rows),
            *_marked(str(model), rows),
            *unknown_note(rows, table, within_corpus(str(model))),
            *unnamed_note(rows, table, corpus=within_corpus(str(model))),
        ]
        if table is not None and not MARK.search(str(model)):
            doubts += _by_table(rows, table)
        lines += [f"{model}: {line}" if len(groups) > 1 else line for line in doubts]
    return lines


def split_doubts(method: str) -> list[str]:
    """Return a warning if a split is too easy, or if how it was made is not recorded.

    `method` is the result of `split_record.split_method`.
    """
    if "leaky" in method:
        return [
            f"split: {method}: test segments have neighbours in train, so scores on it say little "
            "about other speech"
        ]
    if method == UNKNOWN:
        return ["split: nobody recorded how this table was split, so it may leak"]
    return []


def within_corpus(model: str) -> bool:
    """Return whether a model chooses among all labels, judging by its name."""
    return WITHIN_CORPUS in model


def _by_split(rows: pd.DataFrame) -> list[str]:
    """Return a note on how many rows are of the splits train and valid."""
    count = int(rows["split"].isin(USES).sum())
    if not count:
        return []
    return [
        f"{counted(count, 'segment', 'is', of=len(rows))} of the splits train and valid, which "
        "models learn from and are chosen on: figures on them say little about others"
    ]


def _marked(model: str, rows: pd.DataFrame) -> list[str]:
    match = MARK.search(model)
    if match is None:
        return []
    count = int(match[1])
    return [
        f"{counted(count, 'segment', 'was')} learnt from or chosen on, or "
        f"{agree(count, 'shares', 'share')} audio with such a one, as the model's name says "
        f"({len(rows)} {agree(len(rows), 'is', 'are')} scored): figures on them say little about "
        "others"
    ]


def _by_table(rows: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Return a note on predicted segments that are, or overlap, training rows of the table."""
    if "split" not in table:
        return []
    indexed = table.set_index("segment_id")
    here = rows[rows["segment_id"].isin(indexed.index)]
    joined = indexed.loc[here["segment_id"]].reset_index().assign(split=here["split"].to_numpy())
    learnt = table[table["split"].isin(USES)]
    notes = learnt_note(learnt_from(joined, learnt), joined["segment_id"])
    return [f"by the table, {line}" for line in notes]


def unknown_speakers(
    rows: pd.DataFrame, table: pd.DataFrame | None, *, corpus: bool
) -> np.ndarray | None:
    """Return which segments (n,) bool have a speaker outside the candidates; None if unknown.

    The candidates are those in `scores`, or else the speakers in the table's training rows.
    """
    truth = [normal_name(name) for name in rows["speaker"]]
    if "scores" in rows:
        candidates = [set(parse_scores(text)) for text in rows["scores"]]
        pairs = zip(truth, candidates, strict=True)
        return np.array([label not in names for label, names in pairs])
    train = rows[:0] if table is None else rows_in_train(table)
    if not len(train):
        return None
    by_session = {name: set(part) for name, part in train.groupby("session")["speaker"]}
    everybody = set(train["speaker"])
    homes = [everybody if corpus else by_session.get(name, everybody) for name in rows["session"]]
    return np.array([label not in names for label, names in zip(truth, homes, strict=True)])


def unknown_note(rows: pd.DataFrame, table: pd.DataFrame | None, corpus: bool) -> list[str]:
    """Return a note on segments whose speakers the model does not know; empty if none."""
    unknown = unknown_speakers(rows, table, corpus=corpus)
    if unknown is None or not unknown.any():
        return []
    first = str(rows["speaker"].to_numpy()[unknown][0])
    return [unknown_text(int(unknown.sum()), len(rows), first)]


def unnamed_note(rows: pd.DataFrame, table: pd.DataFrame | None, *, corpus: bool) -> list[str]:
    """Return a note on segments in which nobody is named; empty if there are none.

    `table` and `corpus` as in `unknown_speakers`.
    """
    unnamed = names_nobody(rows).to_numpy()
    if not unnamed.any():
        return []
    strangers = unknown_speakers(rows, table, corpus=corpus)
    correct = (rows["predicted"] == rows["speaker"]).to_numpy()
    right, called_so = correct[~unnamed], int(correct[unnamed].sum())
    count, others = int(unnamed.sum()), len(right)
    who = "" if strangers is None else f", {int((strangers & unnamed).sum())} of them of speakers "
    who += "that the model does not know" if who else ""
    but = f", but for {called_so} whose speaker the table calls so" if called_so else ""
    rest = f"; of the other {others}, {right.mean():.1%} are named rightly" if others else ""
    return [
        f"{counted(count, 'segment', 'is', of=len(rows))} named {UNKNOWN_SPEAKER!r}{who}: that "
        f"counts as wrong{but}{rest}"
    ]


def unknown_text(count: int, whole: int, first: str) -> str:
    """Return the sentence about speakers that the model does not know.

    >>> unknown_text(52, 52, "Ann")
    "52 of 52 segments have speakers that the model does not know, first 'Ann'; they count as wrong"
    """
    return (
        f"{counted(count, 'segment', 'has', of=whole)} speakers that the model does not know, "
        f"first {first!r}; they count as wrong"
    )
