"""From turns as annotated to the segment table: audio, speaker scope, identity, order.

The `segment_id` is made from the turn as annotated, before clipping and before any scope, so the
same turn has the same id with and without audio, under every scope and after every selection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.errors import InputError
from ..common.names import is_placeholder, normal_name
from .aishell4 import scoped_speaker
from .annotation import Note, Reading, Turn, audio_seconds, find_files, name_notes
from .delimited import check_columns, read_delimited
from .table import check_table, segment_id

if TYPE_CHECKING:
    import pandas as pd

IDENTITY = ("session", "speaker", "person")
AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".w64", ".aiff")


def make_table(
    reading: Reading,
    *,
    audio_root: str | Path | None = None,
    scope: str = "session",
    identity: str | Path | None = None,
    skip_bad: bool = False,
) -> tuple[pd.DataFrame, list[Note]]:
    """Make the segment table of the turns that a reader found.

    Parameters
    ----------
    reading
        Turns and notes of `read_rttm`, `read_textgrids` or `read_reference_csv`.
    audio_root
        Folder with one recording per session, named like it, searched recursively. Without it
        `audio` is ``{session}.flac`` and ends are not checked, which is noted.
    scope
        ``session``, ``series`` or ``corpus``: in which a speaker id means one person.
    identity
        CSV with columns session, speaker, person that names the person behind each local id;
        replaces `scope`.
    skip_bad
        Drop and note duplicates and turns after the end of their audio.

    Returns
    -------
    table
        The segment table, sorted by session, start, end and speaker.
    notes
        What was dropped, clipped, repaired or left unpaired, in the order it was found.

    Raises
    ------
    InputError
        Duplicate turns, a turn after its audio's end, ambiguous audio, an unknown scope, a
        speaker that the identity file does not name, or no turn at all.
    """
    kept = Reading(notes=list(reading.notes))
    _drop_duplicates(reading.turns, kept, skip_bad)
    names = speaker_labels(kept.turns, scope=scope, identity=identity, notes=kept.notes)
    if audio_root is None:
        kept.notes.append(Note("unchecked", "audio", "no audio folder: ends were not checked"))
        rows = [_row(turn, f"{turn.session}.flac", turn.end, names) for turn in kept.turns]
    else:
        rows = _paired_rows(kept, Path(audio_root), names, skip_bad)
    if not rows:
        raise InputError(
            f"annotation: holds 0 usable turns of {len(reading.turns)}, expected at least 1; "
            "correct the folders"
        )
    return _table(rows), kept.notes


def summarise(table: pd.DataFrame, notes: Sequence[Note]) -> str:
    """Return one line: segments, sessions, speakers, hours, and the notes counted by kind."""
    hours = float((table["end"] - table["start"]).sum()) / 3600
    told = [
        f"{len(table)} segments",
        f"{table['session'].nunique()} sessions",
        f"{table['speaker'].nunique()} speakers",
        f"{hours:.2f} h",
    ]
    kinds = Counter(note.kind for note in notes)
    return ", ".join(told + [f"{count} {kind}" for kind, count in kinds.items()])


def _drop_duplicates(turns: Sequence[Turn], kept: Reading, skip_bad: bool) -> None:
    seen: dict[str, str] = {}
    for turn in turns:
        name = segment_id(turn.session, turn.speaker, turn.start, turn.end, turn.channel)
        if name not in seen:
            seen[name] = turn.place
            kept.turns.append(turn)
            continue
        problem = InputError(
            f"{turn.place}: the turn of {turn.speaker!r} from {turn.start:g} to {turn.end:g} s is "
            f"given before in {seen[name]}, expected once; delete the line"
        )
        kept.bad(problem, turn.place, skip=skip_bad)


def speaker_labels(
    turns: Iterable[Turn],
    *,
    scope: str = "session",
    identity: str | Path | None = None,
    notes: list[Note] | None = None,
) -> Mapping[tuple[str, str], str]:
    """Return ``{(session, local speaker): label}`` by scope, or by the identity file's persons.

    What is to be told of the identity file is added to `notes`.

    Raises
    ------
    InputError
        The scope is unknown, or the identity file lacks a speaker.
    """
    pairs = dict.fromkeys((turn.session, turn.speaker) for turn in turns)
    if identity is None:
        return {pair: scoped_speaker(*pair, scope) for pair in pairs}
    persons = read_identity(identity, notes)
    unnamed = [pair for pair in pairs if pair not in persons]
    if unnamed:
        raise InputError(
            f"{identity}: {len(unnamed)} of {len(pairs)} speakers have no person, first "
            f"{unnamed[0][1]!r} of session {unnamed[0][0]!r}; add their rows"
        )
    return persons


def read_identity(path: str | Path, notes: list[Note] | None = None) -> dict[tuple[str, str], str]:
    """Read the CSV `session,speaker,person`; return ``{(session, local speaker): person}``.

    All names are in their normal form; what was changed is added to `notes`. Other columns are
    not looked at.

    Raises
    ------
    InputError
        A column is missing, a pair has two persons, or a person has no name.
    """
    sheet = read_delimited(path, IDENTITY, "correct the path")
    check_columns(sheet, IDENTITY, path)
    if notes is not None:
        notes += [Note("columns", str(path), note) for note in sheet.notes]
        for what in IDENTITY:
            notes += name_notes(what, sheet.rows[what], str(path))
    rows = sheet.rows[list(IDENTITY)].map(normal_name).drop_duplicates()
    double = rows[rows.duplicated(["session", "speaker"])]
    if len(double):
        raise InputError(
            f"{path}: {len(double)} speakers are named twice, first {double['speaker'].iloc[0]!r} "
            f"of session {double['session'].iloc[0]!r}, expected once; delete a row"
        )
    nameless = rows[(rows["person"] == "") | rows["person"].map(is_placeholder)]
    if len(nameless):
        raise InputError(
            f"{path}: person of {len(nameless)} speakers is {nameless['person'].iloc[0] or 'empty'}"
            f", first that of {nameless['speaker'].iloc[0]!r} in session "
            f"{nameless['session'].iloc[0]!r}, expected a name; add it or delete the row"
        )
    return dict(
        zip(zip(rows["session"], rows["speaker"], strict=True), rows["person"], strict=True)
    )


def find_recordings(audio_root: str | Path) -> dict[str, Path]:
    """Return ``{session: audio file}`` for all audio below a folder, by file name.

    Raises
    ------
    InputError
        There is no such folder, it holds no audio, or two files of one name.
    """
    if not Path(audio_root).is_dir():
        raise InputError(f"{audio_root}: is no folder, expected the recordings'; correct the path")
    found: dict[str, Path] = {}
    for file in find_files(audio_root, AUDIO_SUFFIXES):
        if file.stem in found:
            raise InputError(
                f"{audio_root}: session {file.stem!r} has 2 recordings, {found[file.stem].name} "
                f"and {file.relative_to(audio_root)}, expected 1; move one away"
            )
        found[file.stem] = file
    return found


def _paired_rows(
    kept: Reading, audio_root: Path, names: Mapping[tuple[str, str], str], skip_bad: bool
) -> list[dict[str, object]]:
    recordings = find_recordings(audio_root)
    sessions = Counter(turn.session for turn in kept.turns)
    kept.notes += [
        Note("unpaired", name, f"annotation without audio, {sessions[name]} turns dropped")
        for name in sorted(set(sessions) - set(recordings))
    ]
    spare = sorted(set(recordings) - set(sessions))
    kept.notes += [Note("unpaired", name, "audio without annotation") for name in spare]
    lengths = {name: audio_seconds(recordings[name]) for name in sessions if name in recordings}
    rows = []
    for turn in kept.turns:
        if turn.session in lengths:
            file = recordings[turn.session]
            audio = file.relative_to(audio_root).as_posix()
            end = _clip(turn, lengths[turn.session], kept, skip_bad)
            if end is not None:
                rows.append(_row(turn, audio, end, names))
    return rows


def _clip(turn: Turn, seconds: float, kept: Reading, skip_bad: bool) -> float | None:
    if turn.start >= seconds:
        problem = InputError(
            f"{turn.place}: start is '{turn.start:g}' s, expected less than the {seconds:g} s of "
            "its audio; delete or correct the line"
        )
        kept.bad(problem, turn.place, skip=skip_bad)
        return None
    if turn.end > seconds:
        kept.notes.append(
            Note("clipped", turn.place, f"end {turn.end:g} s is cut to the audio's {seconds:g} s")
        )
    return min(turn.end, seconds)


def _row(
    turn: Turn, audio: str, end: float, names: Mapping[tuple[str, str], str]
) -> dict[str, object]:
    return {
        "segment_id": segment_id(turn.session, turn.speaker, turn.start, turn.end, turn.channel),
        "audio": audio,
        "start": turn.start,
        "end": end,
        "speaker": names[turn.session, turn.speaker],
        "session": turn.session,
        "channel": turn.channel,
        "line": turn.line,
    }


def _table(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    import pandas as pd

    order = ["session", "start", "end", "speaker"]
    table = pd.DataFrame(rows).sort_values(order, kind="stable", ignore_index=True)
    if not table["channel"].any():
        table = table.drop(columns="channel")
    return check_table(table)
