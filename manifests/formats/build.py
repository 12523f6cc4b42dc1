"""Build the segment table from annotated turns: audio, speaker scope, identity, order.

The `segment_id` is derived from the turn as annotated, before clipping and scoping, so a turn keeps
its id with or without audio, under every scope and after every selection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...common.audio.decoding import check_length, count_samples, read_header
from ...common.counts import agree, counted
from ...common.cpus import available_cores
from ...common.errors import InputError
from ...common.names import is_placeholder, normal_name
from ..table import check_table, segment_id
from ..text_files.delimited import check_columns, read_delimited
from .aishell4 import scoped_speaker
from .listed import locate, missing_error
from .pairing import Pairing, unpaired_error, unpaired_notes
from .turns import Annotation, Note, Turn, name_notes

if TYPE_CHECKING:
    import pandas as pd


IDENTITY = ("session", "speaker", "person")


def make_table(
    annotation: Annotation,
    *,
    audio_root: str | Path | None = None,
    scope: str = "session",
    identity: str | Path | None = None,
    skip_bad: bool = False,
    allow_unpaired: bool = False,
    notes: list[Note] | None = None,
) -> pd.DataFrame:
    """Build the segment table from the turns that a reader returned.

    Parameters
    ----------
    annotation
        Turns and notes from `read_turns`, or from a format's own reader.
    audio_root
        Folder, searched recursively, with one recording per session, named after it, with any
        suffix that libsndfile reads. Without it, recordings are where the annotation lists them
        (`listed.locate`), and `audio` is absolute; if none are listed, `audio` is
        ``{session}.flac`` and ends are not checked, which is noted.
    scope
        ``session``, ``series`` or ``corpus``: the scope within which a speaker id is one person.
    identity
        CSV with columns session, speaker, person that names the person behind each local id;
        replaces `scope`.
    skip_bad
        Drop, with a note, duplicates, turns past the end of their audio, turns of unreadable
        recordings, and turns of speakers whom `identity` does not name.
    allow_unpaired
        Drop, with a note, the turns of sessions without a recording.
    notes
        Receives what was dropped, clipped, repaired or left unpaired, in the order it was found,
        the notes of `annotation` first.

    Returns
    -------
    DataFrame
        The segment table, sorted by session, start, end and speaker; with the column `text` if the
        annotation has texts.

    Raises
    ------
    InputError
        Duplicate turns, a turn after its audio's end, ambiguous audio, an unknown scope, a
        speaker that the identity file does not name, a session without recording, or no turn at
        all; with the notes made until then.
    """
    usable = Annotation(notes=list(annotation.notes), recordings=annotation.recordings)
    try:
        rows = _rows(annotation, usable, audio_root, scope, identity, skip_bad, allow_unpaired)
    except InputError as problem:
        problem.notes = usable.notes
        raise
    if notes is not None:
        notes += usable.notes
    return _table(rows)


def _rows(
    annotation: Annotation,
    usable: Annotation,
    audio_root: str | Path | None,
    scope: str,
    identity: str | Path | None,
    skip_bad: bool,
    allow_unpaired: bool,
) -> list[dict[str, object]]:
    _drop_duplicates(annotation.turns, usable, skip_bad)
    if identity is not None and skip_bad:
        usable.turns = drop_nameless(usable.turns, identity, usable.notes)
    names = speaker_labels(usable.turns, scope=scope, identity=identity, notes=usable.notes)
    if audio_root is None and not usable.recordings:
        usable.notes.append(Note("unchecked", "audio", "no audio folder: ends were not checked"))
        rows = [_row(turn, f"{turn.session}.flac", turn.end, names) for turn in usable.turns]
    else:
        rows = _paired_rows(
            usable, audio_root, names, skip_bad=skip_bad, allow_unpaired=allow_unpaired
        )
    if not rows:
        dropped = [note.message for note in usable.notes if note.kind in ("dropped", "ignored")]
        first = f" (first left out: {dropped[0]})" if dropped else ""
        raise InputError(
            f"annotation: holds 0 usable turns of {len(annotation.turns)}{first}, expected at "
            "least 1; correct the path or the annotation"
        )
    return rows


def summarise(table: pd.DataFrame, notes: Sequence[Note]) -> str:
    """Summarise a table in one line: segments, sessions, speakers, hours, notes by kind."""
    hours = float((table["end"] - table["start"]).sum()) / 3600
    totals = [
        counted(len(table), "segment"),
        counted(table["session"].nunique(), "session"),
        counted(table["speaker"].nunique(), "speaker"),
        f"{hours:.2f} h",
    ]
    kinds = Counter(note.kind for note in notes)
    each = ", ".join(f"{kind}: {count}" for kind, count in kinds.items())
    return ", ".join(totals + ([f"{counted(len(notes), 'note')} ({each})"] if notes else []))


def _drop_duplicates(turns: Sequence[Turn], usable: Annotation, skip_bad: bool) -> None:
    places: dict[str, str] = {}
    for turn in turns:
        name = segment_id(turn.session, turn.speaker, turn.start, turn.end, turn.channel)
        if name not in places:
            places[name] = turn.place
            usable.turns.append(turn)
            continue
        problem = InputError(
            f"{turn.place}: the turn of {turn.speaker!r} from {turn.start:g} to {turn.end:g} s is "
            f"already given in {places[name]}, expected once; delete the line"
        )
        usable.drop_or_raise(problem, turn.place, skip=skip_bad)


def drop_nameless(turns: Iterable[Turn], identity: str | Path, notes: list[Note]) -> list[Turn]:
    """Return the turns of speakers whom the identity file names; the others are noted."""
    persons, named = read_identity(identity), []
    for turn in turns:
        if (turn.session, turn.speaker) in persons:
            named.append(turn)
            continue
        message = f"{turn.speaker!r} of session {turn.session!r} has no person in {identity}"
        notes.append(Note("dropped", turn.place, message))
    return named


def speaker_labels(
    turns: Iterable[Turn],
    *,
    scope: str = "session",
    identity: str | Path | None = None,
    notes: list[Note] | None = None,
) -> Mapping[tuple[str, str], str]:
    """Return ``{(session, local speaker): label}``, by scope or from the identity file.

    Notes about the identity file are appended to `notes`.

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
            f"{identity}: {counted(len(unnamed), 'speaker', 'has', of=len(pairs))} no person, "
            f"first {unnamed[0][1]!r} of session {unnamed[0][0]!r}, expected one each; add their "
            "rows, or pass --skip-bad to leave their turns out"
        )
    return persons


