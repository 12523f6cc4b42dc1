"""Files that are whole or absent, even after a power cut: temporary name, fsync, rename."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import InputError, explain_write_errors
from .locks import lock_file
from .names import shortened
from .outputs import check_same_content, has_to_be_written
from .signals import defer_signals

PART = "part-"  # begins the last part of the name of a file that is not complete
LONGEST_STEM = 240  # bytes of a file's name in that of the one that is not complete, of 255 in all
FROM_HERE, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def is_special(path: str | Path) -> bool:
    """Return whether there is a folder, pipe or device: to open one may take forever."""
    return os.path.exists(path) and not os.path.isfile(path)


def list_files(folder: str | Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files below a folder with one of `suffixes` (lower case), sorted by path.

    Links to folders are followed; what two paths lead to is listed once, by the path that holds
    fewest links. A link to nothing is listed, so that reading it tells. A Mac's ``._*`` twins,
    which hold no content of their own, are passed over.

    Raises
    ------
    InputError
        A folder cannot be listed.
    """
    listed: list[Path] = []
    seen: set[str] = set()
    links = [str(folder)]  # plain folders first, so that no link takes their files
    while links:
        for place, folders, names in os.walk(links.pop(0), onerror=_cannot_list):
            if (real := os.path.realpath(place)) in seen:
                folders.clear()
                continue
            seen.add(real)
            links += sorted(
                path for name in folders if os.path.islink(path := os.path.join(place, name))
            )
            listed += [
                Path(place, name)
                for name in sorted(names)
                if not name.startswith("._") and os.path.splitext(name)[1].lower() in suffixes
            ]
    return sorted(_once(listed))


def _cannot_list(problem: OSError) -> None:
    raise InputError(
        f"{problem.filename}: cannot be listed ({problem.strerror}), expected a folder to read; "
        "give yourself leave to read it, or move it away"
    ) from problem


def _once(files: list[Path]) -> list[Path]:
    """Leave out links to files that are listed under the same name elsewhere."""
    plain = {os.path.realpath(file) for file in files if not file.is_symlink()}
    left, seen = [], set[tuple[str, str]]()
    for file in files:
        real = os.path.realpath(file)
        again = (real, file.name) in seen or (
            file.is_symlink() and real in plain and os.path.basename(real) == file.name
        )
        if not again:
            left.append(file)
            seen.add((real, file.name))
    return left


def atomic_write(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file under its final name only when it is complete (temporary name, then rename).

    Raises
    ------
    InputError
        The file cannot be written, or is a command's output that exists with other content
        (`outputs.protecting`); one of that name from before is left as it is.
    """
    with explain_write_errors(path, len(content)):
        if has_to_be_written(Path(path), content):
            atomic_write_bytes(Path(path), content)


def atomic_write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file under its final name only when it is complete; make its folder if absent.

    What a killed writer of this name has left is removed. A temporary file is locked by its writer
    as long as it lives, so that of two writers none takes the other's for abandoned.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    handle, name = _own_file(path)
    try:
        with flushed_file(Path(name)) as file:
            file.write(content)
            os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)  # and with it the lock


def _own_file(path: Path) -> tuple[int, str]:
    """Make a temporary file and lock it; its handle and name."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_part_prefix(path))
        with suppress(OSError):  # not every disk has locks; there nothing is ever removed
            lock_file(handle, wait=True)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # it was removed before it was locked


def _part_prefix(path: Path) -> str:
    """Return how the name of a file that is not complete begins; eight signs follow."""
    whole = len(os.fsencode(path.name)) <= LONGEST_STEM
    return f".{path.name if whole else shortened(path.name, LONGEST_STEM)}.{PART}"


def _remove_abandoned(path: Path) -> None:
    for name in path.parent.glob(f"{glob.escape(_part_prefix(path))}????????"):
        with suppress(OSError), open(name, "rb") as file:
            if lock_file(file.fileno(), wait=False):
                name.unlink()


def replace_folder(draft: Path, path: Path) -> None:
    """Give the complete folder `draft` the name `path`; a folder of that name goes, afterwards.

    Where the system can, both change their names in one step, so that one of them is always there.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    with explain_write_errors(path):
        if os.path.lexists(path):
            _exchange(draft, path)
            shutil.rmtree(draft, ignore_errors=True)
        else:
            os.rename(draft, path)


@defer_signals()
def _exchange(draft: Path, path: Path) -> None:
    """Let two folders change their names; over a third name where the system knows no better."""
    names = os.fsencode(draft), os.fsencode(path)
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename and rename(FROM_HERE, names[0], FROM_HERE, names[1], EXCHANGE) == 0:
        return
    aside = draft.with_name(f"{draft.name}.old")
    os.rename(path, aside)
    try:
        os.rename(draft, path)
    except OSError:
        os.rename(aside, path)
        raise
    os.rename(aside, draft)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


WRITING = ".writing-"  # begins the names of files that are not complete


@contextmanager
def atomic_open(path: Path, needed: int, *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """Yield a file that gets its name only when complete and on disk; `needed` is its size (bytes).

    Temporary name in the same folder, fsync, rename, fsync of the folder. Without `overwrite` a
    file of that name stays, and has to have the same content.

    Raises
    ------
    InputError
        The disk is full, the folder cannot be written to, or another content is there.
    """
    with explain_write_errors(path.parent), _whole_file(path, needed, overwrite) as file:
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
    with explain_write_errors(temporary.parent):
        try:
            with flushed_file(temporary) as file:
                yield file
        except OSError as problem:
            if problem.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(_full(temporary.parent, needed)) from problem
            raise


@contextmanager
def flushed_file(temporary: Path) -> Iterator[BinaryIO]:
    """Yield a file to write, as `synced_file` does, and let the system's own errors through."""
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish(temporary: Path, path: Path) -> None:
    """Give a file that is on disk its name, which a power cut does not take back."""
    with explain_write_errors(path.parent):
        temporary.replace(path)
        sync_folder(path.parent)


def refuse_full_disk(folder: Path, needed: int) -> None:
    """Raise `InputError` unless `needed` bytes are free on the folder's disk."""
    with explain_write_errors(folder):
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


def remove_temporary_files(folder: Path) -> int:
    """Remove what dead writers left half-written; only for the holder of the folder's lock."""
    leftovers = [path for path in folder.iterdir() if path.name.startswith(WRITING)]
    for path in leftovers:
        path.unlink()
    return len(leftovers)
