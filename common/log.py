"""Lines and progress bars for the user beside the results: on stderr, lines through `logging`.

``--quiet`` leaves only errors there; ``--verbose`` adds details, with the time, and tracebacks of
errors that the user can repair. In Python nothing is configured: the importing program decides.
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
    """Log a line of information for the user."""
    logging.getLogger(NAME).info("%s", line)


def warn(line: str) -> None:
    """Log what makes a result doubtful; in Python, `logging` shows it by default."""
    logging.getLogger(NAME).warning("%s", line)


def debug(line: str, *, problem: BaseException | None = None) -> None:
    """Log a detail that only ``--verbose`` shows, with the traceback of a problem."""
    logging.getLogger(NAME).debug("%s", line, exc_info=problem)


def is_quiet() -> bool:
    """Return whether only errors are wanted, and so no progress bars."""
    return logging.getLogger(NAME).level > logging.INFO


def progress_bar(total: float, **look: Any) -> tqdm:
    """Return a bar to `update` up to `total`; only on terminals, and erased when it is closed.

    `look` is passed to tqdm: `unit`, `bar_format`. Anything that takes more than a second or two on
    a corpus has a bar; none is drawn if there is nothing to do.
    """
    from tqdm import tqdm

    off = is_quiet() or not total
    return tqdm(total=total, disable=off or None, leave=False, dynamic_ncols=True, **look)


def with_progress(items: Iterable[Item], unit: str, total: int | None = None) -> Iterator[Item]:
    """Yield items, with a bar of how many are done; give `total` for items without a length."""
    count = len(items) if isinstance(items, Sized) else total or 0
    with progress_bar(count, unit=f" {unit}") as bar:
        for item in items:
            yield item
            bar.update()


@contextmanager
def logging_to_stderr(*, quiet: bool = False, verbose: bool = False) -> Iterator[None]:
    """Show the lines of `log` within the context, and those of `debug` if `verbose`."""
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
