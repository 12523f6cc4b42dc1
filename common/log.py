"""Lines and progress bars for the user beside the results: on stderr, lines through `logging`.

``--quiet`` leaves errors alone there; ``--verbose`` adds what happens inside, with the time, and
the traceback of what can be repaired. In Python nothing is set: whoever imports `spk` decides.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .terminal import paint

if TYPE_CHECKING:
    from tqdm import tqdm

Item = TypeVar("Item")
NAME = "spk"
DETAILS = "%(relativeCreated)7.0f ms %(name)s: %(message)s"


class _ToStderr(logging.Handler):
    """Write lines to stderr: information as it is, details with the time since the start.

    Warnings are yellow on a terminal.
    """

    def __init__(self) -> None:
        super().__init__()
        self._details = logging.Formatter(DETAILS)

    def emit(self, record: logging.LogRecord) -> None:
        detail = record.levelno < logging.INFO
        line = self._details.format(record) if detail else record.getMessage()
        if record.levelno == logging.WARNING:
            line = paint(line, sys.stderr, fg="yellow")
        click.echo(line, err=True)


def log(line: str) -> None:
    """Tell the user a line of information, on stderr."""
    logging.getLogger(NAME).info("%s", line)


def warn(line: str) -> None:
    """Tell the user what makes a result doubtful; from Python `logging` shows it unasked."""
    logging.getLogger(NAME).warning("%s", line)


def debug(line: str, *, problem: BaseException | None = None) -> None:
    """Note a detail that only ``--verbose`` shows, with the traceback of a problem."""
    logging.getLogger(NAME).debug("%s", line, exc_info=problem)


def is_quiet() -> bool:
    """Tell whether only errors are wanted: then nothing draws a progress bar."""
    return logging.getLogger(NAME).level > logging.INFO


def progress_bar(total: float, **look: Any) -> tqdm:
    """Return a bar to `update` until `total`, on terminals alone, gone when it is closed.

    `look` is what tqdm takes: `unit`, `bar_format`. What takes more than a second or two on a
    corpus has one; nothing is drawn where there is nothing to do.
    """
    from tqdm import tqdm

    off = is_quiet() or not total
    return tqdm(total=total, disable=off or None, leave=False, dynamic_ncols=True, **look)


def with_progress(items: Iterable[Item], unit: str, total: int | None = None) -> Iterator[Item]:
    """Yield items, with a bar of how many are done; `total` for those that have no length."""
    count = len(items) if isinstance(items, Sized) else total or 0
    with progress_bar(count, unit=f" {unit}") as bar:
        for item in items:
            yield item
            bar.update()


@contextmanager
def logging_to_stderr(*, quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Show the lines of `log`, and of `debug` where `verbose`, until the block ends."""
    logger, handler = logging.getLogger(NAME), _ToStderr()
    before = logger.level, logger.propagate
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            if quiet:
                warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
