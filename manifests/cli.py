"""The command ``spk-manifests``, and how every command of spk tells what the user can repair."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from .table import InputError


class _Told:
    """Turn `InputError`, and nothing else, into one line on stderr and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)  # type: ignore[misc]
        except InputError as problem:
            _tell(problem)


def _tell(problem: InputError) -> NoReturn:
    click.echo(str(problem), err=True)
    raise SystemExit(1) from problem


class Command(_Told, click.Command):
    """A single command whose `InputError` is one line and exit code 1."""


class Group(_Told, click.Group):
    """A group of commands whose `InputError` is one line and exit code 1."""


@click.group(cls=Group)
@click.version_option(package_name="spk-toolkit")
def main() -> None:
    """Turn meetings (audio and RTTM, TextGrid or CSV) into a table of segments."""
