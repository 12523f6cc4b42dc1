"""Read clips of known voices: a folder for each person, ``FOLDER/NAME/*.wav``.

The folder's name is the speaker's, each file is one segment from start to end, and all are of split
``train``. Audio with any decodable suffix is read; other files and deeper folders are skipped, and
reported. Folders whose names differ only in how accents are encoded are refused, since nobody can
see the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.audio.containers import SUFFIXES
from ...common.counts import agree, counted
from ...common.errors import InputError
from ...common.names import normal_name
from ..table import check_table, segment_id
from .turns import audio_seconds, check_name

if TYPE_CHECKING:
    import pandas as pd


FEWEST = 2  # persons; with one alone, every voice would get that name


def read_clips(
    folder: str | Path, *, log: Callable[[str], object] = lambda line: None
) -> pd.DataFrame:
    """Return the segment table of a folder of clips; paths are relative to it.

    Parameters
    ----------
    folder
        Has a folder for each person with their recordings.
    log
        Receives a line on what was skipped.

    Raises
    ------
    InputError
        There is no such folder, it has clips of fewer than two persons, a person's folder has
        none or an unusable name, two folders have the same name, or a file cannot be decoded.
    """
    import pandas as pd

    root = Path(folder)
    if not root.is_dir():
        raise InputError(
            f"{folder}: is no folder, expected FOLDER/NAME/*.wav, a folder for each person; "
            "correct --clips"
        )
    persons = [path for path in _visible(root) if path.is_dir()]
    rows, others = [], [path.name for path in _visible(root) if not path.is_dir()]
    for person in persons:
        files = [path for path in _visible(person) if path.is_file()]
        clips = [path for path in files if path.suffix.lower() in SUFFIXES]
        others += [f"{person.name}/{path.name}" for path in _visible(person) if path not in clips]
        if not clips:
            raise InputError(
                f"{person}: holds 0 recordings, expected at least 1 of {person.name!r}; add "
                "one, or move the folder away"
            )
        rows += [_row(root, clip) for clip in clips]
    if len(persons) < FEWEST:
        raise InputError(
            f"{folder}: holds clips of {counted(len(persons), 'person')}, expected {FEWEST} or "
            "more as FOLDER/NAME/*.wav; add a folder for each person"
        )
    _check_apart(root, [person.name for person in persons], log)
    if others:
        log(
            f"{folder}: {len(others)} {agree(len(others), 'entry is', 'entries are')} passed over, "
            f"first {others[0]!r}"
        )
    return check_table(pd.DataFrame(rows), where=str(folder))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _check_apart(root: Path, names: list[str], log: Callable[[str], object]) -> None:
    """Refuse two names with the same normal form; log two that differ only in capitals."""
    persons: dict[str, str] = {}
    lower: dict[str, str] = {}
    for name in names:
        normal = normal_name(name)
        if (first := persons.setdefault(normal, name)) != name:
            raise InputError(
                f"{root}: {first!a} and {name!a} are the same name, expected a folder for each "
                "person; move the clips of one to the other, or rename it"
            )
        if (first := lower.setdefault(normal.casefold(), normal)) != normal:
            log(f"{root}: {first!r} and {normal!r} differ by capitals alone, and are two persons")


def _row(root: Path, clip: Path) -> dict[str, object]:
    """Return the row of a clip, which is its own session."""
    name = clip.relative_to(root).as_posix()
    place, repair = str(clip.parent), "rename the folder"
    speaker = check_name(clip.parent.name, what="name", place=place, repair=repair)
    seconds = audio_seconds(clip)
    if not seconds:
        raise InputError(f"{clip}: holds 0 samples, expected a recording; replace or delete it")
    return {
        "segment_id": segment_id(clip.name, speaker, 0.0, seconds),
        "audio": name,
        "start": 0.0,
        "end": seconds,
        "speaker": speaker,
        "session": name,
        "split": "train",
    }
