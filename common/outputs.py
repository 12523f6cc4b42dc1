"""What a command may write: never over its inputs, nor over other content, unless told to.

A file that a command names as its output may be there with the same content; with other content it
is replaced with ``--overwrite`` alone, and then in one step. What can be refused before the work is
(`check_place`); other content is refused when it is known (`has_to_be_written`).
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

OURS = ("store.json", "model.json")  # a folder with one of them is a store's or a model's alone
# The file that tells what a folder is, and so whose: {name: what}.
MARKS = {
    "store.json": "a store",
    "model.json": "a model",
    "cells.jsonl": "a sweep",
    "cut.json": "cut segments",
}
TABLE = (".csv", ".parquet")
MEASURES = (".csv", ".json")
# What follows a segment table, and how each file begins: one that begins otherwise is the user's.
BESIDE_TABLE = {".notes.csv": b"kind,place,message", ".split.json": b'{\n "method": '}
# What stands beside a store.
BESIDE_STORE = {".rejected.csv": b"segment_id,code,message"}

_protected: ContextVar[frozenset[Path]] = ContextVar("_protected", default=frozenset())


@dataclass(frozen=True)
class Output:
    """What a command writes, named by one of its parameters.

    Attributes
    ----------
    name : str
        The parameter.
    suffixes : tuple of str
        Those that the file may have; none: any.
    folder : bool
        It is a folder; what may be in it, the command knows.
    mark : str
        The file of `MARKS` that tells a folder of this command; one of another is refused.
    inside : str
        Name of the file that is written in the folder of that parameter.
    over : tuple of str
        Inputs that with ``--overwrite`` may be the output too, since they are read before.
    beside : {suffix: first bytes}
        Files that follow the output: replaced and removed with it, where they begin so.
    form : bytes
        How a file begins that this command wrote before, and may replace in any case.
    owned : bool
        The command itself tells whether it may replace what is there.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    folder: bool = False
    mark: str = ""
    inside: str = ""
    over: tuple[str, ...] = ()
    beside: Mapping[str, bytes] = field(default_factory=dict)
    form: bytes = b""
    owned: bool = False

    def path(self, value: str | Path) -> Path:
        """Return the path that is written where the parameter is `value`."""
        return Path(value, self.inside) if self.inside else Path(value)


def check_place(
    path: Path, output: Output, inputs: Mapping[str, Sequence[Path]], *, overwrite: bool = False
) -> None:
    """Refuse before the work what cannot become an output.

    Parameters
    ----------
    inputs
        Paths that the command reads, by what their parameter is called in its help.

    Raises
    ------
    InputError
        It is an input or lies in a store or model that is one, a folder for a file or a file for
        a folder, has another suffix, cannot be made there, or a file that goes with it is the
        user's own.
    """
    check_kind(path, folder=output.folder, suffixes=output.suffixes)
    if output.folder:
        _check_mark(path, output.mark)
    for name, paths in inputs.items():
        for given in paths:
            allowed = name.lower() in output.over and not output.inside
            _check_input(path, name, given, overwrite=overwrite, allowed=allowed)
    for suffix, start in output.beside.items():
        _check_beside(Path(f"{path}{suffix}"), path, start)
    if output.form and os.path.isfile(path) and not overwrite and not _begins(path, output.form):
        raise InputError(_other_content(path))


def check_kind(path: Path, *, folder: bool, suffixes: Sequence[str] = ()) -> None:
    """Refuse a folder for a file, a file for a folder, another suffix, or a place that is none."""
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
    """Raise `OSError` unless the folder that `path` is to be in can be written to, or made."""
    above = next(place for place in path.absolute().parents if os.path.lexists(place))
    if not os.path.isdir(above):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _check_input(path: Path, name: str, given: Path, *, overwrite: bool, allowed: bool) -> None:
    if same_place(path, given):
        if allowed and overwrite:
            return
        raise InputError(
            f"{path}: it is the input {name} too, expected another place; "
            f"{'pass --overwrite, or ' if allowed else ''}name another"
        )
    closed = os.path.isdir(given) and any(os.path.isfile(given / mark) for mark in OURS)
    if closed and Path(os.path.realpath(given)) in Path(os.path.realpath(path)).parents:
        raise InputError(
            f"{path}: it lies in the input {name}, {given}, expected a place outside; name another"
        )


def check_own_folder(path: Path, mark: str, names: Sequence[str]) -> None:
    """Refuse a folder with files of `names` but without `mark`, the file its command writes first.

    Raises
    ------
    InputError
        It is somebody else's: of the user or of another command.
    """
    strange = [name for name in names if os.path.lexists(path / name)]
    if strange and not os.path.isfile(path / mark):
        raise InputError(
            f"{path}: holds {strange[0]!r} and no {mark}, expected an empty folder or one that the "
            "same command began; name another folder"
        )


def same_place(a: Path, b: Path) -> bool:
    """Return whether two paths are one file or folder: by any spelling, link or hard link."""
    try:
        return os.path.samefile(a, b)
    except OSError:  # one of them is not there
        return os.path.realpath(a) == os.path.realpath(b)


def _check_beside(path: Path, main: Path, start: bytes) -> None:
    if os.path.lexists(path) and not _begins(path, start):
        raise InputError(
            f"{path}: goes with {main.name} and is not what spk writes there, expected no such "
            "file; move it away, or name another file"
        )


def _begins(path: Path, start: bytes) -> bool:
    if not os.path.isfile(path):
        return False
    with path.open("rb") as file:
        return file.read(len(start)) == start


@contextmanager
def protecting(paths: Sequence[Path]) -> Iterator[None]:
    """While open, `has_to_be_written` refuses to replace files by other content.

    `paths` are those files, or folders whose files are meant.
    """
    token = _protected.set(_protected.get() | {Path(os.path.abspath(path)) for path in paths})
    try:
        yield
    finally:
        _protected.reset(token)


def has_to_be_written(path: Path, content: bytes | memoryview) -> bool:
    """Return whether a file has to be written: false where a protected one has that content.

    Raises
    ------
    InputError
        It is protected and has other content.
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
    """Refuse to replace the file `path` by `new` unless both have the same content.

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
