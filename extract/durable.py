"""Files that are whole or absent, even after a power cut, and the lock of a store's one writer."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ..common.errors import InputError
from ..common.files import writing

WRITING = ".writing-"  # begins the names of files that are not complete


@contextmanager
def whole_file(path: Path, needed: int) -> Iterator[BinaryIO]:
    """Yield a file that gets its name only when complete and on disk; `needed` is its size (bytes).

    Temporary name in the same folder, fsync, rename, fsync of the folder.

    Raises
    ------
    InputError
        The disk is full, or the folder cannot be written to.
    """
    with writing(path.parent), _whole_file(path, needed) as file:
        yield file


@contextmanager
def _whole_file(path: Path, needed: int) -> Iterator[BinaryIO]:
    temporary = path.with_name(f"{WRITING}{os.getpid()}-{path.name}")
    try:
        with synced_file(temporary, needed) as file:
            yield file
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


class Lock:
    """The right to write into a folder, held by one process on one machine.

    The kernel gives it back when the process dies, however it dies. Forked children do not keep it,
    so that workers that outlive a killed writer do not lock out the next one.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock, or raise `InputError` naming who holds it."""
        # A store from elsewhere may hold a link of this name to a file of the user's.
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        self._file = os.fdopen(number, "a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            self._file.seek(0)
            holder = self._file.read() or "a process that has not said who it is"
            self._file.close()
            if problem.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise InputError(
                f"{path.parent}: writing is locked by {holder}, expected no other writer; "
                "wait for it or end it"
            ) from None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        ours = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        with suppress(OSError):  # a full disk: the lock holds without its holder's name
            os.ftruncate(number, 0)
            os.write(number, json.dumps(ours).encode())
        os.register_at_fork(after_in_child=self._file.close)

    @property
    def held(self) -> bool:
        """Whether this process may still write."""
        return not self._file.closed

    def release(self) -> None:
        """Let the next writer in; a second call does nothing."""
        if not self._file.closed:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), 0)
            self._file.close()


def remove_leftovers(folder: Path) -> int:
    """Remove what dead writers left half-written; only for the holder of the folder's lock."""
    leftovers = [path for path in folder.iterdir() if path.name.startswith(WRITING)]
    for path in leftovers:
        path.unlink()
    return len(leftovers)
