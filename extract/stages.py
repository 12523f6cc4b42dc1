"""The stages of a forward pass, measured on the device they run on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from .spans import Span, Spans

Events = tuple[str, torch.cuda.Event, torch.cuda.Event]


class Stages:
    """Blocks of an encoder's work, each a stage; measured only inside `watching`.

    On a GPU the blocks only tell the device what to do, so events on the device measure them.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: Spans | None = None
        self._events: deque[Events] = deque()
        self._zero: tuple[float, torch.cuda.Event] | None = None

    @contextmanager
    def watching(self, spans: Spans | None) -> Iterator[None]:
        """Measure into `spans` while open; afterwards wait for the device, whose events tell."""
        self._spans = spans
        if spans is not None and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            self._zero = spans.now(), self._event()
        try:
            yield
            self._settle()
        finally:
            self._spans, self._zero, self._events = None, None, deque()

    def __call__(self, name: str) -> AbstractContextManager[None]:
        """Return a block that is the stage `name`."""
        if self._spans is None:
            return nullcontext()
        return self._spans.stage(name) if self._zero is None else self._measured(name)

    def _settle(self) -> None:
        if self._spans is not None and self._zero is not None:
            torch.cuda.synchronize(self._device)
            self._read()

    def _read(self) -> None:
        """Measure the blocks that the device has done, and let their events go."""
        spans, zero = self._spans, self._zero
        while spans and zero and self._events and self._events[0][2].query():
            name, *pair = self._events.popleft()
            start, end = (zero[0] + zero[1].elapsed_time(event) / 1e3 for event in pair)
            spans.found.append(Span(name, str(self._device), start, end))

    @contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        self._read()
        start = self._event()
        yield
        self._events.append((name, start, self._event()))

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event
