"""Read and write Kaldi data directories: `segments`, `utt2spk`, `spk2utt`, `wav.scp`, `text`.

The input is `utt2spk`, which is required, `segments` (four fields, or five with the channel from
0), `text`, `wav.scp` and `reco2file_and_channel`. The session is the recording's id, with ``_`` for
each ``/``. Without `segments` each utterance is a whole recording; its end, like an end of -1, is
taken from `reco2dur` or `utt2dur`, or from the recording itself.

Relative paths in `wav.scp` start from the folder that spk is run in, as in Kaldi; commands are
never run (`listed`). `reco2file_and_channel` says which channel (A to H, or from 1) of a file a
recording is. It is used if it names a channel other than the first for that file, and the recording
that is read has several channels; a separate recording with one channel is already that channel.

The output has all files that `utils/validate_data_dir.sh` requires, sorted by bytes
(``LC_ALL=C``). Utterances are ``speaker-recording-start-end``, in milliseconds of fixed width, so
that they sort like their speakers; if one speaker's name is a prefix of another's (``001``,
``001-M``), the first separator is ``!`` instead of ``-``. `wav.scp` is written for recordings that
are known, `text` if any turn has a text. Blanks in names become ``_``. Times have six decimal
places.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ...common.counts import agree, counted
from ...common.errors import InputError
from ...common.files import atomic_write, list_files
from ...common.log import log
from ...common.names import normal_name
from ..text_files.decoding import read_text
from .listed import ARCHIVE, COMMAND, ListedRecordings, drop_ambiguous_names
from .turns import (
    Annotation,
    Listed,
    Note,
    Turn,
    collect_turns,
    find_files,
    parse_float,
    relative_name,
)
from .writing import (
    check_equal_names,
    decimal_seconds,
    microseconds,
    milliseconds,
    without_blanks,
)

NEEDED, SIDES = "utt2spk", "reco2file_and_channel"
SIDE = re.compile(r"[A-H]|[1-9]\d{0,3}")
TO_THE_END = -1.0  # an end that means the recording's end
SIGNS = ("-", "!")  # between speaker and recording; no printable character sorts before the last
DIGITS = 8  # of milliseconds in an id: up to 27 hours, more if a time is later


class _Side(NamedTuple):
    """The file that a recording is a channel of, and the channel's index (from 0)."""

    file: str
    channel: str


@dataclass
class _Directory:
    """The content of a data directory, each file by its first field."""

    speakers: dict[str, str]
    texts: dict[str, str]
    seconds: dict[str, str]
    recordings: ListedRecordings
    lines: dict[str, int] = field(default_factory=dict)  # utterance -> its first line


def read_kaldi(
    path: str | Path, *, audio_root: str | Path | None = None, skip_bad: bool = False
) -> Annotation:
    """Read one Kaldi data directory, or all below a folder.

    Parameters
    ----------
    path
        A folder with `utt2spk`, or a folder to search for such folders.
    audio_root
        Where to look for recordings that are needed to determine ends or channels; None: where
        `wav.scp` says.
    skip_bad
        Drop bad lines and folders, with a note each, instead of stopping at the first.

    Returns
    -------
    Annotation
        Turns in the order of `segments`, times in seconds, and what `wav.scp` lists.

    Raises
    ------
    InputError
        There is no such folder, or a line is bad (file and line number).
    """
    path = Path(path)
    if path.is_file():
        path = path.parent
    if not path.is_dir():
        find_files(path, ())  # raises that there is none
    folders = [file.parent for file in list_files(path, ("",)) if file.name == NEEDED]
    if not folders:
        raise InputError(
            f"{path}: holds no {NEEDED}, expected a Kaldi data directory; name its folder"
        )
    annotation = Annotation()
    for folder in folders:
        name = relative_name(path, folder) if folder != path else folder.name
        try:
            annotation.add(_read(folder, name, audio_root, skip_bad), name)
        except InputError as problem:
            if folder == path and not skip_bad:
                raise
            annotation.drop_or_raise(problem, name, skip=skip_bad)
    return annotation


def _read(folder: Path, name: str, audio_root: str | Path | None, skip_bad: bool) -> Annotation:
    source = "segments" if (folder / "segments").is_file() else NEEDED
    rows = [(line, row.split()) for line, row in _lines(folder / source)]
    if source == NEEDED:  # each utterance is a whole recording
        rows = [(line, [row[0], row[0], "0", "-1"]) for line, row in rows]
    sides = _sides(folder, name)
    listed = _listed(folder, name, sides)
    recordings = sorted({row[1] for _, row in rows if len(row) > 1})
    place, result = f"{name}/{source}", "session {!r}, since '/' becomes '_'"
    check_equal_names(recordings, "recordings", place, _session, result)
    directory = _Directory(
        _fields(folder, NEEDED, name),
        _fields(folder, "text", name),
        {**_fields(folder, "utt2dur", name), **_fields(folder, "reco2dur", name)},
        ListedRecordings(listed, map(_key, recordings), audio_root),
    )
    annotation = collect_turns(
        rows,
        lambda row, line, place: _turn(row, line, place, directory),
        f"{name}/{source}",
        skip_bad=skip_bad,
    )
    silent = len(directory.speakers.keys() - directory.lines.keys())
    if silent:
        verb = agree(silent, "is", "are")
        message = f"{counted(silent, 'utterance')} of {NEEDED} {verb} not in segments"
        annotation.notes.append(Note("ignored", name, message))
    renamed = [recording for recording in recordings if "/" in recording]
    if renamed:
        message = (
            f"'/' is '_' in {counted(len(renamed), 'session')}, first {_session(renamed[0])!r}"
        )
        annotation.notes.append(Note("renamed", name, message))
    annotation.recordings = listed
    _choose_channels(annotation, sides, directory.recordings)
    return annotation


