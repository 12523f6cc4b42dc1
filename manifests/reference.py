"""The reference project's CSV ``path,label``: one cut file a row.

The file is called ``{session}_{speaker}_{NNNN}.wav``, NNNN the 0-based line of the turn in its
session's RTTM, and the label is ``{session}_{speaker}`` (miaomiami/thesis, data_fixed.csv). So the
RTTMs give the time stamps back that the CSV has lost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..common.errors import InputError
from .annotation import Note, Reading, Turn, audio_seconds, plain_name
from .assemble import make_table, speaker_labels
from .rttm import read_rttm
from .select import overlap_share, select
from .table import check_table

if TYPE_CHECKING:
    import pandas as pd

CUT_NAME = re.compile(r"(.+)_([^_]+)_(\d{4,9})")


def read_reference_csv(
    path: str | Path,
    *,
    rttm_dir: str | Path | None = None,
    audio_root: str | Path | None = None,
    scope: str = "session",
    identity: str | Path | None = None,
    skip_bad: bool = False,
    allow_unpaired: bool = False,
) -> tuple[pd.DataFrame, list[Note]]:
    """Make the segment table of a reference CSV.

    Parameters
    ----------
    path
        CSV with the columns path and label.
    rttm_dir
        RTTMs the files were cut by: the segments are then turns in session time, and `audio` the
        recordings. Without it they are the cut files, each from 0 s to its end.
    audio_root
        With `rttm_dir` the recordings' folder, as for `make_table`; without it the folder that
        the CSV's paths start from, by default the working folder.
    scope, identity, skip_bad, allow_unpaired
        As for `make_table`.

    Returns
    -------
    table
        Sorted as by `make_table`, or in the CSV's order where the segments are the cut files.
        With `rttm_dir` it has the column `overlap`, from all turns of the RTTMs, listed or not.
    notes
        What was dropped, clipped or left unpaired.

    Raises
    ------
    InputError
        Other columns, a row whose file name and label do not belong together, a row without its
        turn in the RTTMs, or a cut file that is missing or listed twice.
    """
    rows = _read_rows(path, skip_bad)
    if rttm_dir is not None:
        annotated = read_rttm(rttm_dir, skip_bad=skip_bad)
        turns = recover_turns(rows, annotated, skip_bad=skip_bad)
        table, notes = make_table(
            turns,
            audio_root=audio_root,
            scope=scope,
            identity=identity,
            skip_bad=skip_bad,
            allow_unpaired=allow_unpaired,
        )
        return _with_overlap(table, annotated, audio_root), notes
    names = speaker_labels(rows.turns, scope=scope, identity=identity)
    rows.notes.append(
        Note("untimed", str(path), "times in the session are unknown without --rttm-dir")
    )
    return _files_table(rows, Path(audio_root or "."), names, skip_bad), rows.notes


def prepare_segments(
    rttm_dir: str | Path,
    pcm_dir: str | Path | None = None,
    *,
    min_seconds: float = 1.5,
    allow_unpaired: bool = False,
) -> tuple[pd.DataFrame, list[Note]]:
    """Make the table that the reference's prepare_segments_from_rttm.py cuts by.

    Parameters
    ----------
    rttm_dir
        Folder of RTTMs.
    pcm_dir
        Folder of the recordings; without it ends are not checked, which is noted.
    min_seconds
        Shortest duration (s) that is kept; the reference's is 1.5.
    allow_unpaired
        As for `make_table`.

    Returns
    -------
    tuple
        The segment table, and notes of what was dropped or clipped.
    """
    annotated = read_rttm(rttm_dir)
    table, notes = make_table(annotated, audio_root=pcm_dir, allow_unpaired=allow_unpaired)
    kept, dropped = select(table, min_seconds=min_seconds)
    notes += [Note(rule, name, "dropped") for rule, names in dropped for name in names]
    return kept, notes


def _read_rows(path: str | Path, skip_bad: bool) -> Reading:
    """Return one untimed turn a row; its `place` is the row's path."""
    import pandas as pd

    try:
        rows = pd.read_csv(path, dtype="str", keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: cannot be read ({problem}); correct the path") from None
    if list(rows.columns) != ["path", "label"]:
        raise InputError(
            f"{path}: columns are {list(rows.columns)}, expected ['path', 'label']; rename them"
        )
    found = Reading()
    for index, (file, label) in enumerate(zip(rows["path"], rows["label"], strict=True)):
        place = f"{Path(path).name}, line {index + 2}"
        try:
            found.turns.append(parse_row(file, label, place))
        except InputError as problem:
            found.bad(problem, place, skip=skip_bad)
    return found


def parse_row(path: str, label: str, place: str = "csv") -> Turn:
    """Return the turn that a row's file name and label name; its times are not known (nan, s).

    >>> turn = parse_row("./segments/L_R001S01C01_001-M_0003.wav", "L_R001S01C01_001-M")
    >>> turn.session, turn.speaker, turn.line, turn.place
    ('L_R001S01C01', '001-M', 3, './segments/L_R001S01C01_001-M_0003.wav')
    """
    match = CUT_NAME.fullmatch(PurePosixPath(path.replace("\\", "/")).stem)
    if match is None or f"{match[1]}_{match[2]}" != label:
        raise InputError(
            f"{place}: path is {path!r} and label {label!r}, expected "
            "{session}_{speaker}_{NNNN}.wav and {session}_{speaker}; correct the row"
        )
    session = plain_name(match[1], what="session", place=place)
    unknown = float("nan")
    return Turn(session, match[2], unknown, unknown, int(match[3]), path)


def recover_turns(rows: Reading, annotated: Reading, *, skip_bad: bool = False) -> Reading:
    """Return the annotated turn (times in s) of every row, in the CSV's order.

    Raises
    ------
    InputError
        The RTTMs have no such line, or it is another speaker's; with `skip_bad` it is noted.
    """
    turns = {(turn.session, turn.line): turn for turn in annotated.turns}
    found = Reading(notes=rows.notes + annotated.notes)
    spare = {turn.session for turn in annotated.turns} - {row.session for row in rows.turns}
    found.notes += [
        Note("unpaired", name, "RTTM without a row in the CSV") for name in sorted(spare)
    ]
    for row in rows.turns:
        try:
            found.turns.append(_turn_of(row, turns))
        except InputError as problem:
            found.bad(problem, row.place, skip=skip_bad)
    return found


def _turn_of(row: Turn, turns: Mapping[tuple[str, int], Turn]) -> Turn:
    turn = turns.get((row.session, row.line))
    if turn is None:
        raise InputError(
            f"{row.place}: line {row.line} of session {row.session!r} is in no RTTM, expected a "
            "turn; add the session's RTTM, or pass --skip-bad"
        )
    if turn.speaker != row.speaker:
        raise InputError(
            f"{row.place}: speaker is {row.speaker!r}, expected {turn.speaker!r} as in "
            f"{turn.place}; take the RTTMs that the files were cut by"
        )
    return turn


def _with_overlap(
    table: pd.DataFrame, annotated: Reading, audio_root: str | Path | None
) -> pd.DataFrame:
    """Add the share in which somebody else speaks too: also in turns that the CSV leaves out."""
    sessions = set(table["session"])
    turns = [turn for turn in annotated.turns if turn.session in sessions]
    every, _ = make_table(Reading(turns), audio_root=audio_root, skip_bad=True)
    shares = dict(zip(every["segment_id"], overlap_share(every), strict=True))
    return table.assign(overlap=table["segment_id"].map(shares))


def _files_table(
    rows: Reading, audio_root: Path, names: Mapping[tuple[str, str], str], skip_bad: bool
) -> pd.DataFrame:
    import pandas as pd

    segments: dict[str, dict[str, object]] = {}
    for row in rows.turns:
        try:
            segment = _file_row(row, audio_root, names[row.session, row.speaker])
            if segment["segment_id"] in segments:
                raise InputError(f"{row.place}: is listed before, expected once; delete the row")
            segments[str(segment["segment_id"])] = segment
        except InputError as problem:
            rows.bad(problem, row.place, skip=skip_bad)
    if not segments:
        raise InputError(
            f"{audio_root}: holds 0 of the {len(rows.turns)} listed files, expected at least 1; "
            "correct the audio folder"
        )
    return check_table(pd.DataFrame(list(segments.values())))


def _file_row(row: Turn, audio_root: Path, speaker: str) -> dict[str, object]:
    audio = row.place.replace("\\", "/")
    return {
        "segment_id": PurePosixPath(audio).stem,
        "audio": audio,
        "start": 0.0,
        "end": audio_seconds(audio_root / audio),
        "speaker": speaker,
        "session": row.session,
        "line": row.line,
    }
