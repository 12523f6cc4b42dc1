"""Drop the remarks that a decoder writes to stderr; all other lines are passed on.

libmpg123 inside libsndfile cannot be made quiet, so its remarks are taken off the file descriptor
while it works. Threads share the descriptor: what else is written meanwhile is passed on when the
decoder pauses, at the latest after a block.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

STDERR = 2
REMARK = re.compile(
    rb"^(?:\[src/libmpg123/|Note: (?:Illegal Audio-MPEG|Trying to resync|Skipped \d+ bytes)"
    rb"|Warning: (?:Xing stream size|Real sample count|Big change|Encountered more data))"
    rb"[^\n]*\n?",
    re.MULTILINE,
)


class _Diversion:
    """Redirect descriptor 2 to a file while `users` decode; pass on all lines but remarks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self._stderr = -1
        self._passed = 0
        self._file: IO[bytes] | None = None

    def enter(self) -> None:
        if self.users == 0:
            with suppress(OSError):  # there may be no descriptor 2, and no room for a file
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the last user)
                self._stderr, self._passed = os.dup(STDERR), 0
                os.dup2(self._file.fileno(), STDERR)
        self.users += 1

    def leave(self) -> None:
        self.users -= 1
        if self._stderr < 0:
            return
        if self.users == 0:
            with suppress(OSError, ValueError):
                sys.__stderr__.flush() if sys.__stderr__ else None
            os.dup2(self._stderr, STDERR)
        self._pass_on()
        if self.users == 0 and self._file is not None:
            os.close(self._stderr)
            self._file.close()
            self._stderr, self._file = -1, None

    def _pass_on(self) -> None:
        if self._file is None:
            return
        place = self._file.fileno()
        text = os.pread(place, os.fstat(place).st_size - self._passed, self._passed)
        self._passed += len(text)
        with suppress(OSError):  # stderr may be closed
            os.write(self._stderr, REMARK.sub(b"", text))


_diversion = _Diversion()


@contextmanager
def without_decoder_lines() -> Iterator[None]:
    """Drop what libmpg123 writes to stderr within the context; safe in several threads at once."""
    with _diversion.lock:
        _diversion.enter()
    try:
        yield
    finally:
        with _diversion.lock:
            _diversion.leave()
