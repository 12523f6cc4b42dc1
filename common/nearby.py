"""Find files near a file: a table's first rows, its recordings, the table of predictions.

Used to suggest the next command, so files that are not as expected are skipped silently.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

MOST_ROWS = 1000  # rows of a table that are read
MOST_FOLDERS = 500  # folders searched for a table's audio
MOST_FILES = 50  # files searched for the table of predictions
DEEPEST = 3  # folders below the table's


def first_rows(path: object) -> list[dict[str, Any]]:
    """Return the first rows of a segment table of ours, or nothing if it is not one."""
    text = str(path)
    try:
        if text.endswith(".parquet"):
            from pyarrow.parquet import ParquetFile

            batches = ParquetFile(text).iter_batches(MOST_ROWS)
            return next((batch.to_pylist() for batch in batches), [])
        with open(text, encoding="utf-8-sig", newline="") as file:
            return list(islice(csv.DictReader(file), MOST_ROWS))
    except (OSError, ValueError, csv.Error):  # another kind of file, or gone
        return []


def audio_folder(table: str) -> str | None:
    """Return the folder near the table that holds its audio; "" if the table needs none.

    None if it is not found, or the file is not a table of ours.
    """
    audio = next((str(row["audio"]) for row in first_rows(table) if row.get("audio")), "")
    if os.path.isabs(audio):
        return ""
    folder = folder_with(audio, Path(table).parent) if audio else None
    return None if folder is None else str(folder)


def folder_with(file: str, start: Path) -> Path | None:
    """Return the nearest folder, `start` or one below it, that contains a file, or None."""
    folders = islice(_folders(start), MOST_FOLDERS)
    return next((folder for folder in folders if os.path.isfile(folder / file)), None)


def _folders(start: Path) -> Iterator[Path]:
    """Yield a folder and those below it, the nearest first."""
    level = [start]
    for _ in range(DEEPEST + 1):
        yield from level
        below: Sequence[Path] = []
        for folder in level:
            try:
                below = [*below, *sorted(path for path in folder.iterdir() if path.is_dir())]
            except OSError:
                continue
        level = list(below)


def table_of(predictions: str) -> str | None:
    """Return the only table that matches predictions, in their folder or the one above, or None.

    A table matches if its first rows have the same splits as the predictions.
    """
    splits = {row.get("segment_id"): row.get("split") for row in first_rows(predictions)}
    above = Path(os.path.abspath(predictions)).parents[:2]
    files = [Path(os.path.relpath(file)) for folder in above for file in _tables(folder)]
    ours = [file for file in files[:MOST_FILES] if _is_divided_so(file, splits)]
    return str(ours[0]) if len(ours) == 1 else None


def _tables(folder: Path) -> list[Path]:
    try:
        files = [file for file in folder.iterdir() if file.suffix in (".csv", ".parquet")]
        return sorted(file for file in files if file.is_file())  # a pipe would be waited for
    except OSError:
        return []


def _is_divided_so(table: Path, splits: dict[Any, Any]) -> bool:
    """Return whether a segment table holds segments, all of them with these splits."""
    rows = [row for row in first_rows(table) if row.get("segment_id") in splits]
    of_segments = all(row.get("audio") and "predicted" not in row for row in rows)
    return (
        bool(rows) and of_segments and all(r.get("split") == splits[r["segment_id"]] for r in rows)
    )