def read_identity(path: str | Path, notes: list[Note] | None = None) -> dict[tuple[str, str], str]:
    """Read the CSV `session,speaker,person` as ``{(session, local speaker): person}``.

    Names are normalised; changes are appended to `notes`. Other columns are ignored.

    Raises
    ------
    InputError
        A column is missing, a speaker has two persons, or a person has no name.
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
            f"{path}: {counted(len(double), 'speaker', 'is')} named twice, first "
            f"{double['speaker'].iloc[0]!r} of session {double['session'].iloc[0]!r}, expected "
            "once; delete a row"
        )
    nameless = rows[(rows["person"] == "") | rows["person"].map(is_placeholder).astype(bool)]
    if len(nameless):
        raise InputError(
            f"{path}: person of {counted(len(nameless), 'speaker')} is "
            f"{nameless['person'].iloc[0] or 'empty'}, first that of "
            f"{nameless['speaker'].iloc[0]!r} in session {nameless['session'].iloc[0]!r}, "
            "expected a name; add it or delete the row"
        )
    return dict(
        zip(zip(rows["session"], rows["speaker"], strict=True), rows["person"], strict=True)
    )


def _paired_rows(
    usable: Annotation,
    audio_root: str | Path | None,
    names: Mapping[tuple[str, str], str],
    *,
    skip_bad: bool,
    allow_unpaired: bool,
) -> list[dict[str, object]]:
    pairing = _pairing(usable, audio_root, allow_unpaired)
    lengths = _lengths(usable, pairing.recordings, skip_bad)
    rows = []
    for turn in usable.turns:
        if turn.session in lengths:
            file = pairing.recordings[turn.session]
            audio = str(file.absolute() if audio_root is None else file.relative_to(audio_root))
            end = _clip(turn, lengths[turn.session], usable, skip_bad)
            if end is not None:
                rows.append(_row(turn, audio, end, names))
    return rows


def _pairing(usable: Annotation, audio_root: str | Path | None, allow_unpaired: bool) -> Pairing:
    """Return each session's recording; raise if one has none, unless it may be left out."""
    counts = Counter(turn.session for turn in usable.turns)
    pairing = locate(counts, usable.recordings, audio_root)
    usable.notes += unpaired_notes(pairing, audio_root or "", counts, left_out=allow_unpaired)
    if pairing.missing and not allow_unpaired:
        if audio_root is None:
            raise missing_error(pairing, usable.recordings, counts)
        places = (turn.place for turn in usable.turns if turn.session == pairing.missing[0])
        raise unpaired_error(pairing, audio_root, counts, place=next(places))
    return pairing


