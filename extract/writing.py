"""Rows on their way to the store: one thread writes while the next batch is encoded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

from .spans import Spans, stage

WAITING = 4  # blocks between the encoder and the disk; then the encoder waits

Write = Callable[[], None]


class Writing:
    """A context manager: what is `put` is done in its thread, in order, one thing at a time.

    What fails there is raised by the next `put`, or on leaving, and nothing after it is done. On
    leaving, what was put is done first, also after an exception: it is finished work. At most
    `waiting` wait at a time.
    """

    def __init__(self, spans: Spans | None = None, waiting: int = WAITING) -> None:
        self._blocks: queue.Queue[Write | None] = queue.Queue(waiting)
        self._spans = spans
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="writer")

    def __enter__(self) -> Writing:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._blocks.put(None)
            self._thread.join()
        except BaseException as stopped:  # asked to hurry: only what is under way is finished
            self._problem = stopped
            self._blocks.put(None)
            self._thread.join()
            raise
        if self._problem is not None and problem is None:
            raise self._problem

    def put(self, write: Write) -> None:
        """Have `write` done; waits while there is no room."""
        if self._problem is not None:
            raise self._problem
        with stage(self._spans, "wait for writer"):
            self._blocks.put(write)

    def _work(self) -> None:
        while (write := self._blocks.get()) is not None:
            if self._problem is None:
                try:
                    with stage(self._spans, "writing"):
                        write()
                except BaseException as problem:  # raised again by `put` or on leaving
                    self._problem = problem
