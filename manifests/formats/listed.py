"""Find the recordings that an annotation itself lists (Kaldi's `wav.scp`, NeMo's `audio_filepath`).

Without ``--audio-root``, a recording is where the list says; a relative path starts from the
folders that its format prescribes. ``--audio-root`` takes precedence over the list. Below it, three
names are tried: the same relative path; then a file with the session's name, as for formats without
a list; then a file with the name from the list, if the list gives that name to no other file and no
other session has that file. Absolute paths in the list are then not used. Commands are never run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from ...common.audio.decoding import read_header
from ...common.counts import counted
from ...common.errors import InputError
from .pairing import LEAVE_OUT, Pairing, pair
from .turns import Listed, audio_seconds

COMMAND = "a command, which is never run"
ARCHIVE = "a place in an archive"
SHOWN = 60  # characters of a command that a message shows


def locate(
    sessions: Iterable[str], listed: Mapping[str, Listed], audio_root: str | Path | None
) -> Pairing:
    """Return each session's recording; the module describes where it is looked for.

    Parameters
    ----------
    sessions
        As annotated.
    listed
        The locations of their recordings according to the annotation.
    audio_root
        Folder to search instead; None: only the list counts.

    Raises
    ------
    InputError
        There is no such folder, it holds no recording, or a session has two.
    """
    names = sorted(set(sessions))
    if audio_root is None:
        files = {name: listed[name].file for name in names if name in listed}
        recordings = {name: file for name, file in files.items() if file is not None}
        return Pairing(recordings, [name for name in names if name not in recordings], [], {})
    root = Path(audio_root)
    recordings = {name: root / listed[name].path for name in names if _is_below(name, listed, root)}
    pairing = pair(root, [name for name in names if name not in recordings])
    recordings |= pairing.recordings
    recordings |= _by_other_name(root, listed, pairing, {*recordings.values()})
    files_used = {*recordings.values()}
    return Pairing(
        {name: recordings[name] for name in names if name in recordings},
        [name for name in names if name not in recordings],
        [file for file in pairing.spare if file not in files_used],
        pairing.unread,
    )


def _by_other_name(
    root: Path, listed: Mapping[str, Listed], pairing: Pairing, files_used: set[Path]
) -> dict[str, Path]:
    """Return missing sessions' recordings that have the name from their list, and are unclaimed."""
    names = {n: listed[n].other_name for n in pairing.missing if n in listed}
    names = {session: name for session, name in names.items() if name}
    files = pair(root, names.values()).recordings if names else {}
    free = {*pairing.spare} - files_used
    return {s: files[name] for s, name in names.items() if files.get(name) in free}


def _is_below(session: str, listed: Mapping[str, Listed], root: Path) -> bool:
    """Return whether the relative path listed for a session leads to a file below `root`."""
    if session not in listed or listed[session].refusal or os.path.isabs(listed[session].path):
        return False
    return os.path.isfile(root / listed[session].path)


def drop_ambiguous_names(listed: Mapping[str, Listed]) -> dict[str, Listed]:
    """Return listed recordings without those other names that several different paths share.

    >>> listed = {s: Listed(f"{s}/mix.wav", "", (), "mix") for s in ("S1", "S2")}
    >>> [entry.other_name for entry in drop_ambiguous_names(listed).values()]
    ['', '']
    """
    paths: dict[str, set[str]] = {}
    for entry in listed.values():
        paths.setdefault(entry.other_name, set()).add(entry.path)
    return {
        session: entry._replace(other_name="") if len(paths[entry.other_name]) > 1 else entry
        for session, entry in listed.items()
    }


def missing_error(
    pairing: Pairing,
    listed: Mapping[str, Listed],
    turns: Mapping[str, int],
    otherwise: str = LEAVE_OUT,
) -> InputError:
    """Return the error for sessions whose recordings are not listed, or not where listed."""
    session = pairing.missing[0]
    every = len(pairing.missing) + len(pairing.recordings)
    without = (
        f"{counted(len(pairing.missing), 'annotated session', 'has', of=every)} no recording, "
        f"first {session!r} with {counted(turns[session], 'turn')}"
    )
    if session not in listed:
        return InputError(
            f"{next(iter(listed.values())).place.split(',')[0]}: does not list session "
            f"{session!r}, expected its recording ({without}); add it, or pass --audio-root with "
            f"the folder of the recordings{otherwise}"
        )
    entry = listed[session]
    long = entry.refusal and len(entry.path) > SHOWN
    path = f"{entry.path[: SHOWN - 3]}..." if long else entry.path
    return InputError(
        f"{entry.place}: {path!r} is {entry.refusal or 'not there'}, expected the path of a "
        f"recording ({without}); {_repair(session, entry)}{otherwise}"
    )


def _repair(session: str, entry: Listed) -> str:
    """Return how to put a recording where it is found."""
    if entry.refusal:
        made = "write what it prints to" if entry.refusal == COMMAND else "write it as"
        return f"{made} FOLDER/{session}.wav and pass --audio-root FOLDER"
    relative = "" if os.path.isabs(entry.path) else "run spk where the path starts from, "
    return f"correct it, {relative}or pass --audio-root with the folder of the recordings"


class ListedRecordings:
    """The recordings of an annotation, searched for when one is first needed.

    Parameters
    ----------
    listed, audio_root
        As for `locate`.
    sessions
        Those whose recordings may be needed.
    """

    def __init__(
        self,
        listed: Mapping[str, Listed],
        sessions: Iterable[str],
        audio_root: str | Path | None,
    ) -> None:
        self._listed, self._sessions, self._audio_root = listed, {*sessions}, audio_root

    @cached_property
    def _files(self) -> dict[str, Path]:
        return locate(self._sessions, self._listed, self._audio_root).recordings

    @cached_property
    def _uses(self) -> Counter[Path]:
        return Counter(self._files.values())

    def seconds(self, session: str) -> float | None:
        """Return the length of a session's recording (s), or None if there is none.

        Raises
        ------
        InputError
            It cannot be read.
        """
        return audio_seconds(self._files[session]) if session in self._files else None

    def is_one_channel(self, session: str) -> bool:
        """Return whether a session has a recording of its own with a single channel."""
        try:
            file = self._files[session]
            return self._uses[file] == 1 and read_header(file).channels == 1
        except (KeyError, InputError):
            return False  # reported when the recording is needed
