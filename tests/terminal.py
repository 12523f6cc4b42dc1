"""A terminal for tests: a command's output as somebody sees it who sits there."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(words: Sequence[str], *, columns: int = 80, **variables: str) -> tuple[int, str]:
    """Run `python WORDS` on a terminal so many columns wide; return exit code and output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    unset = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"TERM": "xterm-256color", **variables}
    running = subprocess.Popen(
        [sys.executable, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    pieces = []
    with suppress(OSError):  # Linux says so when the other side has closed
        while piece := os.read(ours, 65536):
            pieces.append(piece)
    os.close(ours)
    return running.wait(), b"".join(pieces).decode().replace("\r\n", "\n")


def without_escapes(text: str) -> str:
    """Return a terminal's output without colours."""
    return ESCAPES.sub("", text)
