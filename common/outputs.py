"""Protect files from being overwritten: inputs never, existing outputs only with ``--overwrite``.

An output file may already exist with the same content; one with other content is replaced, in one
atomic step, only with ``--overwrite``. `check_place` refuses bad outputs before any work is done;
`has_to_be_written` refuses to replace other content once the new content is known.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from .errors import InputError, explain_write_errors

OURS = ("store.json", "model.json")  # a folder with one of these is a store or a model, no more
# The file that identifies each kind of output folder: {file name: kind}.
MARKS = {
    "store.json": "a store",
    "model.json": "a model",
    "cells.jsonl": "a sweep",
    "cut.json": "cut segments",
    "naming.json": "a named diarization",
    "link.json": "linked labels",
    "audit.json": "an audit",
}
TABLE = (".csv", ".parquet")
MEASURES = (".csv", ".json")
# Files written beside a segment table and their first bytes; a file that begins otherwise is the
# user's own.
BESIDE_TABLE = {".notes.csv": b"kind,place,message", ".split.json": b'{\n "method": '}
# The record of corrections, beside the corrected table.
BESIDE_CORRECTED = {".corrections.json": b'{\n "corrections": '}
# Files written beside a store.
BESIDE_STORE = {".rejected.csv": b"segment_id,code,message"}

_protected: ContextVar[frozenset[Path]] = ContextVar("_protected", default=frozenset())


@dataclass(frozen=True)
class Output:
    """An output file or folder, named by one of the command's parameters.

    Attributes
    ----------
    name : str
        The parameter.
    suffixes : tuple of str
        Allowed file suffixes; empty: any.
    folder : bool
        The output is a folder; the command checks its content.
    mark : str
        The file of `MARKS` that identifies this command's folders; other kinds are refused.
    inside : str
        Name of the file written inside the folder that the parameter names.
    over : tuple of str
        Inputs that may also be the output with ``--overwrite``, since they are read first.
    beside : {suffix: first bytes}
        Companion files, replaced and removed along with the output if they begin like this.
    form : bytes
        First bytes of a file that this command wrote earlier and may always replace.
    either : bool
        The output is a file or a folder, as the command's other arguments have it.
    owned : bool
        The command decides itself whether it may replace what is there.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    folder: bool = False
    mark: str = ""
    inside: str = ""
    over: tuple[str, ...] = ()
    beside: Mapping[str, bytes] = field(default_factory=dict)
    form: bytes = b""
    either: bool = False
    owned: bool = False

    def path(self, value: str | Path) -> Path:
        """Return the path that is written when the parameter is `value`."""
        return Path(value, self.inside) if self.inside else Path(value)


def check_place(
    path: Path, output: Output, inputs: Mapping[str, Sequence[Path]], *, overwrite: bool = False
) -> None:
    """Check an output path before any work is done.

    Parameters
    ----------
    inputs
        Paths that the command reads, keyed by the parameter's name in the help text.

    Raises
    ------
    InputError
        The path is an input or lies inside an input store or model; it is a folder where a file is
        expected, or the reverse; it has the wrong suffix; it cannot be created; or a companion file
        is the user's own.
    """
    folder = output.folder or (output.either and os.path.isdir(path))
    check_kind(path, folder=folder, suffixes=output.suffixes)
    if folder:
        _check_mark(path, output.mark)
    for name, paths in inputs.items():
        for source in paths:
            allowed = name.lower() in output.over and not output.inside
            _check_input(path, name, source, overwrite=overwrite, allowed=allowed)
    for suffix, start in output.beside.items():
        _check_beside(Path(f"{path}{suffix}"), path, start)
    if output.form and os.path.isfile(path) and not overwrite and not _begins(path, output.form):
        raise InputError(_other_content(path))


def check_kind(path: Path, *, folder: bool, suffixes: Sequence[str] = ()) -> None:
    """Check that a path is a file (or `folder`), has an allowed suffix, and can be created."""
    if folder:
        if os.path.lexists(path) and not os.path.isdir(path):
            raise InputError(
                f"{path}: cannot be written (it is a file), expected a folder; name another folder"
            )
    elif os.path.isdir(path):
        raise InputError(
            f"{path}: cannot be written (it is a folder), expected a file; name a file"
        )
    elif os.path.exists(path) and not os.path.isfile(path):
        raise InputError(
            f"{path}: cannot be written (it is a pipe or device), expected a file; name a file"
        )
    if suffixes and path.suffix.lower() not in suffixes:
        raise InputError(
            f"{path}: suffix is {path.suffix!r}, expected {' or '.join(suffixes)}; rename it"
        )
    with explain_write_errors(path):
        _check_above(path)


