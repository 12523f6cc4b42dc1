"""Where the time of a run went: spans of named stages, as one page of text and as a Chrome trace.

A span is one stage's work in one row (a thread, or the device); spans of a row may lie inside each
other, and each then counts for its own time only. Whoever is given no `Spans` measures nothing.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

STAGES = ("decode", "transfer", "CNN", "layers", "pooling", "writing")
WAITS = ("wait for audio", "wait for writer", "wait for device")


@dataclass(frozen=True)
class Span:
    """One stage's work: `start` and `end` in s since the run began, in one `row`."""

    stage: str
    row: str
    start: float
    end: float


class Spans:
    """What a run's threads and device did, and when; any thread may add to it.

    `begun` (of `time.perf_counter`) is another process's, where its rows are to stand beside these.
    """

    def __init__(self, begun: float | None = None) -> None:
        self.begun = time.perf_counter() if begun is None else begun
        self.found: list[Span] = []  # appending to a list is atomic

    def now(self) -> float:
        """Return s since the run began."""
        return time.perf_counter() - self.begun

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block inside as a stage of this thread."""
        start = self.now()
        try:
            yield
        finally:
            row = threading.current_thread().name
            self.found.append(Span(name, row, start, self.now()))

    def seconds(self) -> dict[tuple[str, str], float]:
        """Return (row, stage) -> s of that stage alone, without the spans inside its spans."""
        rows: dict[str, list[Span]] = defaultdict(list)
        for span in self.found:
            rows[span.row].append(span)
        total: dict[tuple[str, str], float] = defaultdict(float)
        for row, spans in rows.items():
            for stage, own in _own_time(spans):
                total[row, stage] += own
        return dict(total)

    def shares(self) -> dict[str, float]:
        """Return stage -> its share of the time that all stages of `STAGES` took together."""
        busy = dict.fromkeys(STAGES, 0.0)
        for (_, stage), seconds in self.seconds().items():
            if stage in busy:
                busy[stage] += seconds
        whole = sum(busy.values()) or 1.0
        return {stage: seconds / whole for stage, seconds in busy.items()}

    def page(self, facts: Mapping[str, str]) -> str:
        """Return one page of text: facts of the run, then each row's stages and what bound it."""
        wall = max((span.end for span in self.found), default=0.0)
        lines = [f"{name}: {value}" for name, value in facts.items()]
        wide = max((len(span.row) for span in self.found), default=0) + 2
        lines += ["", f"{'row':<{wide}}{'stage':<18}{'seconds':>9}{'of the run':>12}"]
        busy: dict[str, float] = defaultdict(float)
        for (row, stage), seconds in sorted(self.seconds().items()):
            lines.append(f"{row:<{wide}}{stage:<18}{seconds:>9.2f}{seconds / (wall or 1):>12.1%}")
            busy[row] += seconds if stage not in WAITS else 0.0
        if busy:
            row = max(busy, key=lambda name: busy[name])
            lines += ["", f"busiest row: {row}, {busy[row] / (wall or 1):.1%} of {wall:.2f} s"]
        return "\n".join(lines) + "\n"

    def trace(self) -> str:
        """Return the spans as a Chrome trace (JSON; open it at chrome://tracing or Perfetto)."""
        rows = {row: i for i, row in enumerate(sorted({span.row for span in self.found}))}
        names = [
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": i, "args": {"name": row}}
            for row, i in rows.items()
        ]
        events = [
            {
                "name": span.stage,
                "ph": "X",
                "pid": 0,
                "tid": rows[span.row],
                "ts": span.start * 1e6,
                "dur": (span.end - span.start) * 1e6,
            }
            for span in self.found
        ]
        return json.dumps({"traceEvents": names + events})


def stage(spans: Spans | None, name: str) -> AbstractContextManager[None]:
    """Return a block that measures a stage, or does nothing where there is no `spans`."""
    return nullcontext() if spans is None else spans.stage(name)


def _own_time(spans: Sequence[Span]) -> Iterator[tuple[str, float]]:
    """Yield (stage, s) of the spans of one row, each without those that lie inside it."""
    open_spans: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        while open_spans and open_spans[-1].end <= span.start:
            open_spans.pop()
        length = span.end - span.start
        yield span.stage, length
        if open_spans:
            yield open_spans[-1].stage, -length
        open_spans.append(span)
