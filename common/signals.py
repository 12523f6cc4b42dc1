"""Ctrl-C and SIGTERM: end a command in good order, at once or after what is under way.

A command ends with one line, exit code 130 or 143 and no traceback. A loop over batches notes the
signal instead and stops when it has committed the batch under way.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = "interrupted; run the same command to go on"
DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


_held: list[int] = []  # what came while `defer_signals` was open
_open: list[bool] = []


class InterruptedBySignal(SystemExit):
    """Raised in the main thread by the first signal, so that what is open is closed on the way."""


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """While open, Ctrl-C and SIGTERM raise `InterruptedBySignal`.

    For a program, since it never takes them back.

    Inside an import the process ends at once: nothing is at stake there, and extension modules
    turn what is raised in them into other errors. A second signal always ends at once.
    """
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        _answer(signal.SIG_DFL)
        if os.getpid() != owner:  # a forked worker, which is not the command
            os.kill(os.getpid(), number)
        elif _open:
            _held.append(number)
        elif _importing(frame):
            _tell()
            os._exit(128 + number)
        else:
            raise InterruptedBySignal(128 + number)

    for kind in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(kind) in DEFAULTS:  # a shell may have it ignored
            signal.signal(kind, end)
    try:
        yield
    except InterruptedBySignal:
        _tell()
        raise
    except BaseException:
        _answer(signal.SIG_IGN)  # all is done but for the interpreter's own end
        raise


@contextmanager
def defer_signals() -> Iterator[None]:
    """While open in the main thread, a signal waits.

    For libraries that take `InterruptedBySignal` for a fault. Also a decorator of functions.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _open.append(True)
    try:
        yield
    finally:
        _open.pop()
        if _held and not _open:
            raise InterruptedBySignal(128 + _held.pop())


@contextmanager
def ignore_sigint_in_children() -> Iterator[None]:
    """Spare what is started while open from Ctrl-C, which a terminal sends to all of a command.

    The command itself hears it again afterwards, and ends what it has started.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def ignore_sigint() -> None:
    """Let this worker process ignore Ctrl-C, which a terminal sends to it and to its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """While open, Ctrl-C waits, and for processes that are started it never comes.

    They inherit the block from their first moment; afterwards the signal that waited is heard.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(how: signal.Handlers) -> None:
    for kind in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(kind) is not signal.SIG_IGN:
            signal.signal(kind, how)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _tell() -> None:
    """Write the line past Python's buffers, in which the signal may have come."""
    os.write(2, f"{INTERRUPTED}\n".encode())


KINDS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_after_batch(log: Callable[[str], object], *, every: bool = False) -> Iterator[list[int]]:
    """While open, the first Ctrl-C or SIGTERM is only noted, so that a batch is finished first.

    Yields the list of what was noted; the second one acts as it always did, or is noted too where
    `every` one is. A command ends with 128 plus the first number as its exit code.
    """
    caught: list[int] = []
    before = {kind: signal.getsignal(kind) for kind in KINDS}

    def note(number: int, _frame: object) -> None:
        caught.append(number)
        if not every:
            _restore(before)
        log("stopping after this batch; once more to stop at once")

    for kind in KINDS:
        signal.signal(kind, note)
    try:
        yield caught
    finally:
        _restore(before)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for kind, handler in handlers.items():
        signal.signal(kind, handler)
