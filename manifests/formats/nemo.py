"""Read and write NeMo manifests: JSON lines with `audio_filepath`, `offset`, `duration`, `label`.

| line | turns |
|---|---|
| with `speaker`, or else `label` (speaker recognition) | one, from `offset` (0 if absent or null) for `duration` |
| with `rttm_filepath`, and no speaker or the label ``infer`` or ``UNK`` (diarization) | those of the RTTM, cut to `offset` and `duration` |
| with neither | none; such lines are counted in a note |

A line with both a speaker and an RTTM is refused. If `duration` is null or absent, it extends to
the recording's end. A session is named after its recording's file, or by `uniq_id` if the line has
one; if several folders have files of one name, as many folders as needed are prefixed to tell all
apart. As in NeMo, the session in an RTTM does not matter, unless it has several sessions: then one
of them must be the line's.

Relative paths start from the manifest's folder or, if there is no such file, from the folder that
spk is run in. A bare name that is in neither, as in NeMo's tarred sets, gives no location.

Output has a line per turn, with the recording's absolute path, or the bare name ``SESSION.wav`` if
it is not known; `uniq_id` only if the file is not named after the session. Times are unchanged, but
since a duration is stored, an end may move by less than 1e-8 s. This follows NeMo's own readers:
`manifest.py`, `collections.py` (`ASRSpeechLabel`, `EndtoEndDiarizationSpeechLabel`) and
`speaker_utils.py` (`audio_rttm_map`) of github.com/NVIDIA-NeMo/Speech.
"""  # noqa: E501 (a table)

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import atomic_write
from ...common.log import log
from ...common.names import normal_name
from .json_values import number, parse_json_lines, read_json_text, text
from .listed import ListedRecordings, drop_ambiguous_names
from .rttm import read_rttm
from .segmented_csv import file_session
from .turns import (
    Annotation,
    Listed,
    Note,
    Turn,
    check_same_recording,
    check_turn,
    collect_turns,
    count_speakers,
    read_files,
)

SUFFIXES = (".json", ".jsonl")
AUDIO = ("audio_filepath", "audio_filename")
RTTM = ("rttm_filepath", "rttm_filename", "rttm_file")
NOBODY = ("infer", "UNK")  # labels that in NeMo mean that nobody is named
NO_TEXT = "-"
DIGITS = 8  # of an end, as lhotse rounds start + duration


def read_nemo(
    path: str | Path, *, audio_root: str | Path | None = None, skip_bad: bool = False
) -> Annotation:
    """Read one NeMo manifest, or all below a folder.

    Parameters
    ----------
    path
        File or folder, searched recursively for ``.json`` and ``.jsonl``.
    audio_root
        Where to look for recordings whose length is needed; None: where the manifest says.
    skip_bad
        Drop bad lines and files, with a note each, instead of stopping at the first.

    Returns
    -------
    Annotation
        Turns, first those of lines with a speaker, then those of RTTMs, times in seconds; and the
        locations of recordings according to the manifest.

    Raises
    ------
    InputError
        A file is not such a manifest, or a line is bad (file and number of the line).
    """
    return read_files(
        path,
        SUFFIXES,
        lambda file, name: _read(file, name, audio_root, skip_bad),
        skip_bad=skip_bad,
    )


@dataclass
class _Manifest:
    """What the lines of one manifest share."""

    bases: tuple[Path, ...]  # folders that relative paths start from
    sessions: dict[str, str]  # audio path as written: session
    listed: dict[str, Listed]  # session: its recording
    recordings: ListedRecordings
    rttms: dict[Path, Annotation] = field(default_factory=dict)  # already read


def _read(file: Path, name: str, audio_root: str | Path | None, skip_bad: bool) -> Annotation:
    rows = parse_json_lines(read_json_text(file), name)
    manifest = _manifest(rows, file, name, audio_root)
    annotation = collect_turns(
        [(line, row) for line, row in rows if not _is_diarized(row)],
        lambda row, line, place: _turn(row, line, place, manifest),
        name,
        skip_bad=skip_bad,
    )
    annotation.notes[:0] = _notes(rows, annotation.turns, manifest, name)
    for line, row in rows:
        place = f"{name}, line {line + 1}"
        try:
            if _is_diarized(row):
                part = _diarized(row, place, manifest, skip_bad)
                annotation.turns += part.turns
                annotation.notes += part.notes
        except InputError as problem:
            annotation.drop_or_raise(problem, place, skip=skip_bad)
    annotation.recordings = manifest.listed
    return annotation


