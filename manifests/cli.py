"""The command ``spk-manifests``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..common.commands import Group, exit_left_out, writes
from ..common.errors import InputError
from ..common.outputs import BESIDE_TABLE, TABLE, Output
from .cutting.cli import cut, match_csv

# Kinds of notes that say who is taken for whom: shown, not only listed.
CHOICES = ("renamed", "columns", "tiers", "channel", "offset", "strange")


@click.group(cls=Group)
@click.version_option(package_name="spk-toolkit")
def main() -> None:
    """Turn meetings (audio and RTTM, TextGrid or CSV) into a table of segments."""


main.add_command(cut)
main.add_command(match_csv)


def _annotated(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments and options of `build.make_table`, with its names and defaults."""
    options = [
        click.argument("path", type=click.Path()),
        click.argument("table", type=click.Path()),
        click.option(
            "--audio-root",
            type=click.Path(),
            help="Folder of the recordings, searched below; without it ends are not checked.",
        ),
        click.option(
            "--scope",
            type=click.Choice(("session", "series", "corpus")),
            default="session",
            show_default=True,
            help="Where a speaker id means one person.",
        ),
        click.option(
            "--identity",
            type=click.Path(),
            help="CSV session,speaker,person that names everybody.",
        ),
        click.option(
            "--skip-bad",
            is_flag=True,
            help="Drop and list bad lines and unreadable recordings, instead of stopping at one.",
        ),
        click.option(
            "--allow-unpaired",
            is_flag=True,
            help="Leave sessions without a recording out, instead of stopping.",
        ),
    ]
    command = writes(Output("table", TABLE, beside=BESIDE_TABLE))(command)
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@_annotated
def rttm(path: str, table: str, skip_bad: bool, **options: Any) -> None:
    """Make the segment table TABLE (.csv or .parquet) of the RTTM file or folder PATH."""
    from .formats.build import make_table
    from .formats.rttm import read_rttm

    with _notes_written(table):
        reading = read_rttm(path, skip_bad=skip_bad)
        made = make_table(reading, skip_bad=skip_bad, **options)
    _write_segments(*made, table)


@main.command()
@_annotated
@click.option(
    "--tiers",
    multiple=True,
    help="Tier that is a speaker's, by name or pattern (*, ?); may be given again. "
    "[all but those of words and phones; of 'A - words' speaker A]",
)
@click.option(
    "--silence",
    multiple=True,
    help="Mark that is silence, in any case; may be given again. [sil sp spn <eps> h# pause]",
)
def textgrid(
    path: str,
    table: str,
    skip_bad: bool,
    tiers: tuple[str, ...],
    silence: tuple[str, ...],
    **options: Any,
) -> None:
    """Make the segment table TABLE (.csv or .parquet) of the TextGrid file or folder PATH."""
    from .formats.build import make_table
    from .formats.textgrid import SILENCE, read_textgrids

    with _notes_written(table):
        reading = read_textgrids(path, skip_bad=skip_bad, tiers=tiers, silence=silence or SILENCE)
        made = make_table(reading, skip_bad=skip_bad, **options)
    _write_segments(*made, table)


