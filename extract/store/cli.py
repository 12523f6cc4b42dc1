"""The command ``spk-store``: inspect, verify, merge, pack, export and import feature stores."""

from __future__ import annotations

from typing import Any

import click

from ...common.click_options import option
from ...common.commands import Group, exit_left_out, locks, version_option, writes
from ...common.counts import counted
from ...common.outputs import BESIDE_STORE, Output


@click.group(cls=Group, context_settings={"auto_envvar_prefix": "SPK_STORE"})
@version_option
def store() -> None:
    """Inspect, verify, merge, pack and export feature stores; import other encoders' vectors."""


@store.command("info")
@click.argument("path", metavar="STORE", type=click.Path())
def info_(path: str) -> None:
    """Show segments, layers, size, configuration and rejected segments of STORE.

    If an extraction is writing to it: its progress, by whom, since when, and the units that
    machines are working on. The extraction is not disturbed.
    """
    from .maintenance import store_info

    info = store_info(path)
    running = info.pop("running")
    info["hours"] = f"{info['hours']:.2f}"
    for key in ("configuration", "versions", "rejected"):
        info[key] = "".join(f"\n  {name}: {value}" for name, value in info[key].items()) or " none"
    for key, value in info.items():
        click.echo(f"{key}:{value}" if str(value).startswith(("\n", " ")) else f"{key}: {value}")
    if running:
        click.echo(_running_text(running))


def _running_text(running: dict[str, Any]) -> str:
    """Return the lines on a running extraction."""
    whose = "by process {pid} on {host}, since {since}"
    state = "process is gone" if running["gone"] else f"updated {running['age']:.0f} s ago"
    lines = [
        f"running: {counted(running['done'], 'segment', of=running['total'])} committed, "
        f"{whose.format(**running)} ({state})"
    ]
    for unit in running["units"]:
        again = f", try {unit['tries']}" if unit["tries"] > 1 else ""
        lines.append(f"  {unit['name']}: {whose.format(**unit)}{again}")
    return "\n".join(lines)


@store.command("verify")
@click.argument("path", metavar="STORE", type=click.Path())
@option(
    "--table",
    type=click.Path(),
    help="Segment table that STORE was made from (.csv or .parquet); with --audio-root.",
)
@option(
    "--audio-root",
    aliases=("--audio",),
    type=click.Path(),
    help="Folder of the table's audio: also compare the decoded samples.",
)
def verify_(path: str, table: str | None, audio_root: str | None) -> None:
    """Read every byte of STORE and list any faults; exit code 1 if there are any."""
    from ...common.errors import InputError
    from ...manifests.table import read_table
    from .maintenance import verify_store

    faults = verify_store(path, table=read_table(table) if table else None, audio=audio_root)
    for fault in faults:
        click.echo(fault)
    if faults:
        raise InputError(
            f"{path}: {counted(len(faults), 'fault')}, expected none; repair what is named above"
        )
    click.echo(f"{path}: every byte is as it was written")


@store.command("merge")
@click.argument("paths", metavar="STORES...", nargs=-1, required=True, type=click.Path())
@click.argument("out", type=click.Path())
@locks
@writes(
    Output("out", folder=True, mark="store.json", beside=BESIDE_STORE),
    overwrite="Replace an existing store OUT; otherwise rows are added to it.",
)
def merge_(paths: tuple[str, ...], out: str, *, overwrite: bool, no_lock: bool) -> None:
    """Copy the rows of STORES, folders or packed files of one configuration, into folder OUT.

    OUT may be new, or an existing store to add to. Exit code: 0 done, 1 something to repair, 3 some
    segments of OUT were rejected (listed in OUT.rejected.csv).
    """
    from .layout import rejected_path
    from .maintenance import merge_stores
    from .reader import FeatureStore

    count = merge_stores(paths, out, overwrite=overwrite, lock=not no_lock)
    text = f"{out}: {counted(count, 'segment')} of {counted(len(paths), 'store')}"
    if rejected := len(FeatureStore.open(out).rejected()):
        text += f"; {rejected} rejected, see {rejected_path(out)}"
    click.echo(text)
    exit_left_out([rejected])


@store.command("pack")
@click.argument("path", metavar="STORE", type=click.Path())
@click.argument("out", type=click.Path())
@writes(Output("out"))
def pack_(path: str, out: str, *, overwrite: bool) -> None:
    """Write STORE as a single HDF5 file OUT, layer by layer, for sharing."""
    from .export import pack

    click.echo(f"{out}: {counted(pack(path, out, overwrite=overwrite), 'byte')}")


@store.command("export")
@click.argument("path", metavar="STORE", type=click.Path())
@click.argument("out", type=click.Path())
@option(
    "--table",
    type=click.Path(),
    help="Segment table: adds session, speaker, split, start and end; only its segments are "
    "written.",
)
@writes(Output("out", (".npz", ".parquet")))
def export_(path: str, out: str, *, table: str | None, overwrite: bool) -> None:
    """Write STORE for other programs to OUT: .npz, or .parquet for pooled features.

    Exit code: 0 done, 1 something to repair, 3 some segments (of TABLE, or else of STORE) were
    rejected, or have no features, and are not in OUT.
    """
    from ...manifests.table import read_table
    from .export import export
    from .reader import FeatureStore

    segments = None if table is None else read_table(table)
    count = export(path, out, table=segments, overwrite=overwrite)
    text = f"{out}: {counted(count, 'segment')}"
    if segments is None:
        left = len(FeatureStore.open(path).rejected())
        text += f"; {left} were rejected, see spk-store info {path}" if left else ""
    else:
        left = len(segments) - count
        text += f" of {len(segments)} in the table"
        text += f"; {left} have no features, see spk-store info {path}" if left else ""
    click.echo(text)
    exit_left_out([left])


@store.command("import")
@click.argument("vectors", type=click.Path())
@click.argument("table", type=click.Path())
@click.argument("out", metavar="STORE", type=click.Path())
@option("--name", help="Name of the encoder; files from spk-store export contain it.")
@option(
    "--weights",
    type=click.Path(),
    help="File of the encoder's weights, whose SHA-256 then identifies the encoder, so that stores "
    "of several VECTORS match; without it each VECTORS counts as another encoder.",
)
@option(
    "--partial",
    is_flag=True,
    help="Take the segments that TABLE and VECTORS share; those without a vector are rejected.",
)
@locks
@writes(
    Output("out", folder=True, mark="store.json", beside=BESIDE_STORE),
    overwrite="Replace an existing STORE; otherwise vectors of the same encoder are added to it.",
)
def import_(
    vectors: str, table: str, out: str, *, overwrite: bool, no_lock: bool, **options: Any
) -> None:
    """Make STORE from VECTORS that another encoder computed for the segments in TABLE.

    VECTORS is an .npz (`segment_id` and an array (rows, dim) or (rows, layers, dim), or an array
    per segment, by its id), a .parquet or a .csv (`segment_id` and the numbers, or a list of them),
    or what spk-store export wrote, which is read back to the bit. Exit code: 0 done, 1 something to
    repair, 3 with --partial, TABLE and VECTORS differ in some segments.
    """
    from ...manifests.table import read_table
    from .importing import run_import

    options |= {"overwrite": overwrite, "lock": not no_lock}
    summary = run_import(vectors, read_table(table), out, **options)
    click.echo(str(summary))
    exit_left_out([summary.missing, summary.unexpected])
