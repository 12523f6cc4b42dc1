"""The thesis project's CSV ``path,label``: one cut file per row.

A file is named ``{session}_{speaker}_{NNNN}.wav``, NNNN being the 0-based line of the turn in its
session's RTTM, and its label is ``{session}_{speaker}`` (miaomiami/thesis, data_fixed.csv). The
RTTMs therefore recover the time stamps that the CSV has lost.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ...common.counts import counted
from ...common.errors import InputError
from ...common.names import normal_name
from ..splits.select import overlap_share, select_segments
from ..table import check_table, segment_id
from .build import drop_nameless, make_table, speaker_labels
from .cut_names import (
    CUT_NAME,
    ListedFile,
    cut_stem,
    divide_labels,
    file_stem,
    read_listing,
    untimed_turn,
)
from .rttm import read_rttm
from .turns import Annotation, Note, Turn, audio_seconds

if TYPE_CHECKING:
    import pandas as pd


def read_reference_csv(  # noqa: PLR0913 (the command's options)
    path: str | Path,
    *,
    rttm_dir: str | Path | None = None,
    audio_root: str | Path | None = None,
    scope: str = "session",
    identity: str | Path | None = None,
    skip_bad: bool = False,
    allow_unpaired: bool = False,
    last_underscore: bool = False,
) -> tuple[pd.DataFrame, list[Note]]:
    """Build the segment table of a thesis CSV.

    Parameters
    ----------
    path
        CSV with the columns path and label.
    rttm_dir
        RTTMs that the files were cut by: segments are then turns in session time, and `audio` names
        the recordings. Without it, segments are the cut files, each from 0 s to its end.
    audio_root
        With `rttm_dir`, the recordings' folder, as for `make_table`; without it, the folder that
        the CSV's paths are relative to, by default the working folder.
    scope, identity, skip_bad, allow_unpaired
        As for `make_table`. A label that is not ``{session}_{speaker}`` but a person's name (from a
        table with other labels) is left as it is.
    last_underscore
        Speakers contain no ``_``: a label is split at its last one.

    Returns
    -------
    table
        Sorted as by `make_table`, or in the CSV's order if the segments are the cut files.
        With `rttm_dir` it has the column `overlap`, from all turns of the RTTMs, listed or not.
    notes
        What was dropped, clipped or left unpaired.

    Raises
    ------
    InputError
        Unexpected columns, a row whose file name and label do not match, a row without a turn in
        the RTTMs, a cut file that is missing or listed twice, or a label that can be split into
        session and speaker in several ways.
    """
    annotation = Annotation()
    listed = read_listing(path, annotation, skip_bad)
    if rttm_dir is not None:
        annotated = read_rttm(rttm_dir, skip_bad=skip_bad)
        recovered, labels = recover_turns(listed, annotated, annotation, skip_bad=skip_bad)
        notes: list[Note] = []
        table = make_table(
            recovered,
            notes=notes,
            audio_root=audio_root,
            scope=scope,
            identity=identity,
            skip_bad=skip_bad,
            allow_unpaired=allow_unpaired,
        )
        if identity is None:
            own = table["segment_id"].map(labels)
            table["speaker"] = own.where(own.notna(), table["speaker"])
        return _with_overlap(table, annotated, audio_root), notes
    turns = divide_labels(listed, annotation, skip_bad, last_underscore)
    files = [*turns.values()]
    if identity is not None and skip_bad:
        files = drop_nameless(files, identity, annotation.notes)
    names = speaker_labels(files, scope=scope, identity=identity, notes=annotation.notes)
    annotation.notes.append(
        Note("untimed", str(path), "times in the session are unknown without --rttm-dir")
    )
    own = _own_labels(turns) if identity is None else {}
    root = Path(audio_root or ".")
    return _files_table(files, annotation, root, {**names, **own}, skip_bad), annotation.notes


def prepare_segments(
    rttm_dir: str | Path,
    pcm_dir: str | Path | None = None,
    *,
    min_seconds: float = 1.5,
    skip_bad: bool = False,
    allow_unpaired: bool = False,
) -> tuple[pd.DataFrame, list[Note]]:
    """Build the table that the thesis project's prepare_segments_from_rttm.py cuts by.

    Parameters
    ----------
    rttm_dir
        Folder of RTTMs.
    pcm_dir
        Folder of the recordings; without it, ends are not checked, which is noted.
    min_seconds
        Shortest duration (s) to keep; the thesis uses 1.5.
    skip_bad, allow_unpaired
        As for `make_table`.

    Returns
    -------
    tuple
        The segment table, and notes of what was dropped or clipped.
    """
    annotated = read_rttm(rttm_dir, skip_bad=skip_bad)
    notes: list[Note] = []
    dropped: dict[str, list[str]] = {}
    table = make_table(
        annotated,
        audio_root=pcm_dir,
        skip_bad=skip_bad,
        allow_unpaired=allow_unpaired,
        notes=notes,
    )
    segments = select_segments(table, min_seconds=min_seconds, dropped=dropped)
    notes += [Note(rule, name, "dropped") for rule, names in dropped.items() for name in names]
    return segments, notes


def recover_turns(
    listed: Sequence[ListedFile],
    annotated: Annotation,
    annotation: Annotation,
    *,
    skip_bad: bool = False,
) -> tuple[Annotation, dict[str, str]]:
    """Return each row's annotated turn (times in s), in the CSV's order, and foreign labels.

    The labels are ``{segment_id: label}`` of rows whose label is not ``{session}_{speaker}``.

    Raises
    ------
    InputError
        The RTTMs have no such turn, or several, or it is another speaker's. With `skip_bad` the row
        is dropped with a note instead.
    """
    index = _index(annotated.turns)
    turns = Annotation(notes=annotation.notes + annotated.notes)
    labels = {}
    for row in listed:
        try:
            turn = _turn_of(row, index)
        except InputError as problem:
            turns.drop_or_raise(problem, row.path, skip=skip_bad)
            continue
        turns.turns.append(turn)
        if row.label != f"{turn.session}_{turn.speaker}":
            identity = segment_id(turn.session, turn.speaker, turn.start, turn.end, turn.channel)
            labels[identity] = row.label
    spare = {turn.session for turn in annotated.turns} - {turn.session for turn in turns.turns}
    turns.notes += [
        Note("unpaired", name, "RTTM without a row in the CSV") for name in sorted(spare)
    ]
    return turns, labels


def _index(turns: Sequence[Turn]) -> dict[str, list[Turn]]:
    """Index turns by the names that a cut gives their files, with and without line number."""
    index: dict[str, list[Turn]] = defaultdict(list)
    for turn in turns:
        identity = segment_id(turn.session, turn.speaker, turn.start, turn.end, turn.channel)
        index[cut_stem(f"{turn.session}_{turn.speaker}", turn.line)].append(turn)
        index[cut_stem(identity)].append(turn)
        index[f"{turn.session}\n{turn.line}"].append(turn)  # of another speaker, for the message
    return index


def _turn_of(row: ListedFile, index: Mapping[str, list[Turn]]) -> Turn:
    match = CUT_NAME.fullmatch(file_stem(row.path))
    stem = f"{match[1]}_{int(match[2]):04d}" if match else file_stem(row.path)
    turns = [turn for turn in index.get(stem, ()) if row.session in ("", turn.session)]
    if len(turns) > 1:
        both = " and ".join(turn.place for turn in turns[:2])
        raise InputError(
            f"{row.place}: path is {row.path!r}, the turns of {both}, expected those of one; take "
            "only the RTTMs from which the files were cut"
        )
    if turns and (row.session or row.label == f"{turns[0].session}_{turns[0].speaker}"):
        return turns[0]
    turn = untimed_turn(row, last_underscore=True)
    others = index.get(f"{turn.session}\n{turn.line}")
    if not others:
        raise InputError(
            f"{row.place}: line {turn.line} of session {turn.session!r} is in no RTTM, expected a "
            "turn; add the session's RTTM"
        )
    raise InputError(
        f"{row.place}: speaker is {turn.speaker!r}, expected {others[0].speaker!r} as in "
        f"{others[0].place}; take the RTTMs from which the files were cut"
    )


def _with_overlap(
    table: pd.DataFrame, annotated: Annotation, audio_root: str | Path | None
) -> pd.DataFrame:
    """Add the share of overlapped speech, counting also turns that the CSV leaves out."""
    sessions = set(table["session"])
    turns = [turn for turn in annotated.turns if turn.session in sessions]
    every = make_table(Annotation(turns), audio_root=audio_root, skip_bad=True)
    shares = dict(zip(every["segment_id"], overlap_share(every), strict=True))
    return table.assign(overlap=table["segment_id"].map(shares))


def _own_labels(turns: Mapping[ListedFile, Turn]) -> dict[tuple[str, str], str]:
    """Return {(session, speaker): label} of labels that name a person, not a session's speaker."""
    return {
        (turn.session, turn.speaker): row.label
        for row, turn in turns.items()
        if row.label != f"{turn.session}_{turn.speaker}"
    }


