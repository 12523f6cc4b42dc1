"""Handle Ctrl-C and SIGTERM: end a command cleanly, at once or after the current batch.

A command ends with one line, exit code 130 or 143 and no traceback. A loop over batches instead
records the signal and stops once it has committed the current batch.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = "interrupted; run the same command to resume"
AFTER_BATCH = "stopping after this batch; once more to stop at once"
KINDS = (signal.SIGINT, signal.SIGTERM)
DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
set_handler = signal.signal  # also within `keep_handlers`

_held: list[int] = []  # signals received within `defer_signals`
_open: list[bool] = []
_programs: list[bool] = []  # whether `exit_on_signals` is in force


class InterruptedBySignal(SystemExit):
    """Raised in the main thread by the first signal, so that open files are closed."""


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Make Ctrl-C and SIGTERM raise `InterruptedBySignal` within the context.

    The handlers are never restored, so this is for programs only. During an import the process
    exits at once: there is nothing to clean up, and extension modules turn the exception into other
    errors. What a library makes of the exception elsewhere ends the command in the same way. A
    second signal always exits at once.
    """
    owner = os.getpid()
    raised: list[int] = []

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
            raised.append(number)
            raise InterruptedBySignal(128 + number)

    for kind in KINDS:
        if signal.getsignal(kind) in DEFAULTS:  # unless the shell has set it to be ignored
            set_handler(kind, end)
    _programs.append(True)
    try:
        yield
    except InterruptedBySignal:
        _tell()
        raise
    except BaseException as problem:
        _answer(signal.SIG_IGN)  # only the interpreter's shutdown is left
        if raised and _is_failure(problem):
            _tell()
            raise InterruptedBySignal(128 + raised[0]) from None
        raise


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defer signals to the end of the context, in the main thread; also a decorator.

    For calls into libraries that treat `InterruptedBySignal` as an error of their own.
    """
    if not _in_main_thread():
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
def keep_handlers() -> Iterator[None]:
    """Keep the handlers of Ctrl-C and SIGTERM within the context, whatever a library sets."""
    if not _in_main_thread():  # no other may set them
        yield
        return

    def set_others(kind: signal.Signals, handler: Any) -> Any:
        return signal.getsignal(kind) if kind in KINDS else set_handler(kind, handler)

    signal.signal = set_others  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = set_handler


@contextmanager
def exit_when_stuck(seconds: float, clear: Callable[[], object]) -> Iterator[None]:
    """End a program (`exit_on_signals`) that is still in the context `seconds` after a signal.

    For calls into libraries that wait in C++, where no Python runs, for processes that the signal
    has ended too. After a second signal the limit is one second. `clear` is called first, in
    another thread.
    """
    if not (_programs and _in_main_thread()):
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    watching = threading.Thread(target=_watch, args=(receiver, seconds, clear), daemon=True)
    watching.start()
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sender.close()
        watching.join()
        receiver.close()


def _watch(receiver: socket.socket, seconds: float, clear: Callable[[], object]) -> None:
    """Read signal numbers until the other end is closed, or `seconds` after the first."""
    numbers: list[int] = []
    for patience in (None, seconds, 1.0):
        receiver.settimeout(patience)
        try:
            number = _receive_number(receiver)
        except TimeoutError:
            break
        if not number:
            return
        numbers += number
    clear()
    _tell()
    os._exit(128 + numbers[0])


def _receive_number(receiver: socket.socket) -> bytes:
    """Return the number of a signal that ends a program, or nothing if the other end is closed.

    The numbers of all other signals that Python handles arrive too.
    """
    while (number := receiver.recv(1)) and number[0] not in KINDS:
        pass
    return number


@contextmanager
def ignore_sigint_in_children() -> Iterator[None]:
    """Make child processes started within the context ignore Ctrl-C.

    A terminal sends Ctrl-C to every process of a command. The command itself handles it again
    afterwards, and ends its children.
    """
    if not _in_main_thread():
        yield
        return
    before = set_handler(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        set_handler(signal.SIGINT, before)


def ignore_sigint() -> None:
    """Make this process, a worker, ignore Ctrl-C, which its parent handles."""
    set_handler(signal.SIGINT, signal.SIG_IGN)


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
            set_handler(kind, how)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _is_failure(problem: BaseException) -> bool:
    """Return whether a program ends because of a problem, not with an exit code for success."""
    if not isinstance(problem, SystemExit):
        return True
    return problem.code == 1 or isinstance(problem.code, str)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _tell() -> None:
    """Write the line to stderr unbuffered: the signal may have interrupted a buffered write."""
    os.write(2, f"{INTERRUPTED}\n".encode())


@contextmanager
def stop_after_batch(log: Callable[[str], object], line: str = AFTER_BATCH) -> Iterator[list[int]]:
    """Record the first Ctrl-C or SIGTERM within the context, so that a batch can be finished.

    Yields the list of recorded signals. At the first one `line` is logged; the second has its usual
    effect. The command's exit code is then 128 plus the first signal's number.
    """
    caught: list[int] = []
    before = {kind: signal.getsignal(kind) for kind in KINDS}

    def note(number: int, _frame: object) -> None:
        caught.append(number)
        _restore(before)
        log(line)

    for kind in KINDS:
        set_handler(kind, note)
    try:
        yield caught
    finally:
        _restore(before)


@contextmanager
def stop_then_raise(
    log: Callable[[str], object], line: str = AFTER_BATCH
) -> Iterator[Callable[[], bool]]:
    """Let a loop end in an orderly way; the first Ctrl-C or SIGTERM takes effect afterwards.

    Yields a function that returns whether to stop. Outside the main thread, which receives all
    signals, it never does.
    """
    if not _in_main_thread():
        yield lambda: False
        return
    with stop_after_batch(log, line) as caught:
        yield lambda: bool(caught)
    if caught:
        signal.raise_signal(caught[0])
        raise InterruptedBySignal(128 + caught[0])  # if the usual effect is nothing


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for kind, handler in handlers.items():
        set_handler(kind, handler)
