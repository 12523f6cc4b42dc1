"""The commands ``spk-manifests cut`` and ``match-csv``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...common.click_options import option, options_of
from ...common.commands import Command, exit_left_out, locks, writes
from ...common.counts import counted
from ...common.errors import InputError
from ...common.log import log
from ...common.outputs import BESIDE_TABLE, Output
from ..options import FILES, CutOptions, CutSource

if TYPE_CHECKING:
    import pandas as pd

    from ..formats.turns import Note
    from .rename import MatchReport


TABLES = ("segments.csv", "segments.table.csv")  # of a cut folder
LIMITS = ("min_seconds", "skip_bad", "allow_unpaired")  # of what the RTTMs say
SHOWN = 10  # names of a kind that match-csv prints; a corpus has thousands


@click.command(cls=Command)
@click.argument("table", type=click.Path(), required=False)
@click.argument("out", type=click.Path(), required=False)
@options_of(CutSource)
@options_of(CutOptions)
@option(
    "--listing-only",
    is_flag=True,
    group=FILES,
    help="Write only OUT/segments.csv; needs no audio.",
)
@locks
@writes(
    Output("out", folder=True, mark="cut.json"),
    Output("output_dir", folder=True, mark="cut.json"),
    *(Output("out", inside=name, owned=True, beside=BESIDE_TABLE) for name in TABLES),
    *(Output("output_dir", inside=name, owned=True, beside=BESIDE_TABLE) for name in TABLES),
    overwrite="Replace the OUT/segments.csv of --listing-only; a segment file is never replaced.",
)
def cut(
    table: str | None,
    out: str | None,
    *,
    listing_only: bool,
    overwrite: bool,
    no_lock: bool,
    **options: Any,
) -> None:
    """Cut the segments of TABLE to mono 16 kHz files in the folder OUT, and list them in a CSV.

    Or, like the thesis project's prepare_segments_from_rttm.py:
    --rttm-dir RTTM --audio-root AUDIO --output-dir OUT.
    """
    from ...common.outputs import protecting
    from .cut import LISTING, list_files, write_listing
    from .cut import cut_segments as cut_table

    segments, folder, root, notes = _cut_source(table, out, options, check_ends=not listing_only)
    if listing_only:
        listing = list_files(segments, folder, format=options["format"])
        with protecting([] if overwrite else [Path(folder, LISTING)]):
            write_listing(listing, Path(folder, LISTING))
        click.echo(f"{folder}/{LISTING}: {counted(len(listing), 'file')} listed, none cut")
    else:
        done = cut_table(segments, root, folder, lock=not no_lock, **options)
        for line in done.clipped:
            log(line)
        click.echo(
            f"{folder}: {counted(done.written, 'file')} written, {done.complete} already complete, "
            f"{counted(done.decoded, 'recording')} ({done.decoded_seconds / 60:.1f} min) decoded"
        )
    if notes is not None:
        _report_left_out(segments, notes, f"{folder}/{LISTING}")


def _report_left_out(segments: pd.DataFrame, notes: list[Note], listing: str) -> None:
    """Summarise what was left out between the RTTMs and the listing; write its notes file."""
    from ..formats.build import summarise
    from ..formats.turns import rows_left_out, write_notes

    listed = write_notes(notes, listing)
    click.echo(f"{listing}: {summarise(segments, notes)}" + (f"; see {listed}" if listed else ""))
    exit_left_out([rows_left_out(notes)])


@click.command("match-csv", cls=Command)
@option("--segments-dir", type=click.Path(), required=True, help="Folder of the segment files.")
@option("--csv-path", type=click.Path(), required=True, help="CSV with the columns path,label.")
@option("--dry-run", is_flag=True, help="Show what would be renamed; rename nothing.")
@option(
    "--output",
    "-o",
    aliases=("--out",),
    type=click.Path(),
    help="Write every name to this CSV: kind,name,new.",
)
@locks
@writes(Output("output", (".csv",)))
def match_csv(
    segments_dir: str, csv_path: str, *, dry_run: bool, output: str | None, no_lock: bool
) -> None:
    """Rename a folder of segment files to the names in a CSV; never overwrite."""
    from .rename import match_csv as rename
    from .rename import write_rows

    def write_report(report: MatchReport) -> None:
        if output is not None:  # before anything is renamed: it may be refused
            write_rows(report.rows(), output)

    report = rename(segments_dir, csv_path, dry_run=dry_run, lock=not no_lock, before=write_report)
    entries = report.rows()
    for kind in ("renamed", "missing", "extra", "ambiguous"):
        rows = [row for row in entries if row[0] == kind]
        for _, name, new in rows[:SHOWN]:
            line = f"{'would rename' if dry_run else 'renamed'} {name} to {new}"
            click.echo(line if kind == "renamed" else f"{kind}: {name}")
        if len(rows) > SHOWN:
            click.echo(f"{kind}: {len(rows) - SHOWN} more, listed by --output FILE")
    click.echo(report.summary())


def _cut_source(
    table: str | None, out: str | None, options: dict[str, Any], *, check_ends: bool
) -> tuple[pd.DataFrame, str, str, list[Note] | None]:
    """Pop the source's options from `options`; return table, output folder, audio root, notes.

    Notes are None if a table was given, since they were reported when it was made.
    """
    names = [setting.name for setting in fields(CutSource)]
    source = {name: options.pop(name) for name in names}
    source = {name: None if value is False else value for name, value in source.items()}
    chosen = {name for name in names if source[name] is not None}
    if table and out and chosen <= {"audio_root"}:
        from ..table import read_table

        return read_table(table), out, source["audio_root"] or ".", None
    needed = {"rttm_dir", "output_dir"} | ({"audio_root"} if check_ends else set())
    if table or not needed <= chosen:
        words = [word for word in (table, out) if word] + [
            f"--{name.replace('_', '-')}" for name in names if name in chosen
        ]
        raise InputError(
            f"spk-manifests cut: source is {' '.join(words) or 'not given'!r}, expected TABLE OUT "
            "[--audio-root], or --rttm-dir, --audio-root, --output-dir [--min-seconds] "
            "[--skip-bad] [--allow-unpaired]; give one of the two"
        )
    from ..formats.thesis_csv import prepare_segments

    limit = {name: source[name] for name in LIMITS if source[name] is not None}
    root = source["audio_root"] if check_ends else None
    segments, notes = prepare_segments(source["rttm_dir"], root, **limit)
    return segments, source["output_dir"], source["audio_root"], notes
