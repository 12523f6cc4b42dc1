"""Match recordings to annotated sessions by name.

Names are compared by `normal_name`. Sessions and recordings without a partner are reported, with
the recording that is probably meant and the command that renames it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from ...common.audio.containers import SUFFIXES, UNREAD, UNSURE, conversion
from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import list_files
from ...common.names import normal_name
from .turns import Note

LEAVE_OUT = ", or pass --allow-unpaired to leave such sessions out"
SHOWN = 3  # names per side that a message lists
ALIKE = 0.8  # `difflib` ratio from which one name may be a typo of another


class Pairing(NamedTuple):
    """Recordings by session, and sessions and recordings without a partner."""

    recordings: dict[str, Path]  # session as annotated: file
    missing: list[str]  # annotated sessions without recording
    spare: list[Path]  # recordings without annotation
    unread: dict[str, Path]  # session of `missing`: a file of that name we cannot decode


def pair(audio_root: str | Path, sessions: Iterable[str]) -> Pairing:
    """Find each annotated session's recording below a folder, by file name.

    Raises
    ------
    InputError
        There is no such folder, it holds no recording, or a session has two.
    """
    root = Path(audio_root)
    if not os.path.isdir(root):  # Path.is_dir raises if a name is too long for the file system
        raise InputError(
            f"{audio_root}: is not a folder, expected the recordings'; correct the path"
        )
    sure, unsure, unread = (_by_name(root, kinds) for kinds in (SUFFIXES, UNSURE, UNREAD))
    by_name = {**unsure, **sure}
    wanted = sorted(set(sessions))
    if wanted:
        _check_any(root, by_name, unread)
    recordings, missing = {}, []
    for session in wanted:
        files = by_name.pop(normal_name(session), [])
        if len(files) > 1:
            raise InputError(
                f"{audio_root}: session {session!r} has {counted(len(files), 'recording')}, "
                f"{' and '.join(_below(root, file) for file in files)}, expected 1; move one away"
            )
        if files:
            recordings[session] = files[0]
        else:
            missing.append(session)
    unread_files = {s: unread[normal_name(s)][0] for s in missing if normal_name(s) in unread}
    return Pairing(
        recordings, missing, [f for files in by_name.values() for f in files], unread_files
    )


def _by_name(root: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    by_name: dict[str, list[Path]] = {}
    for file in list_files(root, tuple(suffixes)):
        by_name.setdefault(normal_name(file.stem), []).append(file)
    return by_name


def _check_any(
    root: Path, recordings: Mapping[str, object], unread: Mapping[str, Sequence[Path]]
) -> None:
    if recordings:
        return
    files = [file for files in unread.values() for file in files]
    if files:
        raise InputError(
            f"{root}: holds 0 recordings that are read and {len(files)} that are not, first "
            f"{_below(root, files[0])!r}, expected one per session; {conversion(str(files[0]))}"
        )
    raise InputError(
        f"{root}: holds 0 recordings ({SUFFIXES[0]}, .flac, .mp3 or another "
        "suffix that libsndfile reads), expected one per session; correct the audio folder"
    )


def unpaired_notes(
    pairing: Pairing, audio_root: str | Path, turns: Mapping[str, int], *, left_out: bool
) -> list[Note]:
    """Return a note for everything without a partner; `left_out`: the turns are dropped."""
    root = Path(audio_root)
    notes = []
    for session in pairing.missing:
        likely = likely_recording(session, pairing.spare)
        hint = f"; likely {_below(root, likely)}" if likely else ""
        if session in pairing.unread:
            hint = f"; {_below(root, pairing.unread[session])} is of a kind that is not decoded"
        done = (
            f"{counted(turns[session], 'turn')} left out"
            if left_out
            else counted(turns[session], "turn")
        )
        kind = "dropped" if left_out else "unpaired"
        notes.append(Note(kind, session, f"annotation without a recording, {done}{hint}"))
    return notes + [
        Note(
            "unpaired",
            normal_name(file.stem),
            f"recording without annotation, {_below(root, file)}",
        )
        for file in pairing.spare
    ]


def unpaired_error(
    pairing: Pairing,
    audio_root: str | Path,
    turns: Mapping[str, int],
    *,
    place: str = "",
    otherwise: str = LEAVE_OUT,
) -> InputError:
    """Return the error for annotated sessions that have no recording.

    `place` is where the first of them is annotated; `otherwise` ends the message with what to do
    instead of adding one.
    """
    root, session = Path(audio_root), pairing.missing[0]
    every = len(pairing.missing) + len(pairing.recordings)
    more = f" and {_some(pairing.missing[1:])}" if pairing.missing[1:] else ""
    begun = f", the first in {place}" if place else ""
    spare = _some([f"{f.stem!r} ({_below(root, f)})" for f in pairing.spare]) or "none"
    return InputError(
        f"{audio_root}: {counted(len(pairing.missing), 'annotated session', 'has', of=every)} no "
        f"recording, first {session!r} ({counted(turns[session], 'turn')}{begun}){more}, expected "
        f"{session}.wav or the like; recordings without annotation: {spare}; "
        f"{_repair(pairing, session)}{otherwise}"
    )


def _repair(pairing: Pairing, session: str) -> str:
    if session in pairing.unread:
        file = pairing.unread[session]
        return f"{file.name} is of a kind that is not decoded: {conversion(str(file))}"
    likely = likely_recording(session, pairing.spare)
    if likely is None:
        return "add the recording or correct its name"
    target = likely.with_name(session + likely.suffix)
    return f"if {likely.name} is meant, type `mv {_quoted(likely)} {_quoted(target)}`"


def _quoted(file: Path) -> str:
    text = shlex.quote(str(file))
    return f"./{text}" if text.startswith("-") else text


def likely_recording(session: str, spare: Sequence[Path]) -> Path | None:
    """Return the recording that is probably meant for a session, if exactly one qualifies.

    Its name begins with the session's name (or the reverse), followed by punctuation, or differs by
    a typo. Numbers must agree, since they are often all that tells meetings apart.

    >>> likely_recording("ES2002a", [Path("ES2002a.Mix-Headset.wav"), Path("ES2002b.wav")]).name
    'ES2002a.Mix-Headset.wav'
    >>> likely_recording("S1", [Path("S10.wav"), Path("S2.wav")])
    """
    name = normal_name(session).casefold()
    names = {file: normal_name(file.stem).casefold() for file in spare}
    begun = [f for f, other in names.items() if _begins(name, other) or _begins(other, name)]
    if begun:
        return begun[0] if len(begun) == 1 else None
    numbers = re.findall(r"\d+", name)
    close = get_close_matches(name, names.values(), n=2, cutoff=ALIKE)
    close = [other for other in close if re.findall(r"\d+", other) == numbers]
    alike = [file for file, other in names.items() if other in close]
    return alike[0] if len(alike) == 1 else None


def _begins(name: str, other: str) -> bool:
    rest = other[len(name) :]
    return other.startswith(name) and not rest[:1].isalnum()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _below(root: Path, file: Path) -> str:
    text = file.relative_to(root).as_posix()
    return text.encode(errors="backslashreplace").decode()  # a name may be any bytes
