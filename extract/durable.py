"""Files that are whole or absent, even after a power cut."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..common.errors import InputError
from ..common.files import writing
from ..common.outputs import check_same_content

WRITING = ".writing-"  # begins the names of files that are not complete


@contextmanager
def whole_file(path: Path, needed: int, *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """Yield a file that gets its name only when complete and on disk; `needed` is its size (bytes).

    Temporary name in the same folder, fsync, rename, fsync of the folder. Without `overwrite` a
    file of that name stays, and has to have the same content.

    Raises
    ------
    InputError
        The disk is full, the folder cannot be written to, or another content is there.
    """
    with writing(path.parent), _whole_file(path, needed, overwrite) as file:
        yield file


@contextmanager
def _whole_file(path: Path, needed: int, overwrite: bool) -> Iterator[BinaryIO]:
    temporary = path.with_name(f"{WRITING}{os.getpid()}-{path.name}")
    try:
        with synced_file(temporary, needed) as file:
            yield file
        if not overwrite and os.path.lexists(path):
            check_same_content(path, temporary)
        else:
            publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def synced_file(temporary: Path, needed: int) -> Iterator[BinaryIO]:
    """Yield a new file whose bytes are on disk afterwards; where that fails, it is absent.

    Raises
    ------
    InputError
        The disk is full, or the folder cannot be written to.
    """
    with writing(temporary.parent):
        try:
            with temporary.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except BaseException as problem:
            temporary.unlink(missing_ok=True)
            if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(_full(temporary.parent, needed)) from problem
            raise


def publish(temporary: Path, path: Path) -> None:
    """Give a file that is on disk its name, which a power cut does not take back."""
    with writing(path.parent):
        temporary.replace(path)
        sync_folder(path.parent)


def refuse_full_disk(folder: Path, needed: int) -> None:
    """Raise `InputError` unless `needed` bytes are free on the folder's disk."""
    with writing(folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(_full(folder, needed))


def _full(folder: Path, needed: int) -> str:
    free = shutil.disk_usage(folder).free
    return (
        f"{folder}: {free} bytes are free on the disk, expected {needed} bytes; "
        "free some space and run the same command again"
    )


def sync_folder(folder: Path) -> None:
    """Put a folder's names on disk, so that a power cut does not undo a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> int:
    """Remove what dead writers left half-written; only for the holder of the folder's lock."""
    leftovers = [path for path in folder.iterdir() if path.name.startswith(WRITING)]
    for path in leftovers:
        path.unlink()
    return len(leftovers)
