"""What lies near a file: the rows of a table, its recordings, and the table of predictions.

A command that ends says with it what may be typed next; a file that is not as expected is passed
over, as if it were not there.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

MOST_ROWS = 1000  # of a table that are looked at
MOST_FOLDERS = 500  # near a table in which its audio is looked for
MOST_FILES = 50  # near predictions among which their table is looked for
DEEPEST = 3  # folders below the table's


def first_rows(path: object) -> list[dict[str, Any]]:
    """Return some rows of a segment table of ours, or nothing where it is none."""
    text = str(path)
    try:
        if text.endswith(".parquet"):
            from pyarrow.parquet import ParquetFile

            batches = ParquetFile(text).iter_batches(MOST_ROWS)
            return next((batch.to_pylist() for batch in batches), [])
        with open(text, encoding="utf-8-sig", newline="") as file:
            return list(islice(csv.DictReader(file), MOST_ROWS))
    except (OSError, ValueError, csv.Error):  # of another kind, or gone
        return []


def audio_folder(table: str) -> str | None:
    """Return the folder that a table's audio is in, near the table; "" where it needs none.

    None where it is not found, or the table is none of ours.
    """
    audio = next((str(row["audio"]) for row in first_rows(table) if row.get("audio")), "")
    if os.path.isabs(audio):
        return ""
    folder = folder_with(audio, Path(table).parent) if audio else None
    return None if folder is None else str(folder)


def folder_with(file: str, start: Path) -> Path | None:
    """Return the nearest folder, `start` or below it, in which a file lies, or None."""
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
    """Return the only table in the folder of predictions, or the one above, that is theirs.

    Theirs has a split, which in no row that is looked at is another one.
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