def _manifest(
    rows: Sequence[tuple[int, Any]], file: Path, name: str, audio_root: str | Path | None
) -> _Manifest:
    bases = (file.parent, Path())
    audio = {line: path for line, row in rows if isinstance(path := _first(row, AUDIO), str)}
    sessions = _session_names({*audio.values()}, bases)
    listed: dict[str, Listed] = {}
    for line, row in rows:
        if line in audio:
            entry = _listed(audio[line], bases, f"{name}, line {line + 1}")
            session = _session(row, sessions[audio[line]])
            if session not in listed and _is_place(entry):
                listed[session] = entry
    listed = drop_ambiguous_names(listed)
    recordings = ListedRecordings(listed, {*listed, *sessions.values()}, audio_root)
    return _Manifest(bases, sessions, listed, recordings)


def _first(row: Any, keys: Sequence[str]) -> Any:
    """Return a line's value for the first of the keys that it has, or None."""
    values = (row.get(key) for key in keys) if isinstance(row, dict) else ()
    return next((value for value in values if value not in (None, "")), None)


def _listed(path: str, bases: tuple[Path, ...], place: str) -> Listed:
    refusal = "an address of another machine" if "://" in path else ""
    return Listed(os.path.expanduser(path), place, bases, file_session(path), refusal)


def _is_place(entry: Listed) -> bool:
    """Return whether a path locates a recording; a bare name in a tarred set does not."""
    return "/" in entry.path or entry.file is not None


def _session_names(paths: set[str], bases: tuple[Path, ...]) -> dict[str, str]:
    """Return the names of recordings: file names, with as many folders as tell all apart."""
    entries = {path: _listed(path, bases, "") for path in paths}
    files = {path: os.path.abspath(e.file or bases[0] / e.path) for path, e in entries.items()}
    folders = {path: file.split("/")[:-1] for path, file in files.items()}
    names: dict[str, str] = {}
    for depth in range(1 + max(map(len, folders.values()), default=0)):
        names = {
            path: normal_name("_".join([*parts[max(len(parts) - depth, 0) :], file_session(path)]))
            for path, parts in folders.items()
        }
        if len({*names.values()}) == len({*files.values()}):
            break
    return names


def _session(row: Mapping[str, Any], name: str) -> str:
    identity = row.get("uniq_id")
    return normal_name(identity) if isinstance(identity, str) and identity else name


def _is_diarized(row: Any) -> bool:
    """Return whether a line takes its turns from an RTTM."""
    nobody = isinstance(row, dict) and row.get("speaker") in (None, "")
    return nobody and _first(row, RTTM) is not None and row.get("label") in (None, "", *NOBODY)


def _checked_session(row: Any, place: str, manifest: _Manifest) -> str:
    """Return a line's session, or raise `InputError` if its recording is unsuitable."""
    path = _first(row, AUDIO)
    if not isinstance(path, str):
        shown = f"an object with {list(row)[:8]}" if isinstance(row, dict) else repr(row)[:40]
        lhotse = isinstance(row, dict) and "recording_id" in row
        raise InputError(
            f"{place}: is {shown if path is None else f'of {repr(path)[:40]}'}, expected a line of "
            f"NeMo with one path as {AUDIO[0]}; "
            f"{'run spk-manifests lhotse on it' if lhotse else 'correct it'}"
        )
    text(row, "uniq_id", place)
    session = _session(row, manifest.sessions[path])
    entry = _listed(path, manifest.bases, place)
    if session in manifest.listed:
        check_same_recording(session, entry, manifest.listed[session])
    return session


def _span(row: Mapping[str, Any], place: str) -> tuple[float, float | None]:
    """Return where a line begins and ends (s); None means the recording's end."""
    start = 0.0 if row.get("offset") is None else number(row, "offset", place)
    if start < 0:
        raise InputError(f"{place}: offset is '{start:g}' s, expected >= 0; correct it")
    if row.get("duration") is None:
        return start, None
    seconds = number(row, "duration", place)
    if seconds < 0:
        raise InputError(
            f"{place}: duration is '{seconds:g}' s, expected > 0; delete or correct the line"
        )
    return start, round(start + seconds, DIGITS)


def _turn(row: Any, line: int, place: str, manifest: _Manifest) -> Turn:
    session, (start, end) = _checked_session(row, place, manifest), _span(row, place)
    label = text(row, "label", place)
    speaker = text(row, "speaker", place) or ("" if label in NOBODY else label)
    if speaker and _first(row, RTTM) is not None:
        raise InputError(
            f"{place}: names the speaker {speaker!r} and an RTTM, expected one of them; delete "
            f"{RTTM[0]}, or for the RTTM's turns write the label 'infer' and no speaker"
        )
    if end is None:
        end = manifest.recordings.seconds(session) if speaker else start
    if end is None:
        raise InputError(
            f"{place}: duration is null, so that it ends with its recording, which is not found, "
            "expected seconds; write them, or pass --audio-root with the folder of the recordings"
        )
    said = text(row, "text", place)
    said = "" if said.strip() == NO_TEXT else said
    return Turn(session, speaker, start, end, line, place, text=said)