@main.command()
@_annotated
@click.option("--rttm-dir", type=click.Path(), help="RTTMs that the files were cut by.")
@click.option(
    "--last-underscore",
    is_flag=True,
    help="Speakers hold no '_': divide labels at the last one, where no cut's table says how.",
)
def csv(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE of a reference CSV PATH (columns path,label).

    With --rttm-dir the segments are turns in session time, and --audio-root holds the recordings.
    Without it they are the cut files, each from 0 s to its end; PATH names them from --audio-root.
    """
    from .formats.thesis_csv import read_reference_csv

    with _notes_written(table):
        made = read_reference_csv(path, **options)
    _write_segments(*made, table)


@main.command()
@click.argument("table", type=click.Path())
@click.argument("out", type=click.Path())
@click.option("--sessions", multiple=True, help="Session to keep; may be given again. [all]")
@click.option("--min-seconds", type=float, default=0.0, show_default=True, help="Shortest, in s.")
@click.option("--max-seconds", type=float, help="Longest, in s.")
@click.option("--max-overlap", type=float, help="Greatest share, 0..1, with another voice.")
@click.option(
    "--min-segments", type=int, default=1, show_default=True, help="Fewest per speaker, at the end."
)
@click.option("--keep-roll-call", is_flag=True, help="Keep the opening roll call in any case.")
@writes(Output("out", TABLE, over=("table",), beside=BESIDE_TABLE))
def select(table: str, out: str, **options: Any) -> None:
    """Choose segments of TABLE by session, duration, overlap and number; write them to OUT."""
    from .formats.turns import Note, write_notes
    from .splits import select as room
    from .splits.split import keep_record, read_record
    from .table import read_table, write_table

    record = read_record(table)
    kept, dropped = room.select_segments(read_table(table), **options)
    write_table(kept, out)
    keep_record(record, out)
    write_notes([Note(rule, name, "dropped") for rule, ids in dropped for name in ids], out)
    for rule, ids in dropped:
        click.echo(f"{rule}: dropped {len(ids)}")
    click.echo(f"{out}: {len(kept)} segments kept")


@main.command()
@click.argument("table", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--method",
    type=click.Choice(
        ("chronological", "blocked-k", "leave-one-session-out", "enrol", "roll-call", "random")
    ),
    default="chronological",
    show_default=True,
)
@click.option("--test-share", type=float, help="Share of each speaker's segments, 0..1. [0.2]")
@click.option("--valid-share", type=float, help="Share of the rest, 0..1. [0.15; random: 0]")
@click.option("--gap", type=float, help="Purge what is nearer than this, in s. [2]")
@click.option("--folds", type=int, help="blocked-k: number of blocks. [5]")
@click.option("--fold", type=int, help="blocked-k: the block that is test, from 0. [0]")
@click.option("--session", help="leave-one-session-out: the session that is test.")
@click.option(
    "--unknown",
    type=click.Choice(("refuse", "purge")),
    help="leave-one-session-out: speakers of no other session. [refuse]",
)
@click.option("--seconds", type=float, help="enrol: speech of each speaker to train on. [15]")
@click.option("--seed", type=int, help="random: the seed. [42]")
@click.option(
    "--within", type=click.Choice(("session", "corpus")), help="random: where to draw. [session]"
)
@writes(Output("out", TABLE, over=("table",), beside=BESIDE_TABLE))
def split(table: str, out: str, method: str, **options: Any) -> None:
    """Divide TABLE into train, valid and test; write it to OUT, and how to OUT.split.json."""
    from .splits import split as room
    from .table import read_table, write_table

    given = {name: value for name, value in options.items() if value is not None}
    divided, record = room.split_table(read_table(table), method, **given)
    write_table(divided, out)
    room.write_record(record, out)
    click.echo(f"{out}: {room.summarise(record)}")


@main.command()
@click.argument("table", type=click.Path())
@click.option("--out", "-o", type=click.Path(), help="Write the report to this CSV too.")
@writes(Output("out", (".csv",)))
def leaks(table: str, out: str | None) -> None:
    """Tell how far the test segments of TABLE are known from training."""
    from .splits import leakage as room
    from .splits.split import read_record, summarise
    from .table import read_table

    report = room.leakage_report(read_table(table))
    record = read_record(table)
    click.echo(f"{table}: {summarise(record) if record else 'nobody wrote down how it was split'}")
    _show(report, out, digits=3)


@main.command()
@click.argument("table", type=click.Path())
@click.option("--out", "-o", type=click.Path(), help="Write the description to this CSV too.")
@writes(Output("out", (".csv",)))
def describe(table: str, out: str | None) -> None:
    """Count speakers, segments, minutes and overlap of TABLE, per session and in all."""
    from .splits import select as room
    from .table import read_table

    _show(room.describe(read_table(table)), out, digits=2)


@main.command()
@click.argument("out", type=click.Path())
@click.option("--sessions", type=int, default=4, show_default=True, help="Meetings, 1 to 20.")
@click.option("--minutes", type=float, default=5.0, show_default=True, help="Of each, 1 to 60.")
@click.option("--speakers", type=int, default=5, show_default=True, help="In each, 2 to 9.")
@click.option("--channels", type=int, default=8, show_default=True, help="Of the last, 1 to 16.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws everything.")
@writes(Output("out", folder=True))
def demo(out: str, overwrite: bool, **options: Any) -> None:
    """Write a synthetic AISHELL-4-shaped corpus to the folder OUT: same seed, same bytes."""
    from ..common.outputs import protecting
    from .demo.corpus import demo as write_corpus

    with protecting([] if overwrite else [Path(out)]):
        names = write_corpus(out, **options)
    click.echo(f"{out}: {len(names)} sessions, {names[0]} to {names[-1]}")


def _show(report: Any, out: str | None, *, digits: int) -> None:
    from ..common.files import atomic_write

    click.echo(report.round(digits).to_string(index=False))
    if out is not None:
        atomic_write(out, report.to_csv(index=False, lineterminator="\n").encode())


@contextmanager
def _notes_written(table: str) -> Iterator[None]:
    """List what was noted beside the table, also where there will be none."""
    from .formats.turns import write_notes

    try:
        yield
    except InputError as problem:
        if not problem.notes:
            raise
        listed = write_notes(problem.notes, table)
        raise InputError(f"{problem}; see {listed}") from problem


def _write_segments(segments: Any, notes: Any, path: str) -> None:
    from .formats.build import summarise
    from .formats.turns import rows_left_out, write_notes
    from .splits.split import drop_record
    from .table import write_table

    write_table(segments, path)
    drop_record(path)
    listed = write_notes(notes, path)
    click.echo(f"{path}: {summarise(segments, notes)}" + (f"; see {listed}" if listed else ""))
    for kind in CHOICES:
        messages = [f"{note.place}: {note.message}" for note in notes if note.kind == kind]
        more = f" (and {len(messages) - 1} more {kind} notes)" if len(messages) > 1 else ""
        if messages:
            click.echo(f"{messages[0]}{more}", err=True)
    exit_left_out([rows_left_out(notes)])
