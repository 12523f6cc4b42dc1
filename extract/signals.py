"""Ctrl-C and SIGTERM as a wish that is noted, so that what is under way ends in good order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

KINDS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def noted_signals(tell: Callable[[str], None], *, every: bool = False) -> Iterator[list[int]]:
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
        tell("stopping after this batch; once more to stop at once")

    for kind in KINDS:
        signal.signal(kind, note)
    try:
        yield caught
    finally:
        _restore(before)


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for kind, handler in handlers.items():
        signal.signal(kind, handler)
