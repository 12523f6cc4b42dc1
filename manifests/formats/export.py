"""Write the turns of a segment table as another format.

Speakers are written as they were annotated: a label that begins with its session (``S1_A``) loses
that prefix, unless the rest is another speaker's label in the session, or full labels are
requested. Times are the table's, so a turn that was cut at its recording's end is written that way.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...common.counts import counted
from ..splits.overlap import check_timeline
from ..table import check_table
from .registry import write_turns

if TYPE_CHECKING:
    import pandas as pd


def export_table(
    table: pd.DataFrame,
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    audio_root: str | Path | None = None,
    full_labels: bool = False,
) -> str:
    """Write the turns of a segment table in one of the formats.

    Parameters
    ----------
    table
        A segment table whose sessions have one recording each.
    path, format
        As for `write_turns`.
    audio_root
        Folder that the table's relative paths start from. With it, or if paths are absolute,
        formats that list recordings (lhotse, Kaldi, NeMo, CSV) do so.
    full_labels
        Write speakers as in the table.

    Returns
    -------
    str
        The number of files, in words.

    Raises
    ------
    InputError
        The table is of cut files, which have no times in their session; or as for `write_turns`.
    """
    table = check_table(table)
    check_timeline(table)
    speakers = table["speaker"] if full_labels else local_speakers(table)
    turns = table[["session", "start", "end"]].assign(speaker=speakers)
    for name in ("channel", "text"):
        if name in table:
            turns[name] = table[name].astype("str")
    files = table.drop_duplicates("session").set_index("session")["audio"]
    audio = {
        session: Path(audio_root or "", file)
        for session, file in files.items()
        if audio_root is not None or Path(file).is_absolute()
    }
    written = write_turns(turns, path, format, audio=audio)
    what = "folder" if written and written[0].is_dir() else "file"
    return counted(len(written), what)


def local_speakers(table: pd.DataFrame) -> pd.Series:
    """Return each row's speaker without its session prefix, if that remains unambiguous.

    Parameters
    ----------
    table
        Columns session and speaker.

    Returns
    -------
    Series
        Names, with the table's index.
    """
    pairs = table[["session", "speaker"]].drop_duplicates()
    names: dict[tuple[str, str], str] = {}
    for session, group in pairs.groupby("session")["speaker"]:
        labels = set(group)
        for label in labels:
            local = label.removeprefix(f"{session}_")
            names[session, label] = label if not local or local in labels - {label} else local
    keys = zip(table["session"], table["speaker"], strict=True)
    return table.assign(speaker=[names[key] for key in keys])["speaker"]
