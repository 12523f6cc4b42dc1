"""Turn clips of known people into voices: ``FOLDER/NAME/*.wav``.

A clip has the speech of one person only, in any container that libsndfile reads, at any sample
rate. For calibration each clip counts as a session, and is left out by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...common.audio.containers import SUFFIXES, UNREAD, conversion
from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import list_files
from ...common.log import log as log_info
from ...common.log import warn
from ...common.names import normal_name
from ...extract.options import ExtractOptions
from ...extract.run import extract
from ...manifests.formats.turns import audio_seconds
from ...manifests.table import check_table
from .enrolment import Log, enrol
from .extraction import features_like, recording_hash, store_name
from .options import DEFAULT_ENCODER
from .voices import Voices, check_person

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 8.0  # s; a longer clip is several segments


def enrol_clips(
    folder: str | Path,
    cache: str | Path,
    *,
    voices: Voices | None = None,
    encoder: str | None = None,
    layer: int | None = None,
    log: Log = log_info,
) -> Voices:
    """Enrol people from clips of their speech alone, ``FOLDER/NAME/*.wav``, under these names.

    Any container that libsndfile reads is accepted, at any sample rate; each clip counts as a
    session for calibration.

    Parameters
    ----------
    cache
        Folder that keeps the features for the next run.
    encoder
        Hub id, folder, ``small`` or ``mfcc``; None: that of `voices`, or `DEFAULT_ENCODER`.
    voices, layer, log
        As for `enrol`.

    Raises
    ------
    InputError
        There are no such clips, one cannot be read, or as for `enrol`.
    """
    table = clips_table(folder)
    root = str(Path(folder).absolute())
    if voices is not None:
        store = features_like(voices, table, cache, encoder=encoder, log=log, audio_root=root)
    else:
        new = ExtractOptions(
            encoder=encoder or DEFAULT_ENCODER,
            layers="all" if layer is None else str(layer),
            audio_root=root,
            resample=True,
        )
        store = extract(table, Path(cache, store_name("", new)), new, log=log)
    return enrol(table, store, voices=voices, layer=layer, audio_root=folder, log=log)


def clips_table(folder: str | Path) -> pd.DataFrame:
    """Return the segment table of clips ``FOLDER/NAME/*.wav``; long clips are several segments.

    Raises
    ------
    InputError
        There is no such folder, clip or name, or a clip cannot be read, so that no voice is missing
        unnoticed.
    """
    import pandas as pd

    root, rows = Path(folder), list[dict[str, object]]()
    if not root.is_dir():
        raise InputError(
            f"{folder}: is not a folder, expected one with a folder of clips for each person; "
            "correct the path"
        )
    for file in list_files(root, UNREAD):
        raise InputError(f"{file}: is of a kind that is not decoded; {conversion(str(file))}")
    for file in list_files(root, SUFFIXES):
        path = file.relative_to(root)
        if len(path.parts) < 2:
            raise InputError(
                f"{file}: lies in no person's folder, expected {folder}/NAME/{file.name}; move it"
            )
        name = normal_name(path.parts[0])
        check_person(name, str(file))
        rows += _clip_rows(path, name, audio_seconds(file), recording_hash(file))
    _tell_deeper(root, [Path(str(row["audio"])) for row in rows])
    if not rows:
        raise InputError(
            f"{folder}: holds 0 recordings, expected {folder}/NAME/*.wav; correct the path"
        )
    return check_table(pd.DataFrame(rows))


def _tell_deeper(root: Path, clips: Sequence[Path]) -> None:
    """Warn of persons whose clips all lie in several subfolders: these may be the persons."""
    below: dict[str, set[str]] = {}
    for clip in clips:
        below.setdefault(clip.parts[0], set()).add(clip.parts[1] if len(clip.parts) > 2 else "")
    deeper = [name for name, folders in below.items() if len(folders) > 1 and "" not in folders]
    if deeper:
        first = min(below[deeper[0]])
        warn(
            f"{root}: all clips of {counted(len(deeper), 'person', of=len(below))} lie in folders "
            f"of folders, first {deeper[0]}/{first}; if {first!r} is a person, name "
            f"{root / deeper[0]}"
        )


def _clip_rows(path: Path, name: str, seconds: float, content: str) -> list[dict[str, object]]:
    ends = np.linspace(0, seconds, max(1, round(seconds / LONGEST)) + 1)
    return [
        {
            "segment_id": f"{path.as_posix()} {content} {start:.3f}",
            "audio": path.as_posix(),
            "start": start,
            "end": end,
            "speaker": name,
            "session": path.as_posix(),
            "overlap": 0.0,
        }
        for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    ]
