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


AUDIO_ROOT = click.option(
    "--audio-root",
    type=click.Path(path_type=str),
    help="Folder of the recordings, searched recursively; without it ends are not checked.",
)
SCOPE = click.option(
    "--scope",
    type=click.Choice(("session", "series", "corpus")),
    default="session",
    show_default=True,
    help="Where a speaker id means one person.",
)
IDENTITY = click.option(
    "--identity", type=click.Path(), help="CSV session,speaker,person that names everybody."
)
SKIP_BAD = click.option(
    "--skip-bad", is_flag=True, help="Drop and list bad lines instead of stopping at the first."
)


@main.command()
@click.argument("path", type=click.Path())
@click.argument("table", type=click.Path())
@AUDIO_ROOT
@SCOPE
@IDENTITY
@SKIP_BAD
def rttm(path: str, table: str, skip_bad: bool, **options: Any) -> None:
    """Make the segment table TABLE (.csv or .parquet) of the RTTM file or folder PATH."""
    from .assemble import make_table
    from .rttm import read_rttm

    reading = read_rttm(path, skip_bad=skip_bad)
    _write_segments(*make_table(reading, skip_bad=skip_bad, **options), table)


@main.command()
@click.argument("path", type=click.Path())
@click.argument("table", type=click.Path())
@AUDIO_ROOT
@SCOPE
@IDENTITY
@SKIP_BAD
def textgrid(path: str, table: str, skip_bad: bool, **options: Any) -> None:
    """Make the segment table TABLE (.csv or .parquet) of the TextGrid file or folder PATH."""
    from .assemble import make_table
    from .textgrid import read_textgrids

    reading = read_textgrids(path, skip_bad=skip_bad)
    _write_segments(*make_table(reading, skip_bad=skip_bad, **options), table)


@main.command()
@click.argument("path", type=click.Path())
@click.argument("table", type=click.Path())
@click.option("--rttm-dir", type=click.Path(), help="RTTMs that the files were cut by.")
@AUDIO_ROOT
@SCOPE
@IDENTITY
@SKIP_BAD
def csv(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE of a reference CSV PATH (columns path,label).

    With --rttm-dir the segments are turns in session time, and --audio-root holds the recordings.
    Without it they are the cut files, each from 0 s to its end, found below --audio-root.
    """
    from .reference import read_reference_csv

    _write_segments(*read_reference_csv(path, **options), table)


def _write_segments(segments: Any, notes: Any, path: str) -> None:
    from .annotation import write_notes
    from .assemble import summarise
    from .table import write_table

    write_table(segments, path)
    listed = write_notes(notes, path)
    click.echo(f"{path}: {summarise(segments, notes)}" + (f"; see {listed}" if listed else ""))
