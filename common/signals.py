"""Handle Ctrl-C and SIGTERM: end a command cleanly, at once or after the current batch.

A command ends with one line, exit code 130 or 143 and no traceback. A loop over batches instead
records the signal and stops once it has committed the current batch.
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
KINDS = (signal.SIGINT, signal.SIGTERM)
DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


_held: list[int] = []  # signals received within `defer_signals`
_open: list[bool] = []


class InterruptedBySignal(SystemExit):
    """Raised in the main thread by the first signal, so that open files are closed."""


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Make Ctrl-C and SIGTERM raise `InterruptedBySignal` within the context.

    The handlers are never restored, so this is for programs only. During an import the process
    exits at once: there is nothing to clean up, and extension modules turn the exception into other
    errors. A second signal always exits at once.
    """
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        _answer(signal.SIG_DFL)
        if os.getpid() != owner:  # a forked worker: default action
            os.kill(os.getpid(), number)
        elif _open:
            _held.append(number)
        elif _importing(frame):
            _tell()
            os._exit(128 + number)
        else:
            raise InterruptedBySignal(128 + number)

    for kind in KINDS:
        if signal.getsignal(kind) in DEFAULTS:  # unless the shell has set it to be ignored
            signal.signal(kind, end)
    try:
        yield
    except InterruptedBySignal:
        _tell()
        raise
    except BaseException:
        _answer(signal.SIG_IGN)  # only the interpreter's shutdown is left
        raise


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defer signals to the end of the context, in the main thread; also a decorator.

    For calls into libraries that treat `InterruptedBySignal` as an error of their own.
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
    """Make child processes started within the context ignore Ctrl-C.

    A terminal sends Ctrl-C to every process of a command. The command itself handles it again
    afterwards, and ends its children.
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
    """Make this process, a worker, ignore Ctrl-C, which its parent handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM within the context, and for good in child processes started in it.

    Children inherit the block from the start; this process receives pending signals afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, KINDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(how: signal.Handlers) -> None:
    for kind in KINDS:
        if signal.getsignal(kind) is not signal.SIG_IGN:
            signal.signal(kind, how)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _tell() -> None:
    """Write the line to stderr unbuffered: the signal may have come within a buffered write."""
    os.write(2, f"{INTERRUPTED}\n".encode())


@contextmanager
def stop_after_batch(log: Callable[[str], object]) -> Iterator[list[int]]:
    """Record the first Ctrl-C or SIGTERM within the context, so that a batch can be finished.

    Yields the list of recorded signals. The second signal has its usual effect. The command's exit
    code is then 128 plus the first signal's number.
    """
    caught: list[int] = []
    before = {kind: signal.getsignal(kind) for kind in KINDS}

    def note(number: int, _frame: object) -> None:
        caught.append(number)
        _restore(before)
        log("stopping after this batch; once more to stop at once")

    for kind in KINDS:
        signal.signal(kind, note)
    try:
        yield caught
    finally:
        _restore(before)


@contextmanager
def stop_then_raise(log: Callable[[str], object]) -> Iterator[Callable[[], bool]]:
    """Let a loop end in good order: the first Ctrl-C or SIGTERM has its usual effect afterwards.

    Yields a function that tells whether to stop. In another thread than the main one, which
    receives all signals, that is never so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    with stop_after_batch(log) as caught:
        yield lambda: bool(caught)
    if caught:
        signal.raise_signal(caught[0])
        raise InterruptedBySignal(128 + caught[0])  # where the usual effect is none


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for kind, handler in handlers.items():
        signal.signal(kind, handler)