def _session(recording: str) -> str:
    """Return the session of a recording's id; WeSpeaker's ids are paths, as ``id1/x/00001.wav``."""
    return recording.replace("/", "_")


def _key(recording: str) -> str:
    """Return the key that identifies a recording: its session in the final form."""
    return normal_name(_session(recording))


def _lines(file: Path) -> list[tuple[int, str]]:
    rows = enumerate(read_text(file).split("\n"))
    return [(line, row) for line, row in rows if row.strip()]


def _rows(folder: Path, file: str, name: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line, first field, the rest) of a file; nothing if it does not exist."""
    lines: dict[str, int] = {}
    for line, row in _lines(folder / file) if (folder / file).is_file() else ():
        key, rest = [*row.split(maxsplit=1), ""][:2]
        if lines.setdefault(key, line) != line:
            raise InputError(
                f"{name}/{file}, line {line + 1}: {key!r} is given twice, expected once; delete "
                "the line"
            )
        yield line, key, rest.strip()


def _fields(folder: Path, file: str, name: str) -> dict[str, str]:
    """Return {first field: the rest of its line} of a file; empty if it does not exist."""
    return {key: rest for _, key, rest in _rows(folder, file, name)}


def _sides(folder: Path, name: str) -> dict[str, _Side]:
    """Return the content of `reco2file_and_channel` for each recording."""
    sides = {}
    for line, recording, rest in _rows(folder, SIDES, name):
        fields = rest.split()
        if len(fields) != 2 or not SIDE.fullmatch(fields[1]):
            raise InputError(
                f"{name}/{SIDES}, line {line + 1}: {rest!r} is given for {recording!r}, expected "
                "a file and a channel (A to H, or a number from 1); correct the line"
            )
        code = fields[1]
        index = int(code) - 1 if code.isdecimal() else ord(code) - ord("A")
        sides[_key(recording)] = _Side(fields[0], str(index))
    return sides


def _listed(folder: Path, name: str, sides: Mapping[str, _Side]) -> dict[str, Listed]:
    """Return the content of `wav.scp` for each recording."""
    listed = {}
    for line, recording, path in _rows(folder, "wav.scp", name):
        refusal = ""
        if path == "-" or path.startswith("|") or path.endswith("|"):
            refusal = COMMAND
        elif re.search(r":\d+$", path) and not os.path.isfile(path):
            refusal = ARCHIVE
        place, other_name = f"{name}/wav.scp, line {line + 1}", "" if refusal else Path(path).stem
        listed[_key(recording)] = Listed(path, place, (Path(),), other_name, refusal)
    return {
        session: entry
        if entry.other_name or session not in sides
        else entry._replace(other_name=sides[session].file)
        for session, entry in drop_ambiguous_names(listed).items()
    }


def _choose_channels(
    annotation: Annotation, sides: Mapping[str, _Side], recordings: ListedRecordings
) -> None:
    """Assign to turns the channels from `reco2file_and_channel`; see the module."""
    channels = defaultdict(set)
    for side in sides.values():
        channels[side.file].add(side.channel)
    chosen = {
        session: sides[session].channel
        for session in sorted({turn.session for turn in annotation.turns if not turn.channel})
        if session in sides
        and channels[sides[session].file] != {"0"}
        and not recordings.is_one_channel(session)
    }
    annotation.turns = [
        turn if turn.channel else turn._replace(channel=chosen.get(turn.session, ""))
        for turn in annotation.turns
    ]
    annotation.notes += [
        Note("channel", session, f"turns are read from channel {channel} (from 0), as {SIDES} says")
        for session, channel in chosen.items()
    ]


def _turn(row: list[str], line: int, place: str, directory: _Directory) -> Turn:
    if len(row) not in (4, 5) or (len(row) == 5 and not row[4].isdecimal()):
        raise InputError(
            f"{place}: has {counted(len(row), 'field')}, expected utterance, recording, start, "
            "end and perhaps a channel from 0; delete or correct the line"
        )
    utterance, recording = row[:2]
    first = directory.lines.setdefault(utterance, line)
    if first != line:
        raise InputError(
            f"{place}: {utterance!r} is already given in line {first + 1}, expected once; delete "
            "the line"
        )
    speaker = directory.speakers.get(utterance, "")
    if not speaker or len(speaker.split()) > 1:
        shown = f"{speaker!r}" if speaker else "missing"
        raise InputError(
            f"{place}: speaker of {utterance!r} in {NEEDED} is {shown}, expected one name; correct "
            f"{NEEDED}"
        )
    start, end = (parse_float(row[k], what=w, place=place) for k, w in ((2, "start"), (3, "end")))
    if end == TO_THE_END:
        end = _end(utterance, recording, place, directory)
    text = directory.texts.get(utterance, "")
    channel = str(int(row[4][:4])) if len(row) == 5 else ""
    return Turn(_session(recording), speaker, start, end, line, place, channel, text)


def _end(utterance: str, recording: str, place: str, directory: _Directory) -> float:
    """Return a recording's length (s), from a file of lengths or from the recording."""
    text = directory.seconds.get(recording, directory.seconds.get(utterance, ""))
    if text:
        return parse_float(text, what="duration", place=place)
    seconds = directory.recordings.seconds(_key(recording))
    if seconds is None:
        raise InputError(
            f"{place}: the end of {recording!r} is the recording's, which no reco2dur or utt2dur "
            "says, and the recording is not found, expected its seconds; pass --audio-root with "
            "its folder, or write them with utils/data/get_reco2dur.sh"
        )
    return seconds


