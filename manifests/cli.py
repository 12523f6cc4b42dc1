"""The command ``spk-manifests``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.click_options import option, options_of
from ..common.commands import Group, exit_left_out, version_option, writes
from ..common.counts import counted
from ..common.errors import InputError
from ..common.log import log
from ..common.outputs import BESIDE_CORRECTED, BESIDE_TABLE, TABLE, Output
from ..common.terminal import frame_table, show
from .cutting.cli import cut, match_csv
from .demo.cli import demo, sample
from .options import (
    CsvOptions,
    CueOptions,
    EafOptions,
    ExportOptions,
    SelectOptions,
    SplitOptions,
    TableOptions,
    TextGridOptions,
)

if TYPE_CHECKING:
    import pandas as pd

    from .formats.turns import Annotation

_TIMES = option(
    "--times",
    type=click.Path(),
    help="For cut files: the table that was cut, or the folder of RTTMs, with their times in the "
    "session.",
)
# Kinds of notes that say who was identified as whom: shown, not only listed.
CHOICES = ("renamed", "columns", "tiers", "speakers", "channel", "offset", "strange")

READERS_OPTIONS = ("tiers", "silence", "participants", "speakers")


@click.group(cls=Group, context_settings={"auto_envvar_prefix": "SPK_MANIFESTS"})
@version_option
def main() -> None:
    """Turn meetings (audio, and who speaks when) into a table of segments."""


for command in (cut, match_csv, demo, sample):
    main.add_command(command)


def _annotated(body: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments of a command that makes a segment table, and say what it writes."""
    body = writes(Output("table", TABLE, beside=BESIDE_TABLE))(body)
    for name in ("table", "path"):
        body = click.argument(name, type=click.Path())(body)
    return body