def _files_table(
    turns: Iterable[Turn],
    annotation: Annotation,
    audio_root: Path,
    names: Mapping[tuple[str, str], str],
    skip_bad: bool,
) -> pd.DataFrame:
    import pandas as pd

    segments: dict[str, dict[str, object]] = {}
    turns = list(turns)
    for turn in turns:
        try:
            segment = _file_row(turn, audio_root, names[turn.session, turn.speaker])
            if segment["segment_id"] in segments:
                raise InputError(f"{turn.place}: is listed twice, expected once; delete the row")
            segments[str(segment["segment_id"])] = segment
        except InputError as problem:
            annotation.drop_or_raise(problem, turn.place, skip=skip_bad)
    if not segments:
        raise InputError(
            f"{audio_root}: holds 0 of the {counted(len(turns), 'listed file')}, expected at "
            "least 1; correct the audio folder"
        )
    table = pd.DataFrame(list(segments.values()))
    return check_table(table.drop(columns="line") if (table["line"] < 0).any() else table)


def _file_row(turn: Turn, audio_root: Path, speaker: str) -> dict[str, object]:
    audio = _on_disk(audio_root, turn.place.replace("\\", "/"))
    return {
        "segment_id": file_stem(turn.place),
        "audio": audio,
        "start": 0.0,
        "end": audio_seconds(audio_root / audio),
        "speaker": speaker,
        "session": turn.session,
        "line": turn.line,
    }


def _on_disk(root: Path, audio: str) -> str:
    """Return a listed path as spelt on disk, where accents may be decomposed."""
    folder = PurePosixPath(audio).parent
    if os.path.exists(root / audio) or not os.path.isdir(root / folder):
        return audio
    wanted = normal_name(PurePosixPath(audio).name)
    same = [name for name in os.listdir(root / folder) if normal_name(name) == wanted]
    return (folder / same[0]).as_posix() if len(same) == 1 else audio