class _Length(NamedTuple):
    """A recording's decoded length (s), the length its header claims, and its channel count."""

    path: Path
    seconds: float
    promised: float
    channels: int


def _lengths(
    usable: Annotation, recordings: Mapping[str, Path], skip_bad: bool
) -> dict[str, _Length]:
    """Return the length of each session's recording; `skip_bad` leaves out unreadable ones."""
    latest: dict[str, float] = {}
    for turn in usable.turns:
        latest[turn.session] = max(turn.end, latest.get(turn.session, 0.0))
    lengths = {}
    with ThreadPoolExecutor(available_cores()) as pool:  # an MP3 must be decoded to measure it
        jobs = {s: pool.submit(_length, file, latest[s]) for s, file in recordings.items()}
        for session, job in jobs.items():
            try:
                lengths[session] = job.result()
            except InputError as problem:
                count = sum(turn.session == session for turn in usable.turns)
                explained = InputError(
                    f"{problem} ({counted(count, 'turn')} of session {session!r} "
                    f"{agree(count, 'needs', 'need')} it)"
                )
                usable.drop_or_raise(explained, recordings[session].name, skip=skip_bad)
    return lengths


def _length(file: Path, latest: float) -> _Length:
    """Return a recording's length; check its header if the last turn, at `latest` s, is beyond."""
    header = read_header(file)
    seconds = count_samples(header) / header.rate
    if latest > seconds:
        check_length(header)
    return _Length(file, seconds, header.seconds, header.channels)


def _clip(turn: Turn, length: _Length, usable: Annotation, skip_bad: bool) -> float | None:
    seconds = length.seconds
    if turn.channel and int(turn.channel) >= length.channels:
        problem = InputError(
            f"{turn.place}: channel is {turn.channel} (from 0), expected less than the "
            f"{length.channels} of {length.path}; correct the line"
        )
        usable.drop_or_raise(problem, turn.place, skip=skip_bad)
        return None
    if turn.start >= seconds:
        problem = InputError(
            f"{turn.place}: start is '{turn.start:g}' s, expected less than the {seconds:g} s of "
            "its audio; delete or correct the line"
        )
        if turn.start < length.promised:
            problem = InputError(
                f"{length.path}: header says {length.promised:g} s, {seconds:g} s decode, expected "
                f"{turn.start:g} s and more ({turn.place}); replace the damaged recording"
            )
        usable.drop_or_raise(problem, turn.place, skip=skip_bad)
        return None
    if turn.end > seconds:
        why = f" that decode (header: {length.promised:g} s)" if turn.end <= length.promised else ""
        usable.notes.append(
            Note(
                "clipped",
                turn.place,
                f"end {turn.end:g} s is cut to the audio's {seconds:g} s{why}",
            )
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
        "text": turn.text,
    }


def _table(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    import pandas as pd

    order = ["session", "start", "end", "speaker"]
    table = pd.DataFrame(rows).sort_values(order, kind="stable", ignore_index=True)
    empty = [name for name in ("channel", "text") if not table[name].any()]
    return check_table(table.drop(columns=empty))
