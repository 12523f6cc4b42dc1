"""The path of a table: ``.csv`` or ``.parquet``, and what was named in its place.

A folder, a recording or an annotation where a table is meant is told as what it is, with what to do
with it.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...common.audio.containers import SUFFIXES as RECORDINGS
from ...common.errors import InputError
from .kinds import Kind, kind_of

SUFFIXES = (".csv", ".parquet")
TABLE_MAKER = "spk-manifests rttm, textgrid or csv"
HEAD = 20_000  # bytes of a file by which its kind is told


def input_suffix(path: Path) -> str:
    """Return the suffix of a table that is to be read, or raise `InputError`.

    A file with another suffix is told as what its text says that it is, and not to be renamed.
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
    """Return what a file's text says that it is, or None."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                return kind_of(file.read(HEAD).decode(errors="replace"), path)
    except OSError:  # the suffix alone is told
        pass
    return None


def _no_table(path: Path) -> InputError:
    """Return what is said of a folder given as a table, or of what is not there."""
    if not os.path.isdir(path):
        return InputError(f"{path}: no such file, expected a .csv or .parquet; correct the path")
    kinds = {"store.json": "a store", "model.json": "a model", "cells.jsonl": "a sweep"}
    kind = next((kind for mark, kind in kinds.items() if (path / mark).is_file()), "a folder")
    inside = [name for name in ("predictions.csv", "segments.csv") if (path / name).is_file()]
    repair = f"name {path / inside[0]}" if inside else "name the table itself"
    return InputError(f"{path}: is {kind}, expected a table, .csv or .parquet; {repair}")