def write_kaldi(
    turns: Sequence[Turn], path: str | Path, audio: Mapping[str, Path] | None = None
) -> None:
    """Write turns of any number of sessions as a Kaldi data directory; see the module.

    Parameters
    ----------
    audio
        Session -> recording, for `wav.scp`, which is not written if none is known.

    Raises
    ------
    InputError
        Two names would become one, two turns would have the same utterance id, no id sorts like its
        speaker, or the folder cannot be written.
    """
    folder, written = Path(path), without_blanks(turns, "Kaldi")
    ids = _utterances(written)
    by_utterance = dict(zip(ids, written, strict=True))
    speakers: dict[str, list[str]] = {}
    for utterance in sorted(ids, key=os.fsencode):
        speakers.setdefault(by_utterance[utterance].speaker, []).append(utterance)
    sessions = {new.session: old.session for old, new in zip(turns, written, strict=True)}
    recordings = {new: (audio or {})[old] for new, old in sessions.items() if old in (audio or {})}
    _write_lines(
        folder / "segments", (_segment(utterance, by_utterance[utterance]) for utterance in ids)
    )
    _write_lines(
        folder / NEEDED, (f"{utterance} {by_utterance[utterance].speaker}" for utterance in ids)
    )
    _write_lines(folder / "spk2utt", (f"{who} {' '.join(own)}" for who, own in speakers.items()))
    if any(turn.text for turn in turns):
        texts = (f"{utterance} {by_utterance[utterance].text}" for utterance in ids)
        _write_lines(folder / "text", map(str.strip, texts))
    if not recordings:
        log(f"{folder}: no wav.scp, since no recordings are known; pass --audio-root for one")
    else:
        _write_lines(folder / "wav.scp", (_recording(*item) for item in recordings.items()))


def _utterances(turns: Sequence[Turn]) -> list[str]:
    """Return for each turn an id that sorts like its speaker."""
    for sign in SIGNS:
        ids = [_utterance(turn, sign) for turn in turns]
        speakers = dict(zip(ids, (turn.speaker for turn in turns), strict=True))
        if len(speakers) < len(ids):
            double = next(name for name, count in Counter(ids).items() if count > 1)
            raise InputError(
                f"Kaldi: 2 turns have the id {double!r}, expected different times; delete one"
            )
        in_order = [speakers[name] for name in sorted(ids, key=os.fsencode)]
        if in_order == sorted(in_order, key=os.fsencode):
            return ids
    later = next(k for k in range(1, len(in_order)) if in_order[k] < in_order[k - 1])
    raise InputError(
        f"Kaldi: utterances of {in_order[later - 1]!r} and {in_order[later]!r} sort otherwise than "
        "the speakers, expected names that do not begin alike; rename one"
    )


def _utterance(turn: Turn, sign: str) -> str:
    start, end = milliseconds(turn)
    channel = f"-{turn.channel}" if turn.channel else ""
    return f"{turn.speaker}{sign}{turn.session}-{start:0{DIGITS}}-{end:0{DIGITS}}{channel}"


def _segment(utterance: str, turn: Turn) -> str:
    times = " ".join(map(decimal_seconds, microseconds(turn)))
    return f"{utterance} {turn.session} {times} {turn.channel}".rstrip()


def _recording(session: str, file: Path) -> str:
    if str(file).endswith("|") or "\n" in str(file):
        raise InputError(
            f"{file}: ends in '|', which Kaldi takes for a command, expected a plain name; rename "
            "it"
        )
    return f"{session} {file}"


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines sorted by their first field, as bytes."""
    rows = sorted((line.encode() for line in lines), key=lambda row: row.split(b" ")[0])
    atomic_write(path, b"".join(row + b"\n" for row in rows))