@main.command()
@options_of(TableOptions)
@_annotated
def rttm(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE (.csv or .parquet) from the RTTM file or folder PATH."""
    from .formats.rttm import read_rttm

    _make_segments(read_rttm, path, table, **options)


@main.command()
@options_of(TextGridOptions)
@_annotated
def textgrid(path: str, table: str, silence: tuple[str, ...], **options: Any) -> None:
    """Make the segment table TABLE (.csv or .parquet) from the TextGrid file or folder PATH."""
    from .formats.textgrid import SILENCE, read_textgrid

    _make_segments(read_textgrid, path, table, silence=silence or SILENCE, **options)


@main.command()
@options_of(TableOptions)
@_annotated
def whisperx(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE from the WhisperX JSON (or SegLST) file or folder PATH."""
    from .formats.whisperx import read_whisperx

    _make_segments(read_whisperx, path, table, **options)


@main.command()
@options_of(CueOptions)
@_annotated
def srt(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE from the SRT file or folder PATH."""
    from .formats.srt import read_srt

    _make_segments(read_srt, path, table, **options)


@main.command()
@options_of(CueOptions)
@_annotated
def vtt(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE from the WebVTT file or folder PATH."""
    from .formats.vtt import read_vtt

    _make_segments(read_vtt, path, table, **options)


@main.command()
@options_of(CueOptions)
@_annotated
def txt(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE from the file or folder PATH of text with times."""
    from .formats.txt import read_txt

    _make_segments(read_txt, path, table, **options)


@main.command()
@options_of(EafOptions)
@_annotated
def eaf(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE from the ELAN file (.eaf) or folder PATH."""
    from .formats.eaf import read_eaf

    _make_segments(read_eaf, path, table, **options)


@main.command()
@options_of(TableOptions)
@_annotated
def lhotse(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE from the lhotse supervisions, cuts or folder PATH."""
    from .formats.lhotse import read_lhotse

    _make_segments(read_lhotse, path, table, **options)


@main.command()
@options_of(TableOptions)
@_annotated
def kaldi(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE from the Kaldi data directory PATH."""
    from .formats.kaldi import read_kaldi

    read = partial(read_kaldi, audio_root=options["audio_root"])
    _make_segments(read, path, table, **options)


@main.command()
@options_of(TableOptions)
@_annotated
def nemo(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE from the NeMo manifest PATH, or a folder of them."""
    from .formats.nemo import read_nemo

    read = partial(read_nemo, audio_root=options["audio_root"])
    _make_segments(read, path, table, **options)


@main.command()
@options_of(TableOptions)
@_annotated
def turns(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE from a CSV of turns PATH (columns file,start,end,speaker)."""
    from .formats.segmented_csv import read_segmented_csv

    _make_segments(read_segmented_csv, path, table, **options)


@main.command()
@options_of(CsvOptions)
@_annotated
def csv(path: str, table: str, **options: Any) -> None:
    """Make the segment table TABLE from a CSV of cut files PATH (columns path,label).

    With --rttm-dir the segments are turns in session time, and --audio-root holds the recordings.
    Without it they are the cut files, each from 0 s to its end, with paths relative to
    --audio-root.
    """
    from .formats.thesis_csv import read_reference_csv

    with _notes_written(path, table):
        made = read_reference_csv(path, **options)
    _write_segments(*made, table)


@main.command()
@click.argument("table", type=click.Path())
@click.argument("out", type=click.Path())
@options_of(SelectOptions)
@writes(Output("out", TABLE, over=("table",), beside=BESIDE_TABLE))
def select(table: str, out: str, **options: Any) -> None:
    """Choose segments of TABLE by session, duration, overlap and number; write them to OUT."""
    from .formats.turns import Note, write_notes
    from .splits.select import select_segments
    from .table import read_table, write_table

    dropped: dict[str, list[str]] = {}
    segments = select_segments(read_table(table), dropped=dropped, **options)
    write_table(segments, out)
    write_notes([Note(rule, name, "dropped") for rule, ids in dropped.items() for name in ids], out)
    for rule, ids in dropped.items():
        click.echo(f"{rule}: dropped {len(ids)}")
    click.echo(f"{out}: {counted(len(segments), 'segment')} kept")


@main.command()
@click.argument("table", type=click.Path())
@click.argument("out", type=click.Path())
@options_of(SplitOptions)
@_TIMES
@writes(Output("out", TABLE, over=("table",), beside=BESIDE_TABLE))
def split(table: str, out: str, method: str, times: str | None, **options: Any) -> None:
    """Divide TABLE into train, valid and test; write it to OUT, and the method to OUT.split.json.

    A TABLE of cut files has no times: leave-one-session-out and random need none, but then purge
    nothing; for the other methods pass --times.
    """
    from .split_record import KEY, summarise
    from .splits.split import split_table
    from .table import read_table, write_table

    given = {name: value for name, value in options.items() if value is not None}
    rows = read_table(table)
    divided = split_table(_timed(rows, times), method, **given)
    rows = rows.assign(split=divided["split"])
    rows.attrs[KEY] = divided.attrs[KEY]
    write_table(rows, out)
    click.echo(f"{out}: {summarise(rows.attrs[KEY])}")


@main.command()
@click.argument("table", type=click.Path())
@click.argument("corrections", type=click.Path())
@option("--output", "-o", type=click.Path(), required=True, help="The corrected table.")
@writes(Output("output", TABLE, over=("table",), beside=BESIDE_TABLE | BESIDE_CORRECTED))
def correct(table: str, corrections: str, output: str) -> None:
    """Apply CORRECTIONS of labels to TABLE, and record the old and new names.

    CORRECTIONS has columns segment_id,session,labelled,suggested, like corrections.csv from
    spk-classify audit; an empty suggested removes the turn. Listen first, and delete rows you do
    not agree with. Rows that do not match TABLE, and a TABLE changed since, are refused.
    """
    from .corrections import correct_file

    click.echo(f"{output}: {correct_file(table, corrections, output).summary}")


@main.command()
@click.argument("table", type=click.Path())
@option(
    "--output",
    "-o",
    aliases=("--out",),
    type=click.Path(),
    help="Write the report to this CSV too.",
)
@_TIMES
@writes(Output("output", (".csv",)))
def leaks(table: str, output: str | None, times: str | None) -> None:
    """Report how much of the test segments of TABLE leaks from training."""
    from .split_record import record_of, summarise
    from .splits.leakage import leakage_report
    from .table import read_table

    rows = read_table(table)
    report, record = leakage_report(_timed(rows, times)), record_of(rows)
    click.echo(f"{table}: {summarise(record) if record else 'nobody wrote down how it was split'}")
    _show(report, output, digits=3)


@main.command()
@click.argument("table", type=click.Path())
@option(
    "--output",
    "-o",
    aliases=("--out",),
    type=click.Path(),
    help="Write the description to this CSV too.",
)
@writes(Output("output", (".csv",)))
def describe(table: str, output: str | None) -> None:
    """Count speakers, segments, minutes and overlap of TABLE, per session and in all."""
    from .splits import select as room
    from .table import read_table

    _show(room.describe(read_table(table)), output, digits=2)


@main.command()
@click.argument("table", type=click.Path())
@click.argument("out", type=click.Path())
@options_of(ExportOptions)
@writes(Output("out", either=True))
def export(table: str, out: str, **options: Any) -> None:
    """Write the turns of TABLE in another format: to a file OUT, or a folder with one per session.

    OUT is a file if it has the format's suffix (.rttm .json .seglst.json .TextGrid .srt .vtt
    .txt .eaf .jsonl .jsonl.gz .nemo.json .csv; with --format nemo also .json or .jsonl); kaldi,
    and lhotse with its recordings, write a folder.
    """
    from ..common.outputs import protecting
    from .formats.export import export_table
    from .table import read_table

    segments = read_table(table)
    with protecting([Path(table)]):  # which may lie in the folder OUT
        written = export_table(segments, out, **options)
    click.echo(f"{out}: {counted(len(segments), 'turn')} in {written}")


def _timed(table: pd.DataFrame, times: str | None) -> pd.DataFrame:
    """Return a table of cut files with the times from a table of meetings or from RTTMs."""
    if times is None:
        return table
    from .formats.build import make_table
    from .formats.rttm import read_rttm
    from .splits.times import with_times
    from .table import read_table

    annotated = Path(times).is_dir() or Path(times).suffix == ".rttm"
    recorded = make_table(read_rttm(times)) if annotated else read_table(times)
    return with_times(table, recorded)


def _show(report: Any, output: str | None, *, digits: int) -> None:
    from ..common.files import atomic_write

    show(frame_table(report.round(digits)))
    if output is not None:
        atomic_write(output, report.to_csv(index=False, lineterminator="\n").encode())


def _make_segments(
    read: Callable[..., Annotation],
    path: str,
    table: str,
    *,
    skip_bad: bool,
    **options: Any,
) -> None:
    """Write the segment table of what `read` returns; options that `read` knows are passed on."""
    from .formats.build import make_table
    from .formats.turns import Note

    own = {name: options.pop(name) for name in READERS_OPTIONS if name in options}
    with _notes_written(path, table):
        annotation, notes = read(path, skip_bad=skip_bad, **own), list[Note]()
        made = make_table(annotation, skip_bad=skip_bad, notes=notes, **options)
    _write_segments(made, notes, table)


@contextmanager
def _notes_written(path: str, table: str) -> Iterator[None]:
    """List notes beside the table even if it is not made, and name the annotation by its path."""
    from .formats.turns import write_notes

    try:
        yield
    except InputError as problem:
        where, _, rest = str(problem).partition(": ")
        text = f"{path}: {rest}" if where == "annotation" else str(problem)
        if problem.notes:
            text += f"; see {write_notes(problem.notes, table)}"
        raise InputError(text) from problem


def _write_segments(segments: Any, notes: Any, path: str) -> None:
    from .formats.build import summarise
    from .formats.turns import rows_left_out, write_notes
    from .table import write_table

    write_table(segments, path)
    listed = write_notes(notes, path)
    click.echo(f"{path}: {summarise(segments, notes)}" + (f"; see {listed}" if listed else ""))
    for kind in CHOICES:
        messages = [f"{note.place}: {note.message}" for note in notes if note.kind == kind]
        more = (
            f" (and {counted(len(messages) - 1, f'more {kind} note')})" if len(messages) > 1 else ""
        )
        if messages:
            log(f"{messages[0]}{more}")
    exit_left_out([rows_left_out(notes)])
