"""The click base of every command: what a user can repair is one line on stderr, and exit codes."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from contextlib import nullcontext
from typing import Any, NoReturn

import click

from .errors import InputError
from .signals import ended_by_signals

FAILED = 1  # exit code: something to repair, told in one line
LEFT_OUT = 3  # exit code: done, but some rows could not be used and were left out
BUSY = 4  # exit code: another process works on some of the sessions


class _OneLineErrors:
    """Turn `InputError`, and nothing else, into one line on stderr and exit code 1.

    As a program (without `args`), signals end it in good order.
    """

    def main(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> Any:
        with nullcontext() if args is not None else ended_by_signals():
            return super().main(args, *others, **options)  # type: ignore[misc]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)  # type: ignore[misc]
        except InputError as problem:
            _exit_with(problem)


def _exit_with(problem: InputError) -> NoReturn:
    click.echo(str(problem), err=True)
    raise SystemExit(FAILED) from problem


def end_left_out(left_out: Sized) -> None:
    """End a command that is done with exit code `LEFT_OUT` where something was left out."""
    if len(left_out):
        raise SystemExit(LEFT_OUT)


class Command(_OneLineErrors, click.Command):
    """A single command whose `InputError` is one line and exit code 1."""


class Group(_OneLineErrors, click.Group):
    """A group of commands whose `InputError` is one line and exit code 1."""
