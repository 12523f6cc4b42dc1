"""The commands ``spk-manifests cut`` and ``match-csv``, in our and in the reference's spelling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .table import InputError

if TYPE_CHECKING:
    import pandas as pd


@click.command()
@click.argument("table", type=click.Path(), required=False)
@click.argument("out", type=click.Path(), required=False)
@click.option(
    "--audio-root", type=click.Path(), default=".", show_default=True, help="As in TABLE."
)
@click.option("--rttm-dir", "--rttm_dir", type=click.Path(), help="Instead of TABLE: RTTM folder.")
@click.option("--pcm-dir", "--pcm_dir", type=click.Path(), help="With --rttm-dir: recordings.")
@click.option("--output-dir", "--output_dir", type=click.Path(), help="With --rttm-dir: OUT.")
@click.option(
    "--min-seconds", type=float, default=1.5, show_default=True, help="With --rttm-dir: shortest."
)
@click.option("--format", type=click.Choice(("wav", "flac")), default="wav", show_default=True)
@click.option("--channel", default="0", show_default=True, help="Index from 0, or mean.")
@click.option("--resample", is_flag=True, help="Accept other sample rates than 16000 Hz.")
@click.option("--workers", type=int, default=0, show_default=True, help="0: one per core.")
@click.option("--listing-only", is_flag=True, help="Write OUT/segments.csv alone; needs no audio.")
def cut(table: str | None, out: str | None, listing_only: bool, **options: Any) -> None:
    """Cut the segments of TABLE to mono 16 kHz files in the folder OUT, and list them in a CSV.

    Or, as the reference project's prepare_segments_from_rttm.py:
    --rttm_dir RTTM --pcm_dir AUDIO --output_dir OUT.
    """
    from .cut import LISTING, list_files, write_listing
    from .cut import cut as cut_table

    segments, folder, root = _cut_source(table, out, options, check_ends=not listing_only)
    if listing_only:
        listing = list_files(segments, folder, format=options["format"])
        write_listing(listing, f"{folder}/{LISTING}")
        click.echo(f"{folder}/{LISTING}: {len(listing)} files listed, none cut")
        return
    done = cut_table(segments, root, folder, **options)
    click.echo(
        f"{folder}: {done.written} files written, {done.complete} found complete, "
        f"{done.decoded} recordings ({done.decoded_seconds / 60:.1f} min) decoded"
    )


@click.command("match-csv")
@click.option("--segments-dir", "--segments_dir", type=click.Path(), required=True)
@click.option("--csv-path", "--csv_path", type=click.Path(), required=True)
@click.option("--dry-run", is_flag=True, help="Tell what would be renamed, and rename nothing.")
def match_csv(segments_dir: str, csv_path: str, dry_run: bool) -> None:
    """Rename a folder of segment files to what a reference CSV lists; never overwrite."""
    from .match import match_csv as rename

    report = rename(segments_dir, csv_path, dry_run=dry_run)
    for old, new in report.renamed:
        click.echo(f"{'would rename' if dry_run else 'renamed'} {old} to {new}")
    for kind in ("missing", "extra", "ambiguous"):
        for name in getattr(report, kind):
            click.echo(f"{kind}: {name}")
    counts = ("renamed", "kept", "missing", "extra", "ambiguous")
    click.echo(", ".join(f"{len(getattr(report, kind))} {kind}" for kind in counts))


def _cut_source(
    table: str | None, out: str | None, options: dict[str, Any], *, check_ends: bool
) -> tuple[pd.DataFrame, str, str]:
    """Take the source's options out of `options`; return table, output folder, audio root."""
    names = ("rttm_dir", "pcm_dir", "output_dir", "min_seconds", "audio_root")
    rttm_dir, pcm_dir, output_dir, min_seconds, audio_root = (options.pop(n) for n in names)
    if table and out and not (rttm_dir or pcm_dir or output_dir):
        from .table import read_table

        return read_table(table), out, audio_root
    if table or not (rttm_dir and output_dir and (pcm_dir or not check_ends)):
        raise InputError(
            "spk-manifests cut: source is incomplete, expected TABLE OUT, or --rttm_dir, --pcm_dir "
            "and --output_dir; give one of the two"
        )
    from .annotation import write_notes
    from .cut import LISTING
    from .reference import prepare_segments

    root = pcm_dir if check_ends else None
    segments, notes = prepare_segments(rttm_dir, root, min_seconds=min_seconds)
    write_notes(notes, f"{output_dir}/{LISTING}")
    return segments, output_dir, pcm_dir
