"""Atomic file writes.

A file is written under a temporary name in the same folder, flushed to disk, and renamed; if that
fails, the temporary file is removed and the old file stays. Temporary files of killed processes are
removed later: those of `atomic_write`, each locked while its writer is alive, by the next write of
the same file; those of `atomic_open`, by the next holder of the folder's lock.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .counts import counted
from .errors import InputError, explain_write_errors
from .locks import lock_file
from .names import shortened
from .outputs import check_same_content, has_to_be_written
from .signals import defer_signals

PART = "part-"  # temporary files of `atomic_write`: .NAME.part-XXXXXXXX
WRITING = ".writing-"  # temporary files of `atomic_open`: .writing-PID-NAME
LONGEST_STEM = 240  # bytes of NAME in the name of a temporary file, of 255 in all
FROM_HERE, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def is_special(path: str | Path) -> bool:
    """Return whether `path` is a folder, pipe or device; opening one may block forever."""
    return os.path.exists(path) and not os.path.isfile(path)


def list_files(folder: str | Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files below a folder with one of `suffixes` (lower case), sorted by path.

    Links to folders are followed; a file reachable by several paths is listed once, by the path
    with the fewest links. A broken link is listed, so that reading it raises. The ``._*`` files of
    macOS, which hold metadata only, are skipped.

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
    """Drop links to files that are also listed under the same name elsewhere."""
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
    """Write a file atomically.

    Raises
    ------
    InputError
        The file cannot be written, or is a protected output that exists with other content
        (`outputs.protecting`). An existing file is then unchanged.
    """
    with explain_write_errors(path, len(content)):
        if has_to_be_written(Path(path), content):
            atomic_write_bytes(Path(path), content)


def atomic_write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file atomically, creating its folder if absent; raises the system's own errors.

    Temporary files left by killed writers of this file are removed. Each is locked while its writer
    is alive, so that concurrent writers do not remove each other's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    handle, temporary = _locked_sibling(path)
    try:
        with rename_when_complete(temporary, path) as file:
            file.write(content)
            os.chmod(temporary, 0o666 & ~_umask())
    finally:
        os.close(handle)  # which releases the lock


def _locked_sibling(path: Path) -> tuple[int, Path]:
    """Create and lock a temporary file beside `path`; return its handle and path."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_part_prefix(path))
        with suppress(OSError):  # without locks on this disk, leftovers are never removed
            lock_file(handle, wait=True)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another writer removed it before it was locked


def _part_prefix(path: Path) -> str:
    """Return the prefix of an incomplete file's name; eight characters follow."""
    whole = len(os.fsencode(path.name)) <= LONGEST_STEM
    return f".{path.name if whole else shortened(path.name, LONGEST_STEM)}.{PART}"


def _remove_abandoned(path: Path) -> None:
    for name in path.parent.glob(f"{glob.escape(_part_prefix(path))}????????"):
        with suppress(OSError), open(name, "rb") as file:
            if lock_file(file.fileno(), wait=False):
                name.unlink()


@contextmanager
def rename_when_complete(
    temporary: Path, path: Path, rename: Callable[[Path, Path], object] | None = None
) -> Iterator[BinaryIO]:
    """Yield the file `temporary` to write; on leaving, flush it to disk and rename it to `path`.

    After any error `temporary` is removed and `path` is unchanged. `rename` takes the place of
    `os.replace`.
    """
    try:
        with flushed_file(temporary) as file:
            yield file
        (rename or os.replace)(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_folder(draft: Path, path: Path) -> None:
    """Rename the complete folder `draft` to `path`, replacing a folder of that name.

    Where the system supports it, the two are exchanged in one step, so that `path` always exists.

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
    """Exchange the names of two folders, through a third name if there is no system call."""
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


@contextmanager
def atomic_open(path: Path, needed: int, *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """Yield a file to write that appears as `path` once complete and synced to disk.

    `needed` is its size in bytes. Without `overwrite`, an existing file is not replaced and must
    have the same content.

    Raises
    ------
    InputError
        The disk is full, the folder cannot be written to, or the file exists with other content.
    """

    def rename(temporary: Path, path: Path) -> None:
        if not overwrite and os.path.lexists(path):
            check_same_content(path, temporary)
            temporary.unlink()
        else:
            publish(temporary, path)

    temporary = path.with_name(f"{WRITING}{os.getpid()}-{path.name}")
    with (
        _explain_full_disk(path.parent, needed),
        rename_when_complete(temporary, path, rename) as file,
    ):
        yield file


@contextmanager
def synced_file(temporary: Path, needed: int) -> Iterator[BinaryIO]:
    """Yield a new file to write; its content is on disk afterwards, or on errors it is removed.

    `needed` is its size in bytes.

    Raises
    ------
    InputError
        The disk is full, or the folder cannot be written to.
    """
    with _explain_full_disk(temporary.parent, needed), flushed_file(temporary) as file:
        yield file


@contextmanager
def _explain_full_disk(folder: Path, needed: int) -> Iterator[None]:
    """Turn write errors into `InputError`, for a full disk with the `needed` bytes."""
    with explain_write_errors(folder):
        try:
            yield
        except OSError as problem:
            if problem.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(_full(folder, needed)) from problem
            raise


@contextmanager
def flushed_file(temporary: Path) -> Iterator[BinaryIO]:
    """Yield a new file to write, as `synced_file`, but raise the system's own errors."""
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish(temporary: Path, path: Path) -> None:
    """Rename a file that is on disk, and sync the folder so that the new name is durable."""
    with explain_write_errors(path.parent):
        temporary.replace(path)
        sync_folder(path.parent)


def check_free_space(folder: Path, needed: int) -> None:
    """Raise `InputError` unless `needed` bytes are free on the folder's disk."""
    with explain_write_errors(folder):
        free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(_full(folder, needed))


def _full(folder: Path, needed: int) -> str:
    free = shutil.disk_usage(folder).free
    return (
        f"{folder}: {counted(free, 'byte', 'is')} free on the disk, expected "
        f"{counted(needed, 'byte')}; free some space and run the same command again"
    )


def sync_folder(folder: Path) -> None:
    """Sync a folder to disk, so that a power failure does not undo a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_temporary_files(folder: Path) -> int:
    """Remove the temporary files of dead writers; for the holder of the folder's lock only."""
    leftovers = [path for path in folder.iterdir() if path.name.startswith(WRITING)]
    for path in leftovers:
        path.unlink()
    return len(leftovers)
