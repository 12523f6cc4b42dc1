"""Lines for the user beside the results: on stderr, through `logging`.

``--quiet`` leaves errors alone there; ``--verbose`` adds what happens inside, with the time, and
the traceback of what can be repaired. In Python nothing is set: whoever imports `spk` decides.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tqdm import tqdm

NAME = "spk"
DETAILS = "%(relativeCreated)7.0f ms %(name)s: %(message)s"


class _ToStderr(logging.Handler):
    """Write lines to stderr: information as it is, details with the time since the start."""

    def __init__(self) -> None:
        super().__init__()
        self._details = logging.Formatter(DETAILS)

    def emit(self, record: logging.LogRecord) -> None:
        detail = record.levelno < logging.INFO
        click.echo(self._details.format(record) if detail else record.getMessage(), err=True)


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


def bar(total: int, unit: str) -> tqdm[Any]:
    """Return a progress bar of what is finished, shown on terminals only."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, disable=is_quiet() or None, leave=False)


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
