"""The command ``spk-store``: inspect, verify, merge, pack and export feature stores."""

from __future__ import annotations

import click

from ...common.click_options import option
from ...common.commands import Group, exit_left_out, locks, version_option, writes
from ...common.outputs import BESIDE_STORE, Output


@click.group(cls=Group, context_settings={"auto_envvar_prefix": "SPK_STORE"})
@version_option
def store() -> None:
    """Inspect, verify, merge, pack and export feature stores made by spk-extract."""


@store.command("info")
@click.argument("path", metavar="STORE", type=click.Path())
def info_(path: str) -> None:
    """Show segments, layers, size, configuration and rejected segments of STORE."""
    from .maintenance import store_info

    info = store_info(path)
    info["hours"] = f"{info['hours']:.2f}"
    for key in ("configuration", "versions", "rejected"):
        info[key] = "".join(f"\n  {name}: {value}" for name, value in info[key].items()) or " none"
    for key, value in info.items():
        click.echo(f"{key}:{value}" if str(value).startswith(("\n", " ")) else f"{key}: {value}")


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
        raise InputError(f"{path}: {len(faults)} faults, expected none; repair what is named above")
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
    text = f"{out}: {count} segments of {len(paths)} stores"
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

    click.echo(f"{out}: {pack(path, out, overwrite=overwrite)} bytes")


@store.command("export")
@click.argument("path", metavar="STORE", type=click.Path())
@click.argument("out", type=click.Path())
@writes(Output("out", (".npz", ".parquet")))
def export_(path: str, out: str, *, overwrite: bool) -> None:
    """Write STORE for other programs to OUT: .npz, or .parquet for pooled features.

    Exit code: 0 done, 1 something to repair, 3 some segments of STORE were rejected, and are not in
    OUT.
    """
    from .export import export
    from .reader import FeatureStore

    text = f"{out}: {export(path, out, overwrite=overwrite)} segments"
    if rejected := len(FeatureStore.open(path).rejected()):
        text += f"; {rejected} were rejected, see spk-store info {path}"
    click.echo(text)
    exit_left_out([rejected])
