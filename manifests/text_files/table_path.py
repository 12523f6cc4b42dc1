"""The path of a table, ``.csv`` or ``.parquet``, and errors for anything else.

A folder, a recording or an annotation given instead of a table is identified as such, with what to
do with it.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...common.audio.containers import SUFFIXES as RECORDINGS
from ...common.errors import InputError
from .kinds import Kind, kind_of

SUFFIXES = (".csv", ".parquet")
TABLE_MAKER = "spk-manifests rttm, textgrid or csv"
HEAD = 20_000  # bytes that are read to identify a file


def input_suffix(path: Path) -> str:
    """Return the suffix of a table to be read, or raise `InputError`.

    A file with another suffix is identified by its text, so that nobody is told just to rename it.
    """
    if os.path.isdir(path) or not (path.suffix or os.path.isfile(path)):
        raise _no_table(path)
    suffix = path.suffix.lower()
    kind = None if suffix in (*SUFFIXES, *RECORDINGS) else _kind_of_file(path)
    if kind is not None:
        raise InputError(
            f"{path}: is {kind.name}, expected a table, .csv or .parquet; {kind.repair}"
        )
    return table_suffix(path)


def table_suffix(path: Path) -> str:
    """Return the suffix of a table in lower case, or raise `InputError`."""
    suffix = path.suffix.lower()
    if suffix in RECORDINGS:
        raise InputError(
            f"{path}: is a recording by its suffix, expected a table, .csv or .parquet; name the "
            f"table ({TABLE_MAKER} makes one)"
        )
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: suffix is {suffix!r}, expected .csv or .parquet; rename it")
    return suffix


def _kind_of_file(path: Path) -> Kind | None:
    """Return the kind of a file, judging by its text, or None."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                return kind_of(file.read(HEAD).decode(errors="replace"), path)
    except OSError:  # the suffix alone is told
        pass
    return None


def _no_table(path: Path) -> InputError:
    """Return the error for a folder given as a table, or a missing file."""
    if not os.path.isdir(path):
        return InputError(f"{path}: no such file, expected a .csv or .parquet; correct the path")
    kinds = {"store.json": "a store", "model.json": "a model", "cells.jsonl": "a sweep"}
    kind = next((kind for mark, kind in kinds.items() if (path / mark).is_file()), "a folder")
    inside = [name for name in ("predictions.csv", "segments.csv") if (path / name).is_file()]
    repair = f"name {path / inside[0]}" if inside else "name the table itself"
    return InputError(f"{path}: is {kind}, expected a table, .csv or .parquet; {repair}")
