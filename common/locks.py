"""Lock a folder, so that only one process writes to it at a time."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from .errors import InputError, explain_write_errors

NO_FCNTL = "spk: this system has no fcntl, expected Linux or macOS; on Windows, run spk in WSL"

try:
    import fcntl
except ModuleNotFoundError:
    raise ImportError(NO_FCNTL) from None

HELD = (errno.EWOULDBLOCK, errno.EACCES)  # errors of flock if another process holds the lock
ENDED = ("Z", "X")  # states of a Linux process that no longer runs
SET = 60.0  # s by which the clock may have been adjusted while a process ran
UNLOCKED = (
    "--no-lock: nothing keeps a second command from writing to the same folder; run one at a time"
)


class FolderBusyError(InputError):
    """Another process is writing to the folder."""


def lock_file(handle: int, *, wait: bool) -> bool:
    """Lock an open file; return False if another process holds the lock and `wait` is false.

    Raises
    ------
    OSError
        The file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as problem:
        if problem.errno not in HELD:
            raise
        return False
    return True


class FolderLock:
    """An exclusive lock on a folder, held until `release` or the end of the process.

    Forked children do not inherit it, so that workers that outlive a killed writer do not block the
    next one.
    """

    def __init__(self, path: Path, *, lock: bool = True) -> None:
        """Acquire the lock file `path` in the folder; with `lock` false, do nothing.

        Raises
        ------
        FolderBusyError
            Another process holds the lock; the message names it.
        InputError
            The file system has no locks.
        """
        self._open = True
        self._file = _open(path) if lock else None
        if self._file is None:
            return
        try:
            _take(self._file.fileno(), path)
        except BaseException:
            self.release(tidy=False)
            raise
        now = datetime.now(UTC).isoformat(timespec="seconds")
        ours = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        with suppress(OSError):  # on a full disk the lock works, but does not name its holder
            os.ftruncate(self._file.fileno(), 0)
            os.write(self._file.fileno(), json.dumps(ours).encode())
        os.register_at_fork(after_in_child=self._drop)

    @property
    def held(self) -> bool:
        """Whether the lock has not been released."""
        return self._open

    def release(self, *, tidy: bool = True) -> None:
        """Release the lock; a second call does nothing. `tidy` empties the lock file."""
        if self._open and self._file is not None and tidy:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), 0)
        self._drop()

    def _drop(self) -> None:
        self._open = False
        if self._file is not None:
            self._file.close()


def lock_holder(path: Path) -> dict[str, Any] | None:
    """Return who holds the lock file `path` (`pid`, `host`, `since`), without touching the lock.

    None if the lock was released, or its holder was killed on this machine. A holder killed on
    another machine is still named.
    """
    try:
        said = json.loads(path.read_text())
        pid, host, since = int(said["pid"]), str(said["host"]), str(said["since"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return None if is_gone(pid, host, since) else {"pid": pid, "host": host, "since": since}


def is_gone(pid: int, host: str, since: str) -> bool:
    """Return whether a process ran on this machine at a time (ISO 8601) and has ended.

    A process that has ended but was not reaped yet counts as gone, and so does one whose number
    another process has now, as after a reboot.
    """
    if host != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's process
        pass
    try:
        state, age = _state_and_age(pid)
        return state in ENDED or time.time() - age > datetime.fromisoformat(since).timestamp() + SET
    except (OSError, ValueError, AttributeError):  # a system without /proc, or not a time
        return False


def _state_and_age(pid: int) -> tuple[str, float]:
    """Return the state of a Linux process, and how long ago it started, in s."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    begun = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0].decode(), time.clock_gettime(time.CLOCK_BOOTTIME) - begun


def _open(path: Path) -> TextIO:
    # O_NOFOLLOW: in an untrusted folder, the lock could be a link to one of the user's files.
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
    return os.fdopen(number, "a+", encoding="utf-8")


def _take(handle: int, path: Path) -> None:
    try:
        taken = lock_file(handle, wait=False)
    except OSError as problem:
        raise InputError(
            f"{path.parent}: cannot be locked ({problem.strerror}), expected a file system with "
            "locks; pass --no-lock, and let no other command write there"
        ) from None
    if not taken:
        holder = os.pread(handle, 1000, 0).decode("utf-8", "replace")
        raise FolderBusyError(
            f"{path.parent}: writing is locked by "
            f"{holder or 'a process that has not said who it is'}, expected no other writer; "
            "wait for it or end it"
        )


@contextmanager
def folder_lock(folder: str | Path, *, lock: bool = True) -> Iterator[None]:
    """Create a folder if absent, and hold its lock within the context.

    Raises
    ------
    FolderBusyError, InputError
        As in `FolderLock`; or the folder cannot be written.
    """
    with explain_write_errors(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        writing = FolderLock(Path(folder, ".lock"), lock=lock)
    try:
        yield
    finally:
        writing.release()