def _diarized(
    row: Mapping[str, Any], place: str, manifest: _Manifest, skip_bad: bool
) -> Annotation:
    """Return the turns of the RTTM that a line names, cut to the line's offset and duration."""
    session, (start, end) = _checked_session(row, place, manifest), _span(row, place)
    path, part = _first(row, RTTM), Annotation()
    file = _listed(path, manifest.bases, place).file if isinstance(path, str) else None
    if file is None:
        raise InputError(
            f"{place}: {RTTM[0]} is {repr(path)[:80]}, expected the path of a file that is there; "
            "correct it"
        )
    if file not in manifest.rttms:
        manifest.rttms[file] = read_rttm(file, skip_bad=skip_bad)
        part.notes += manifest.rttms[file].notes
    changed = 0
    for turn in _of_session(manifest.rttms[file].turns, session, file, place, part.notes):
        first, last = max(turn.start, start), turn.end if end is None else min(turn.end, end)
        changed += (first, last) != (turn.start, turn.end)
        if first < last:
            inside = Turn(session, turn.speaker, first, last, turn.line, f"{place}, {turn.place}")
            part.turns.append(check_turn(inside._replace(channel=turn.channel)))
    if changed:
        message = f"{counted(changed, 'turn', 'is')} cut or left out, as offset and duration say"
        part.notes.append(Note("clipped", f"{place}, {file.name}", message))
    return part


def _of_session(
    turns: Sequence[Turn], session: str, file: Path, place: str, notes: list[Note]
) -> list[Turn]:
    """Return a session's turns in an RTTM; if the RTTM has only one session, all turns."""
    names = sorted({turn.session for turn in turns})
    if len(names) > 1 and session not in names:
        raise InputError(
            f"{place}: {file} holds {counted(len(names), 'session')}, first {names[0]!r}, expected "
            f"{session!r}; name its own RTTM"
        )
    if names and session not in names:
        message = f"the session of {file.name} is {names[0]!r}, and is taken for {session!r}"
        notes.append(Note("strange", place, message))
    return [turn for turn in turns if len(names) < 2 or turn.session == session]


def _notes(
    rows: Sequence[tuple[int, Any]], turns: Sequence[Turn], manifest: _Manifest, name: str
) -> Iterator[Note]:
    """Yield notes on what was used as the speaker and the session, if a line does not say."""
    objects = {line: row for line, row in rows if isinstance(row, dict)}
    nobody = [row for row in objects.values() if row.get("speaker") in (None, "")]
    waiting = sum(row.get("label") in NOBODY and not _is_diarized(row) for row in nobody)
    if waiting:
        message = (
            f"{counted(waiting, 'line', 'names')} nobody, and no RTTM; for what NeMo's diarizer "
            "wrote, run spk-manifests rttm on its folder pred_rttms"
        )
        yield Note("ignored", name, message)
    labelled = [turn for turn in turns if objects[turn.line].get("speaker") in (None, "")]
    if labelled:
        message = f"speakers, by the key 'label': {count_speakers(labelled)}"
        yield Note("speakers", name, message)
    spoken = (objects[turn.line] for turn in turns)
    other = sum(row.get("label") not in (None, "", *NOBODY, row.get("speaker")) for row in spoken)
    if other > len(labelled):
        message = f"{counted(other - len(labelled), 'label')} beside a speaker, not read"
        yield Note("speakers", name, message)
    longer = [s for path, s in manifest.sessions.items() if s != normal_name(file_session(path))]
    if longer:
        message = (
            "recordings in several folders have one name, so sessions are called after their "
            f"folders too, as {min(longer)!r}"
        )
        yield Note("renamed", name, message)


def write_nemo(
    turns: Sequence[Turn], path: str | Path, audio: Mapping[str, Path] | None = None
) -> None:
    """Write turns of any number of sessions as one NeMo manifest; see the module.

    Parameters
    ----------
    audio
        Session -> recording; without it, `audio_filepath` is a bare name.
    """
    files = {turn.session: _audio_path(turn.session, audio or {}) for turn in turns}
    if turns and not audio:
        log(
            f"{path}: {AUDIO[0]} is a bare name, since no recordings are known; pass --audio-root "
            "for their paths"
        )
    rows = (json.dumps(_line(turn, files[turn.session]), ensure_ascii=False) for turn in turns)
    atomic_write(path, "".join(f"{row}\n" for row in rows).encode())


def _line(turn: Turn, file: str) -> dict[str, Any]:
    row: dict[str, Any] = {"audio_filepath": file, "offset": turn.start}
    row |= {"duration": round(turn.end - turn.start, DIGITS), "label": turn.speaker}
    row |= {"text": turn.text} if turn.text else {}
    return row if file_session(file) == turn.session else {**row, "uniq_id": turn.session}


def _audio_path(session: str, audio: Mapping[str, Path]) -> str:
    return str(Path(audio[session]).absolute()) if session in audio else f"{session}.wav"