def _check_mark(path: Path, mark: str) -> None:
    others = [name for name in MARKS if name != mark and os.path.isfile(path / name)]
    if others:
        raise InputError(
            f"{path}: holds {MARKS[others[0]]} ({others[0]}), expected an empty folder"
            f"{f' or {MARKS[mark]}' if mark else ''}; name another folder"
        )


def _check_above(path: Path) -> None:
    """Raise `OSError` unless the parent folder of `path` can be written to or created."""
    above = next(place for place in path.absolute().parents if os.path.lexists(place))
    if not os.path.isdir(above):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _check_input(path: Path, name: str, source: Path, *, overwrite: bool, allowed: bool) -> None:
    if same_place(path, source):
        if allowed and overwrite:
            return
        raise InputError(
            f"{path}: it is also the input {name}, expected another place; "
            f"{'pass --overwrite, or ' if allowed else ''}name another"
        )
    closed = os.path.isdir(source) and any(os.path.isfile(source / mark) for mark in OURS)
    if closed and Path(os.path.realpath(source)) in Path(os.path.realpath(path)).parents:
        raise InputError(
            f"{path}: it is inside the input {name}, {source}, expected a place outside; "
            "name another"
        )


def check_own_folder(path: Path, mark: str, names: Sequence[str]) -> None:
    """Refuse a folder that has files called `names` but lacks `mark`, which is written first.

    Raises
    ------
    InputError
        The files are the user's own or another command's.
    """
    strange = [name for name in names if os.path.lexists(path / name)]
    if strange and not os.path.isfile(path / mark):
        raise InputError(
            f"{path}: holds {strange[0]!r} and no {mark}, expected an empty folder or one that the "
            "same command began; name another folder"
        )


def same_place(a: Path, b: Path) -> bool:
    """Return whether two paths are the same file or folder, through any spelling or link."""
    try:
        return os.path.samefile(a, b)
    except OSError:  # one of them does not exist
        return os.path.realpath(a) == os.path.realpath(b)


def _check_beside(path: Path, main: Path, start: bytes) -> None:
    if os.path.lexists(path) and not _begins(path, start):
        raise InputError(
            f"{path}: belongs beside {main.name} but was not written by spk, expected no such "
            "file; move it away, or name another file"
        )


def _begins(path: Path, start: bytes) -> bool:
    if not os.path.isfile(path):
        return False
    with path.open("rb") as file:
        return file.read(len(start)) == start


@contextmanager
def protecting(paths: Sequence[Path]) -> Iterator[None]:
    """Within this context, `has_to_be_written` refuses to replace `paths` with other content.

    A folder in `paths` stands for all files in it.
    """
    token = _protected.set(_protected.get() | {Path(os.path.abspath(path)) for path in paths})
    try:
        yield
    finally:
        _protected.reset(token)


def has_to_be_written(path: Path, content: bytes | memoryview) -> bool:
    """Return whether a file must be written: false if a protected file already has this content.

    Raises
    ------
    InputError
        The file is protected and has other content.
    """
    whole = Path(os.path.abspath(path))
    if _protected.get().isdisjoint([whole, *whole.parents]) or not os.path.lexists(path):
        return True
    if (
        os.path.isfile(path)
        and path.stat().st_size == len(content)
        and path.read_bytes() == content
    ):
        return False
    raise InputError(_other_content(path))


def check_same_content(path: Path, new: Path) -> None:
    """Refuse to replace the file `path` with `new` unless both have the same content.

    Raises
    ------
    InputError
        The contents differ.
    """
    import filecmp

    if not os.path.isfile(path) or not filecmp.cmp(path, new, shallow=False):
        raise InputError(_other_content(path))


def _other_content(path: Path) -> str:
    return (
        f"{path}: exists with other content, expected no such file; pass --overwrite or name "
        "another file"
    )
